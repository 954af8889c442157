"""The summary of an evaluation: one screen on the loss of a model beside its floors and ceilings."""

import math
from dataclasses import replace
from typing import Any

from entropy_cli.core.table import Table, wrapped
from entropy_cli.entropy.quantity import Averages, Estimate, LabelSource
from entropy_cli.results.checks import temperature_text
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.checks import checks_of_losses, worth
from entropy_cli.results.floors import beside_rungs, floor_of
from entropy_cli.results.ladder import unit
from entropy_cli.results.path import labels_of
from entropy_cli.results.summary import (
    file_name,
    images_line,
    one_screen,
    summary_cells,
    summary_of_rows,
    tokenizer_line,
)

MILLION = 1e6
# How labels were found, in words.
SOURCES = {
    "wnid": "labels by wnid",
    "column": "labels of the data set",
    "numbers": "labels by folder numbers",
    "folders": "labels by folder order",
    "file": "labels from a file",
    "given": "labels as given",
    "none": "the null class for all images",
}


def summary(evaluation: Evaluation, units: str = "nats") -> str:
    """Return at most 24 lines of at most 80 columns.

    Args:
        evaluation: the result to show.
        units: "nats" or "bits".
    """
    estimate = evaluation.estimate
    table = replace(summary_table(evaluation, units), title="", caption="")
    what = [model_line(evaluation), tokenizer_line(estimate), images_line(estimate)]
    numbers = [table.text(), _line(figures(evaluation)), *map(_line, _readers(evaluation))]
    return one_screen([[*what, labels_line(evaluation)], numbers], checks_of_losses(evaluation))


def model_name(evaluation: Evaluation) -> str:
    """Return a short name for the model: its file, else its family."""
    return file_name(evaluation.estimate.provenance.get("model"), evaluation.model.family)


def size_text(parameters: int | None) -> str:
    """Return a number of parameters in words, "" if it is not known.

    >>> size_text(310_283_520), size_text(1_433_744)
    ('310 M parameters', '1.43 M parameters')
    """
    if parameters is None:
        return ""
    millions = parameters / MILLION
    return f"{millions:,.0f} M parameters" if millions >= 100 else f"{millions:.3g} M parameters"


def model_line(evaluation: Evaluation) -> str:
    """Return a line on the model: its file, family, sizes and precision."""
    model, name = evaluation.model, model_name(evaluation)
    words = [
        model.family if name == model.family else f"{name}: {model.family}",
        size_text(model.parameters),
        "" if model.depth is None else f"{model.depth} blocks of width {model.width}",
        model.precision,
    ]
    return _line(", ".join(filter(None, words)))


def labels_text(source: LabelSource, classes_seen: int) -> str:
    """Say how labels were found, and how many classes there are.

    >>> labels_text("wnid", 1000), labels_text("none", 1)
    ('labels by wnid, 1,000 classes', 'the null class for all images')
    """
    classes = f", {classes_seen:,} class{'es' * (classes_seen != 1)}" if source != "none" else ""
    return f"{SOURCES[source]}{classes}"


def labels_line(evaluation: Evaluation) -> str:
    """Return a line on the labels, and what knowing them is worth."""
    labels = evaluation.labels
    check, words = labels.check, labels_text(labels.source, labels.classes_seen)
    if check is not None and check.gain.value is not None:
        words += f", worth {worth(check)}"
    return _line(words)


def summary_table(evaluation: Evaluation, units: str = "nats") -> Table:
    """Return the losses between ceilings and floors: value, interval, final scale."""
    estimate, losses = evaluation.estimate, evaluation.average
    entropies, vocab_size = estimate.average, estimate.tokenizer.vocab_size
    even = f"{unit(units) * math.log(vocab_size):.4f}"
    log = "ln" if units == "nats" else "log2"
    rows = [[f"uniform guess, {log} {vocab_size}", even, "", even]]

    def add(name: str, of: Averages[Any], quantity: str, most: float | None = None) -> None:
        if getattr(of.token_weighted, quantity).value is not None:
            rows.append([name, *summary_cells(of, quantity, units, most)])

    add("unigram entropy U", entropies, "unigram_entropy", entropies.token_weighted.ceiling)
    add("cross-entropy", losses, "cross_entropy")
    add("gain over the unigram", losses, "gain")
    add("predictive entropy H(p)", losses, "predictive_entropy")
    at = temperature_text(estimate.settings.temperature)
    add(f"soft loss at {at}", losses, "target_cross_entropy")
    add(_entropy_name(evaluation), entropies, "assignment_entropy")
    add("  KL(q||p)", losses, "kl")
    may = "" if labels_of(estimate) == "soft" else " (may be negative)"
    add(f"CE - A{may}", losses, "reducible")
    return summary_of_rows(rows, [], units, several=len(evaluation.scales) > 1)


def _entropy_name(evaluation: Evaluation) -> str:
    """Return the name of A: below the soft loss, whose floor it is, or by itself."""
    is_below = evaluation.average.token_weighted.kl.value is not None
    return "  its floor A = H(q)" if is_below else "assignment entropy A = H(q)"


def figures(evaluation: Evaluation) -> str:
    """Return a line with the numbers that are no entropies per token."""
    losses, total = evaluation.average.token_weighted, evaluation.total
    shares = (f"top-{k} {share(getattr(losses, f'accuracy_top{k}'))}" for k in (1, 5))
    per_image = f"{few_digits(total.nats_per_image)} nats/image"
    if total.bits_per_pixel is not None:
        per_image += f", {total.bits_per_pixel:.4f} bits/pixel"
    return f"{', '.join(shares)}, perplexity {perplexity_text(losses.perplexity)}; {per_image}"


def share(estimate: Estimate) -> str:
    """Return a share in per cent.

    >>> share(Estimate(0.0523, 0.0523, None, None, "mean"))
    '5.2 %'
    """
    return f"{100 * estimate.known:.1f} %"


def perplexity_text(estimate: Estimate) -> str:
    """Return a perplexity in few digits; it may be too large for a number."""
    if estimate.value is None:
        return "over 1e308"
    return few_digits(estimate.value)


def few_digits(value: float) -> str:
    """Return a number of at least three digits, for a line with others.

    >>> few_digits(22.9036), few_digits(4111.2), few_digits(3.2e9)
    ('22.9', '4,111', '3.2e+09')
    """
    if value >= MILLION:
        return f"{value:.3g}"
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _readers(evaluation: Evaluation) -> list[str]:
    """Return what else to compare the losses with; a loss above a rung is among the checks."""
    estimate = evaluation.estimate
    if labels_of(estimate) == "soft":
        return ["soft or sampled labels: A is the floor of the soft loss, KL(q||p) what is left"]
    mean, entropy = floor_of(estimate, "result").mean, evaluation.average.token_weighted.cross_entropy
    if mean is None or not mean.rungs:
        return []
    is_above, clause = beside_rungs(entropy.known, entropy.half_width or 0.0, mean.rungs)
    return [] if is_above else [f"CE {clause}"]


def _line(text: str) -> str:
    return wrapped("", text)
