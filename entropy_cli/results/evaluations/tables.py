"""The tables of an evaluation, for a terminal and for reports alike, and the terms in them."""

import math
from collections.abc import Iterator

from entropy_cli.core.table import Table
from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.checks import number_or_auto, temperature_text
from entropy_cli.results.evaluation import Evaluation, Losses
from entropy_cli.results.evaluations.summary import perplexity_text, share, size_text
from entropy_cli.results.ladder import DIGITS
from entropy_cli.results.legend import averages
from entropy_cli.results.schema import Estimates
from entropy_cli.results.summary import number_text
from entropy_cli.results.tables import REPORT, Format, caption_with_bounds, in_words

NAMES = {"token_weighted": "tokens", "over_scales": "mean of scales", "last_scale": "final scale"}
TERMS = {
    "cross-entropy": "mean of -ln p(token), given all earlier tokens and the class (teacher forcing)",
    "unigram": "entropy of the histogram of the tokens: the loss of the best constant prediction",
    "gain": "unigram entropy - cross-entropy",
    "no class": "the cross-entropy given the null class{null}",
    "H(p)": "mean entropy of the predictions; the cross-entropy of a calibrated model",
    "top-1, top-5": "share of tokens that are the likeliest code, or among the five likeliest",
    "perplexity": "exp(cross-entropy in nats): the number of equally likely codes",
    "H(q)": "assignment entropy A: mean entropy of a token's soft assignment q",
    "soft loss": "mean of -sum q ln p = H(q) + KL(q||p); H(q) is its floor",
    "KL(q||p)": "what a better model can take from the soft loss",
    "CE - H(q)": "cross-entropy - A; it may be negative",
    "nats an image": "the cross-entropy of all tokens of an image",
    "bits per pixel": "the same in bits, by the pixels of the image: the length of its tokens",
}


def tables(evaluation: Evaluation, style: Format = REPORT) -> list[Table]:
    """Return all tables of an evaluation that have content."""
    found = [losses_table(evaluation, style)]
    if evaluation.average.token_weighted.kl.value is not None:
        found.append(soft_table(evaluation, style))
        if len(evaluation.temperatures) > 1:
            found.append(temperatures_table(evaluation, style))
    return found


def heading(evaluation: Evaluation, units: str = "nats") -> str:
    """Return the cross-entropy of the model, in a sentence."""
    model, images = evaluation.model, evaluation.estimate.data.images_used
    size = size_text(model.parameters)
    which = "token-weighted, " if len(evaluation.scales) > 1 else ""
    return (
        f"Cross-entropy of {model.family}{f', {size}' if size else ''}: "
        f"{in_words(evaluation.average.token_weighted.cross_entropy, units)} ({which}{images:,} images)"
    )


def losses_table(evaluation: Evaluation, style: Format = REPORT) -> Table:
    """Return a table of the losses of the hard tokens at every scale, and their averages."""
    rows = []
    for name, estimates, losses in _parts(evaluation):
        rows.append(
            [
                name,
                _plain(estimates.unigram_entropy, style),
                _plain(losses.cross_entropy_null, style),
                style.entropy(losses.cross_entropy),
                _plain(losses.gain, style),
                _plain(losses.predictive_entropy, style),
                share(losses.accuracy_top1),
                share(losses.accuracy_top5),
                perplexity_text(losses.perplexity),
            ]
        )
    head = ["scale", "unigram", "no class", "cross-entropy", "gain", "H(p)", "top-1", "top-5"]
    log_vocab = style.per_nat * math.log(evaluation.estimate.tokenizer.vocab_size)
    caption = f"{style.units} per token, a uniform guess is {log_vocab:.4f}; ± standard error"
    caption = caption_with_bounds(caption, rows)
    table = Table(
        "losses", "Losses", [*head, "perplexity"], rows, caption, rules=(len(evaluation.scales),)
    )
    return table if evaluation.labels.check is not None else table.without("no class")


def soft_table(evaluation: Evaluation, style: Format = REPORT) -> Table:
    """Return a table of the losses against q at the headline's temperature."""
    rows = []
    for name, estimates, losses in _parts(evaluation):
        cells = (estimates.assignment_entropy, losses.target_cross_entropy, losses.kl, losses.reducible)
        rows.append([name, *(_plain(cell, style) for cell in cells)])
    head = ["scale", "H(q)", "soft loss", "KL(q||p)", "CE - H(q)"]
    title = f"Soft assignments at {temperature_text(evaluation.estimate.settings.temperature)}"
    caption = f"{style.units} per token; H(q) is the floor of the soft loss"
    return Table("soft-losses", title, head, rows, caption, rules=(len(evaluation.scales),))


def temperatures_table(evaluation: Evaluation, style: Format = REPORT) -> Table:
    """Return a table of the losses against q at every temperature, averaged over all tokens."""
    rows = []
    pairs = zip(evaluation.estimate.temperatures, evaluation.temperatures, strict=True)
    for at, losses in pairs:
        entropy, soft = at.average.token_weighted.assignment_entropy, losses.average.token_weighted
        cells = (entropy, soft.target_cross_entropy, soft.kl)
        rows.append([number_or_auto(at.temperature), *map(style.entropy, cells)])
    head = ["T", "H(q)", "soft loss", "KL(q||p)"]
    which = "averaged over all tokens" if len(evaluation.scales) > 1 else "of all tokens"
    caption = f"{style.units} per token, {which}; ± standard error"
    return Table("soft-temperatures", "Soft losses at each temperature", head, rows, caption)


def legend(evaluation: Evaluation) -> dict[str, str]:
    """Return the terms in the tables of an evaluation, and their meanings."""
    check, terms = evaluation.labels.check, dict(TERMS)
    if evaluation.average.token_weighted.kl.value is None:
        for term in ("H(q)", "soft loss", "KL(q||p)"):
            del terms[term]
    if check is None:
        del terms["no class"]
    of = "" if check is None else f", of the first {check.images:,} images"
    return {term: meaning.format(null=of) for term, meaning in terms.items()}


def _parts(evaluation: Evaluation) -> Iterator[tuple[str, Estimates, Losses]]:
    """Iterate over scales and averages: the name, the estimates and the losses of each."""
    estimate = evaluation.estimate
    for scale, losses in zip(estimate.scales, evaluation.scales, strict=True):
        yield scale.name, scale, losses
    for kind in averages(estimate):
        yield NAMES[kind], getattr(estimate.average, kind), getattr(evaluation.average, kind)


def _plain(estimate: Estimate, style: Format) -> str:
    return number_text(estimate, DIGITS, style.per_nat)
