"""What is to be known of a loss beside its numbers: each a sentence that says why and what to do."""

import math
from collections.abc import Iterator, Sequence

from entropy_cli.commands.loss.result import LossResult
from entropy_cli.results.ceiling import Ceiling
from entropy_cli.results.findings import Finding
from entropy_cli.results.floors import Floor

ROUNDING = 1e-6  # nats: differences that mean nothing


def findings(result: LossResult, floor: Floor | None, *, like_probabilities: bool) -> Iterator[Finding]:
    """Those that apply, warnings first.

    Args:
        result: whose own findings are not looked at.
        floor: what the loss was compared with.
        like_probabilities: whether the logits look like probabilities.
    """
    if like_probabilities:
        yield Finding(
            "like_probabilities",
            "warning",
            "The logits look like probabilities: all are nonnegative and each token's sum to 1. Their "
            "softmax was taken all the same. Give logits, or the logarithm of the probabilities.",
        )
    yield from _too_high(result, floor)
    if floor is not None:
        yield from _compared(result, floor)
    yield from _errors(result)


def _too_high(result: LossResult, floor: Floor | None) -> Iterator[Finding]:
    even = math.log(result.vocab_size)
    if places := _where(result, [Ceiling(even, 0.0)] * (len(result.scales) + 1)):
        yield Finding(
            "above_uniform",
            "warning",
            f"The cross-entropy is above ln V = {even:.4f} nats at {places}: guessing evenly does "
            f"better. Usually the labels are not of these logits{_shifted(result)}.",
        )
    if floor is None:
        return
    levels = [*floor.for_scales([scale.patch_num for scale in result.scales]), floor.mean]
    if places := _where(result, [None if level is None else level.ceiling for level in levels]):
        yield Finding(
            "above_unigram",
            "warning",
            f"The cross-entropy is above the unigram entropy at {places}: knowing only how frequent "
            "each code is does better. After the first steps of a training this means that the model is "
            "broken, or that labels and vocabulary do not match.",
        )
    unknown = [
        name
        for (name, _), level in zip(result.named(), levels, strict=True)
        if level is not None and level.unigram is not None and level.ceiling is None
    ]
    if unknown:
        yield Finding(
            "unigram_bound",
            "info",
            f"What the unigram entropy at {', '.join(unknown)} is at most the floor does not tell, for "
            "want of images: whether a loss is above it can't be said. Estimate on more images.",
        )


def _shifted(result: LossResult) -> str:
    if result.settings["shift"]:
        return ", or were shifted before --shift did"
    return ", or those of a language model want --shift" if result.row == "sequence" else ""


def _where(result: LossResult, ceilings: Sequence[Ceiling | None]) -> str:
    """Where the cross-entropy is above a ceiling by more than the errors of both."""
    found = []
    for (name, of), ceiling in zip(result.named(), ceilings, strict=True):
        if ceiling is None or of.cross_entropy is None:
            continue
        most, error = ceiling.value, math.hypot(of.half_width or 0, ceiling.half_width)
        if of.cross_entropy - max(error, ROUNDING) > most:
            found.append(f"{name} ({of.cross_entropy:.4f} > {most:.4f} nats)")
    return ", ".join(found)


def _compared(result: LossResult, floor: Floor) -> Iterator[Finding]:
    below = [
        f"{name} ({of.cross_entropy:.4f} < {of.floor:.4f} nats"
        + (", within the errors)" if -of.reducible <= (of.reducible_half_width or 0) else ")")
        for name, of in result.named()
        if of.reducible is not None and of.reducible < 0
    ]
    if below and result.has_targets:
        yield Finding(
            "below_floor",
            "warning",
            f"The cross-entropy is below the floor at {', '.join(below)}, where it can't be if both are "
            "of the same soft labels. Usually the floor is of another temperature, tokenizer, scale or "
            "set of images, or in other units: give it in nats per token.",
        )
    elif below:
        yield Finding(
            "below_floor",
            "warning",
            f"The cross-entropy is below the floor at {', '.join(below)}. With hard labels that is "
            "legal: the assignment entropy is a floor only for soft labels, or labels drawn from them. "
            "Other causes: a floor of another temperature or scale, units other than nats per token, or "
            "images that the model has learnt by heart.",
        )
    elif not result.has_targets and result.all.floor is not None:
        yield Finding(
            "hard_labels",
            "info",
            "An assignment entropy is a floor of this cross-entropy only if the labels were drawn from "
            "the soft assignments. For the nearest codes as labels the reducible loss is a comparison, "
            "no bound: a model may legally go below.",
        )
    if floor.vocab_size not in (None, result.vocab_size):
        yield Finding(
            "vocabulary",
            "warning",
            f"The logits are of {result.vocab_size} codes, the floor of {floor.vocab_size}: unless the "
            "others are special tokens, the floor is of another tokenizer.",
        )
    if floor.scales and len(floor.scales) > 1 and not result.scales:
        yield Finding(
            "no_scales",
            "info",
            "The floor is known for each scale: --patch-nums compares each with its own.",
        )


def _errors(result: LossResult) -> Iterator[Finding]:
    if result.row == "token" and result.rows > 1:
        yield Finding(
            "independent_tokens",
            "info",
            "The standard error takes all tokens as independent. Those of one sequence are not: then it "
            "is too small. Logits as (B, L, V) give the error over sequences.",
        )
    if result.rows < 2:
        yield Finding(
            "no_error", "info", f"There is no standard error: it takes two {result.row}s with labels."
        )
