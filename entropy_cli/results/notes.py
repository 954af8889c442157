"""Notes on a result: what its number is a floor of, and how far to trust it."""

import math

from entropy_cli.results.ceiling import ceiling
from entropy_cli.results.schema import Result

FEW_IMAGES = 1000
FLAT_SHARE = 0.97  # of ln V: above it the assignment hardly depends on the latent


def notes(result: Result) -> list[str]:
    """Return the notes that apply to a result, the most important first."""
    return [
        *_meaning(result),
        *_temperature(result),
        *_product(result),
        *_images(result),
        *result.provenance.get("checkpoint_notes", []),
    ]


def _meaning(result: Result) -> list[str]:
    return [
        "The assignment entropy is a floor of the cross-entropy of a model that is trained on the soft "
        "assignments q, or on tokens drawn from them. For one trained on the nearest codes, as VAR is, "
        "it is neither floor nor ceiling: such a loss may fall below it, or stay far above.",
        "It is a property of the tokenizer alone: the uncertainty about the image itself comes on top.",
        *_ceiling(result),
    ]


def _ceiling(result: Result) -> list[str]:
    unigram = result.average.token_weighted.unigram_entropy
    limit = ceiling(result, unigram, result.scales)
    if limit is None:
        return []
    value = f"{'at most ' if unigram.bound else ''}{limit.value:.3f}"
    return [
        f"If a trained model's loss is above the unigram entropy ({value} nats per token here), "
        "something is broken, or labels and vocabulary do not match."
    ]


def _product(result: Result) -> list[str]:
    """Return the notes for codes that are combinations of bits or levels."""
    average = result.average.token_weighted
    if average.marginal_entropy_bound is None:
        return []
    lines = [
        f"The marginal entropy is at most {average.marginal_entropy_bound.known:.3f} nats per token, "
        "the sum of the entropies of its dimensions."
    ]
    if average.marginal_entropy.value is None:
        lines.append(
            "There are too many codes to count them, so only this bound on their usage is known."
        )
    if result.tokenizer.rule in ("sign", "bsq"):
        bits = result.tokenizer.latent_dim
        lines.append(
            f"A token has {bits} bits. Models that predict bits report a loss per bit; compare it with "
            f"{average.assignment_entropy.known / bits:.4f} nats per bit here."
        )
    return lines


def _temperature(result: Result) -> list[str]:
    average = result.average.token_weighted
    lines = [
        "The assignment entropy depends on the temperature: near this one it changes by "
        f"{average.varentropy.known:.3f} nats for each factor e of T. Other tokenizers scale their "
        "latents differently, so values at the same temperature are not comparable between tokenizers."
    ]
    log_vocab = math.log(result.tokenizer.vocab_size)
    if average.assignment_entropy.known > FLAT_SHARE * log_vocab:
        lines.append(
            f"At this temperature it is close to its maximum ln V = {log_vocab:.3f}, so it says little "
            "about the tokenizer. Try --temperature auto."
        )
    fit = result.provenance.get("temperature_fit")
    implied = result.provenance.get("temperature_implied")
    if implied:
        lines.append(_drift(result, implied))
    for ended, problem in (
        ("flat", "the fitted temperature has no maximum; the fit stopped when q became nearly uniform"),
        ("slow", "the fit of the temperature did not converge; the value is that of its last step"),
    ):
        scales = [str(s) for s, end in enumerate(fit["ended"]) if end == ended] if fit else []
        if scales:
            lines.append(f"Scale {', '.join(scales)}: {problem}.")
    return lines


def _drift(result: Result, implied: list[float]) -> str:
    """Describe how far the temperatures fitted to the first images are from a fit to all images."""
    tokens, total, largest_ratio = 0, 0.0, 1.0
    for scale, temperature in zip(result.scales, implied, strict=True):
        log_ratio = math.log(temperature / scale.temperature)
        entropy = scale.assignment_entropy.known + scale.varentropy.known * log_ratio
        tokens, total = tokens + scale.tokens, total + scale.tokens * entropy
        largest_ratio = max(largest_ratio, math.exp(abs(log_ratio)))
    return (
        "One more step of the temperature fit, on all images, changes the temperatures by up to "
        f"{largest_ratio - 1:.2%}, and the token-weighted assignment entropy to "
        f"{total / tokens:.4f} nats (to first order)."
    )


def _images(result: Result) -> list[str]:
    data, lines = result.data, []
    if data.split == "train":
        lines.append(
            "These are centre crops of the train split; a training loss is measured on random crops."
        )
    if data.images_used < FEW_IMAGES:
        lines.append(
            f"{data.images_used} images are few: the intervals say how far to trust each number."
        )
    if data.images_used + data.images_failed < data.images_found:
        lines.append(f"{data.images_used} of {data.images_found} images were read, chosen at random.")
    under = [
        scale.name
        for scale in result.scales
        if scale.marginal_entropy.bound or scale.unigram_entropy.bound
    ]
    if under:
        lines.append(
            f"Too few tokens at scale {', '.join(under)} to estimate its marginal or unigram entropy: "
            "they are shown as lower bounds (≥), without an interval. A lower bound is no ceiling of a "
            "loss: estimate on more images to get one."
        )
    if data.images_failed:
        lines.append(f"{data.images_failed} images could not be read and are not part of the result.")
    return lines
