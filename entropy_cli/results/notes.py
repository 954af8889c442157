"""What the number of a run is a floor of, and what not: the sentences that apply to this result."""

import math

from entropy_cli.results.ceiling import ceiling
from entropy_cli.results.schema import Result

FEW_IMAGES = 1000
FLAT_SHARE = 0.97  # of ln V: above it the assignment hardly depends on the latent


def notes(result: Result) -> list[str]:
    """Short honest warnings, the most important first."""
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
        "it is neither floor nor ceiling: such a loss may go below it, or stay far above.",
        "It is about the tokenizer: what the context leaves unpredictable in an image comes on top.",
        *_ceiling(result),
    ]


def _ceiling(result: Result) -> list[str]:
    unigram = result.average.token_weighted.unigram_entropy
    most = ceiling(result, unigram, result.scales)
    if most is None:
        return []
    said = f"{'at most ' if unigram.bound else ''}{most.value:.3f}"
    return [
        f"A trained model's loss above the unigram entropy ({said} nats a token here) means that "
        "something is broken, or that labels and vocabulary do not match."
    ]


def _product(result: Result) -> list[str]:
    """Of codes that are combinations of bits or levels."""
    average = result.average.token_weighted
    if average.marginal_entropy_bound is None:
        return []
    found = [
        f"The marginal entropy is at most {average.marginal_entropy_bound.known:.3f} nats a token, the "
        "sum of the entropies of its dimensions."
    ]
    if average.marginal_entropy.value is None:
        found.append("The codes are too many to be counted, so only that bound is known of their use.")
    if result.tokenizer.rule in ("sign", "bsq"):
        bits = result.tokenizer.latent_dim
        found.append(
            f"A token has {bits} bits. Models that predict bits show a loss a bit, to compare with "
            f"{average.assignment_entropy.known / bits:.4f} nats a bit here."
        )
    return found


def _temperature(result: Result) -> list[str]:
    average = result.average.token_weighted
    found = [
        "It means nothing without its temperature: near this one it changes by "
        f"{average.varentropy.known:.3f} nats for each factor e. Other tokenizers scale their latents "
        "differently, so values at one temperature do not compare across them."
    ]
    largest = math.log(result.tokenizer.vocab_size)
    if average.assignment_entropy.known > FLAT_SHARE * largest:
        found.append(
            f"At this temperature it is close to its maximum ln V = {largest:.3f}, so it says little "
            "about the tokenizer. Try --temperature auto."
        )
    fit = result.provenance.get("temperature_fit")
    implied = result.provenance.get("temperature_implied")
    if implied:
        found.append(_drift(result, implied))
    for ended, what in (
        ("flat", "the fitted temperature has no maximum: it stopped where q became nearly uniform"),
        ("slow", "the fit of the temperature did not settle; its value is where it stopped"),
    ):
        scales = [str(s) for s, how in enumerate(fit["ended"]) if how == ended] if fit else []
        if scales:
            found.append(f"Scale {', '.join(scales)}: {what}.")
    return found


def _drift(result: Result, implied: list[float]) -> str:
    """How far the temperatures, fitted to the first images, are from fitting all of them."""
    tokens, moved, farthest = 0, 0.0, 1.0
    for scale, temperature in zip(result.scales, implied, strict=True):
        log_ratio = math.log(temperature / scale.temperature)
        entropy = scale.assignment_entropy.known + scale.varentropy.known * log_ratio
        tokens, moved = tokens + scale.tokens, moved + scale.tokens * entropy
        farthest = max(farthest, math.exp(abs(log_ratio)))
    return (
        f"On all images one more step of the temperatures' fit moves them by up to {farthest - 1:.2%}, "
        f"and the token-weighted assignment entropy to {moved / tokens:.4f} nats (to first order)."
    )


def _images(result: Result) -> list[str]:
    data, found = result.data, []
    if data.split == "train":
        found.append(
            "These are centre crops of the train split; training sees random crops of it, and its loss "
            "is measured on those."
        )
    if data.images_used < FEW_IMAGES:
        found.append(
            f"{data.images_used} images are few: the intervals say how far to trust each number."
        )
    if data.images_used + data.images_failed < data.images_found:
        found.append(f"{data.images_used} of {data.images_found} images were read, chosen at random.")
    under = [
        scale.name
        for scale in result.scales
        if scale.marginal_entropy.bound or scale.unigram_entropy.bound
    ]
    if under:
        found.append(
            f"Too few tokens at scale {', '.join(under)} for its marginal or unigram entropy: "
            "shown as lower bounds (≥), without an interval. A loss above a bound means nothing: for a "
            "ceiling, estimate on more images."
        )
    if data.images_failed:
        found.append(f"{data.images_failed} images could not be read and are not part of the number.")
    return found
