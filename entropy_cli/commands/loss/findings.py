"""Findings about a loss, each with its reason and what to do."""

import math
from collections.abc import Iterator, Sequence

from entropy_cli.commands.loss.result import LossResult
from entropy_cli.results.findings import Finding
from entropy_cli.results.floors import Floor, Level, beside_rungs

ROUNDING = 1e-6  # nats: smaller differences don't count


def findings(
    result: LossResult, floor: Floor | None, levels: Sequence[Level | None], *, like_probabilities: bool
) -> Iterator[Finding]:
    """Yield the findings that apply, warnings first.

    Args:
        result: its own findings are not used.
        floor: floor of the loss.
        levels: of each scale and of all tokens.
        like_probabilities: whether the logits look like probabilities.
    """
    if like_probabilities:
        yield Finding(
            "like_probabilities",
            "warning",
            "The logits look like probabilities: all are nonnegative and those of each token sum to 1. "
            "Their softmax was taken all the same. Give logits, or the logarithm of the probabilities.",
        )
    yield from _too_high(result, levels)
    if floor is not None:
        yield from _compared(result, floor)
        yield from _beside_rungs(result, floor, levels)
    if result.row == "token" and result.rows > 1:
        yield Finding(
            "independent_tokens",
            "info",
            "The standard error assumes independent tokens and is too small for tokens of one sequence. "
            "Give logits as (B, L, V) for the error over sequences.",
        )
    if result.rows < 2:
        yield Finding(
            "no_error", "info", f"There is no standard error: it needs two {result.row}s with labels."
        )


def _too_high(result: LossResult, levels: Sequence[Level | None]) -> Iterator[Finding]:
    uniform = math.log(result.vocab_size)
    if locations := _locations(result, [uniform] * len(levels)):
        yield Finding(
            "above_uniform",
            "warning",
            f"The cross-entropy is above ln V = {uniform:.4f} nats at {locations}: a uniform guess is "
            f"better. Usually the labels don't belong to these logits{_shift_hint(result)}.",
        )
    if locations := _locations(result, [level.ceiling if level else None for level in levels]):
        yield Finding(
            "above_unigram",
            "warning",
            f"The cross-entropy is above the unigram entropy, held out, at {locations}: the code "
            "frequencies of other images alone predict better. After the first training steps this "
            "means that the model is broken, or that labels and vocabulary do not match.",
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
            f"The floor has no upper limit of the unigram entropy at {', '.join(unknown)}: a loss above "
            "it can't be detected. Estimate again, on more images.",
        )


def _beside_rungs(result: LossResult, floor: Floor, levels: Sequence[Level | None]) -> Iterator[Finding]:
    """Set the losses beside the rungs of the ladder of hard tokens, if they are of the same tokens."""
    if not any(level is not None and level.rungs for level in levels):
        return
    sides = tuple(side for side, _ in result.scales)
    tokens = (result.all.tokens + result.all.ignored) / max(1, result.rows)
    if (floor.vocab_size, floor.tokens) != (result.vocab_size, tokens) or (
        sides and sides != floor.patch_nums
    ):
        yield Finding(
            "ladder",
            "info",
            f"The ladder of the floor is of other tokens: it has {floor.vocab_size} codes and "
            f"{floor.tokens} tokens an image, the logits {result.vocab_size} and {tokens:g} a "
            f"{result.row}{', or their scales differ' if sides else ''}. The loss is not set beside "
            "its rungs.",
        )
        return
    for (name, losses), level in zip(result.named(), levels, strict=True):
        if level is None or not level.rungs or losses.cross_entropy is None or result.has_targets:
            continue
        error = max(losses.half_width or 0.0, ROUNDING)
        is_above, clause = beside_rungs(losses.cross_entropy, error, level.rungs)
        message = f"The cross-entropy {losses.cross_entropy:.4f} of {name} is {clause}."
        if is_above:
            yield Finding("above_rung", "warning", message)
        elif name == "all tokens":
            yield Finding("ladder", "info", message)


def _shift_hint(result: LossResult) -> str:
    if result.settings["shift"]:
        return ", or were shifted already without --shift"
    return ", or those of a language model need --shift" if result.row == "sequence" else ""


def _locations(result: LossResult, ceilings: Sequence[float | None]) -> str:
    """Return where the cross-entropy exceeds its ceiling by more than its error, as text."""
    found = []
    for (name, losses), ceiling in zip(result.named(), ceilings, strict=True):
        if ceiling is None or losses.cross_entropy is None:
            continue
        if losses.cross_entropy - max(losses.half_width or 0, ROUNDING) > ceiling:
            found.append(f"{name} ({losses.cross_entropy:.4f} > {ceiling:.4f} nats)")
    return ", ".join(found)


def _compared(result: LossResult, floor: Floor) -> Iterator[Finding]:
    below = [
        f"{name} ({losses.cross_entropy:.4f} < {losses.floor:.4f} nats"
        + (", within the errors)" if -losses.reducible <= (losses.reducible_half_width or 0) else ")")
        for name, losses in result.named()
        if losses.reducible is not None and losses.reducible < 0
    ]
    if below:
        reason = (
            ", which is impossible if both have the same soft labels. Usually the floor has another "
            "temperature, tokenizer, scale or image set, or other units: give it in nats per token."
            if result.has_targets
            else ". With hard labels that is possible: the assignment entropy is a floor only for soft "
            f"labels, or labels drawn from them{floor.path}. Other causes: another temperature, path or "
            "scale of the floor, units other than nats, or images that the model has memorised."
        )
        where = f"The cross-entropy is below the floor at {', '.join(below)}"
        yield Finding("below_floor", "warning", where + reason)
    elif not result.has_targets and result.all.floor is not None:
        yield Finding(
            "hard_labels",
            "info",
            "An assignment entropy A is a floor of this cross-entropy only if the labels were drawn "
            f"from the soft assignments{floor.path}. With the nearest codes as labels CE - A (may be "
            "negative) is a comparison, not a bound.",
        )
    if floor.vocab_size not in (None, result.vocab_size):
        yield Finding(
            "vocabulary",
            "warning",
            f"The logits have {result.vocab_size} codes, the floor {floor.vocab_size}: unless the "
            "others are special tokens, the floor is of another tokenizer.",
        )
    if len(floor.scales) > 1 and not result.scales:
        yield Finding(
            "no_scales",
            "info",
            "The floor is known for each scale. Give --patch-nums to compare each scale with its own.",
        )
