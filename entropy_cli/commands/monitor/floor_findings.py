"""Findings about a loss against its floor, and rules of thumb with their sources."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from entropy_cli.commands.monitor.detectors.limits import above_ceiling, below_floor
from entropy_cli.commands.monitor.logs.series import Log
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.commands.monitor.series_with_floor import SeriesWithFloor
from entropy_cli.results.floors import Floor
from entropy_cli.results.published import VAR_CODES, VAR_PATCH_NUMS

NEAR = 0.02  # nats: a loss this close to ln V counts as equal
NORMAL_95 = 1.96


def floor_findings(curves: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """Report losses below their floor or above the unigram entropy."""
    for curve in curves:
        level, value_n = curve.level, curve.finite.value_n
        if level is None or not len(value_n):
            continue
        error = 0.0 if level.half_width is None else level.half_width / NORMAL_95
        yield from _below_floor(curve, level.floor, error)
        if level.ceiling is None:
            continue
        over = above_ceiling(value_n, level.ceiling.value, level.ceiling.half_width / NORMAL_95)
        if over is not None and over.fires:
            least, most = ("", "") if level.unigram_value is not None else ("at least ", ", at most")
            yield RunFinding(
                "above_unigram",
                "warning",
                f"{curve.metric.split} loss of {over.last:.4f} at the end is {least}"
                f"{over.last - over.bound:.4f} nats above the unigram entropy{most} {over.bound:.4f}, "
                "which a constant prediction reaches. Usual causes: a run that has hardly begun, labels "
                "of another tokenizer or in another order, a broken model.",
                curve.metric.name,
                asdict(over),
            )


def _below_floor(curve: SeriesWithFloor, floor: float, error: float) -> Iterator[RunFinding]:
    """Report a loss below its floor by more than its noise, or than `NEAR` if it has few points."""
    value_n = curve.finite.value_n
    found = below_floor(value_n, floor, error)
    if found is None:
        lowest = float(value_n.min())
        fires = lowest < floor - 4 * error - NEAR
        evidence: dict[str, object] = {"bound": floor, "bound_se": error, "lowest": lowest}
    else:
        lowest = found.last if found.last < floor else found.lowest
        fires, evidence = found.fires, asdict(found)
    if fires:
        yield RunFinding(
            "below_floor",
            "warning",
            f"{curve.metric.split} loss of {lowest:.4f} lies {floor - lowest:.4f} nats below the floor "
            f"{floor:.4f}, which is impossible in expectation for labels drawn from the soft "
            "assignment. Usual causes: the labels are the nearest codes, for which the assignment "
            "entropy is no floor; another temperature, tokenizer or scale; bits instead of nats; a "
            "memorised training set.",
            curve.metric.name,
            evidence,
        )


def rules_of_thumb(
    log: Log, curves: Sequence[SeriesWithFloor], floor: Floor | None
) -> Iterator[RunFinding]:
    """Report published rules of thumb with their sources, all of them as information."""
    codes = None if floor is None else floor.vocab_size
    is_var = _is_published_var(log, curves, floor)
    for curve in curves:
        metric, series = curve.metric, curve.finite
        if metric.split != "train" or not len(series):
            continue
        if metric.kind == "cross_entropy" and metric.scope is not None:
            yield from _initial_loss(curve, codes or (VAR_CODES if is_var else None))
        if is_var and metric.scope in ("mean", "last"):
            yield from _var_issues(curve)


def _is_published_var(log: Log, curves: Sequence[SeriesWithFloor], floor: Floor | None) -> bool:
    """Return whether VAR trained on tokens of its published tokenizer, which its issues discuss.

    Decided by the floor if it is known there, else by the scales in the log and a start at ln 4096.
    """
    if not (
        log.format.startswith("var") or any(curve.metric.name.startswith("AR_") for curve in curves)
    ):
        return False
    if floor is not None and floor.is_published_var is not None:
        return floor.is_published_var
    sides = tuple(map(int, re.findall(r"\d+", log.arguments.get("patch_nums", ""))))
    losses = [curve for curve in curves if curve.metric.kind == "cross_entropy" and len(curve.finite)]
    uniform = math.log(VAR_CODES)
    return sides in ((), VAR_PATCH_NUMS) and any(abs(curve.initial - uniform) < NEAR for curve in losses)


def _initial_loss(curve: SeriesWithFloor, codes: int | None) -> Iterator[RunFinding]:
    """Compare the loss of the untrained model with ln V."""
    initial = curve.finite.untrained_value
    if codes is None or initial is None:
        return
    uniform = math.log(codes)
    fits = abs(initial - uniform) < NEAR
    verdict = "as expected" if fits else "a different codebook size, or a resumed run"
    yield RunFinding(
        "rule_of_thumb",
        "info",
        f"starts at {initial:.3f}; an untrained model has ln {codes} = {uniform:.3f}: {verdict}.",
        curve.metric.name,
        {"value": initial, "expected": uniform, "source": "ln V"},
    )


def _var_issues(curve: SeriesWithFloor) -> Iterator[RunFinding]:
    """Compare with what the author and users of VAR call good or normal in its issues."""
    metric, value_n = curve.metric, curve.finite.value_n
    last = float(value_n[-1])
    scope = "mean" if metric.scope == "mean" else "final scale"
    if metric.kind == "cross_entropy":
        advice = "; no released VAR reaches it in the mean, so it must refer to the final scale"
        side = "below" if last < 5.5 else "above"
        yield RunFinding(
            "rule_of_thumb",
            "info",
            f"{last:.3f} ({scope}) is {side} the 5.5 that is called good for 4096 codes (VAR issue "
            f"53){advice if metric.scope == 'mean' else ''}. What counts is the distance to the floor "
            "of this tokenizer.",
            metric.name,
            {"value": last, "limit": 5.5, "source": "FoundationVision/VAR issue 53"},
        )
    elif metric.kind == "accuracy":
        normal = "4 to 6 %" if metric.scope == "mean" else "about 8 %"
        yield RunFinding(
            "rule_of_thumb",
            "info",
            f"{last:.2f} % ({scope}); {normal} is normal at the end for 4096 codes (VAR issues 130 and "
            "143).",
            metric.name,
            {"value": last, "source": "FoundationVision/VAR issues 130, 143"},
        )
