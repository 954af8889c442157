"""Build the result of `loss` from sums over tokens: losses, errors and floors."""

import math
from dataclasses import dataclass
from typing import Any

from entropy_cli.commands.loss.findings import findings
from entropy_cli.commands.loss.result import Losses, LossResult, ScaleLosses
from entropy_cli.commands.loss.token_losses import (
    LABEL,
    PREDICTIVE,
    TARGET_ENTROPY,
    TOP1,
    TOP5,
    UNIFORM,
    LossSums,
    smoothed_floor,
)
from entropy_cli.core.errors import ResultError
from entropy_cli.results.floors import Floor, Level


@dataclass(frozen=True)
class RunInfo:
    """The input of a run and its options.

    Attributes:
        vocab_size: V.
        row: see LossResult.
        patch_nums: sides of the scales' grids, or None.
        label_smoothing: share of a label that is spread over all codes, or None.
        like_probabilities: whether the logits look like probabilities.
    """

    vocab_size: int
    row: str
    patch_nums: tuple[int, ...] | None
    label_smoothing: float | None
    like_probabilities: bool
    settings: dict[str, Any]
    provenance: dict[str, Any]


def build(sums: LossSums, run: RunInfo, floor: Floor | None) -> LossResult:
    """Build the result.

    Args:
        sums: of each scale, if there are any, and of all tokens.
        run: the input and its options.
        floor: to compare the loss with.

    Raises:
        ResultError: the floor has other scales.
    """
    sides = run.patch_nums or ()
    if floor is not None:
        check_scales(floor, sides)
    levels = [None] * len(sides) if floor is None else floor.for_scales(sides)
    scales = [
        ScaleLosses(s, side, _losses(sums, s, run, level))
        for s, (side, level) in enumerate(zip(sides, levels, strict=True))
    ]
    total = _losses(sums, len(sides), run, None if floor is None else floor.mean)
    result = LossResult(
        vocab_size=run.vocab_size,
        row=run.row,
        rows=int(sums.rows_G[-1]),
        all=total,
        scales=scales,
        floor_source=None if floor is None else floor.source,
        findings=[],
        settings=run.settings,
        provenance=run.provenance,
    )
    result.findings.extend(findings(result, floor, like_probabilities=run.like_probabilities))
    return result


def check_scales(floor: Floor, sides: tuple[int, ...]) -> None:
    """Raise ResultError if the floor has other scales than the tokens."""
    if sides and floor.scales and set(sides) != set(floor.scales):
        got, expected = (",".join(map(str, sorted(nums))) for nums in (floor.scales, sides))
        raise ResultError(
            f"{floor.source}: floors of scales {got}, but --patch-nums has {expected}. Estimate the "
            "floor with the same scales."
        )


def _losses(sums: LossSums, group: int, run: RunInfo, level: Level | None) -> Losses:
    def mean(name: str) -> float | None:
        return sums.mean(name, group)

    cross_entropy, half_width = mean(sums.headline), sums.half_width(group)
    target_entropy, labels, uniform = mean(TARGET_ENTROPY), mean(LABEL), mean(UNIFORM)
    epsilon, smoothed, smoothed_minimum = run.label_smoothing, None, None
    if epsilon is not None and labels is not None and uniform is not None:
        smoothed = (1 - epsilon) * labels + epsilon * uniform
        smoothed_minimum = smoothed_floor(epsilon, run.vocab_size)
    floor = None if level is None else level.floor
    errors = (half_width, None if level is None else level.half_width)
    return Losses(
        tokens=int(sums.tokens_G[group]),
        ignored=int(sums.ignored_G[group]),
        cross_entropy=cross_entropy,
        cross_entropy_bits=None if cross_entropy is None else cross_entropy / math.log(2),
        standard_error=sums.standard_error(group),
        ci95=None
        if cross_entropy is None or half_width is None
        else (cross_entropy - half_width, cross_entropy + half_width),
        accuracy_top1=mean(TOP1),
        accuracy_top5=mean(TOP5),
        predictive_entropy=mean(PREDICTIVE),
        perplexity=_exp(cross_entropy),
        target_entropy=target_entropy,
        kl=_difference(cross_entropy, target_entropy),
        label_cross_entropy=labels,
        smoothed_cross_entropy=smoothed,
        smoothed_floor=smoothed_minimum,
        smoothed_excess=_difference(smoothed, smoothed_minimum),
        floor=floor,
        reducible=_difference(cross_entropy, floor),
        reducible_half_width=None
        if floor is None or half_width is None
        else math.hypot(*(error or 0 for error in errors)),
        unigram_entropy=None if level is None else level.unigram_value,
    )


def _difference(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _exp(value: float | None) -> float | None:
    try:
        return None if value is None else math.exp(value)
    except OverflowError:
        return None
