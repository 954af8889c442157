"""Findings about a run against its floor, and rules of thumb with their sources."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from entropy_cli.commands.monitor.detectors.limits import above, below
from entropy_cli.commands.monitor.logs.series import Log
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.commands.monitor.series_with_floor import SeriesWithFloor
from entropy_cli.results.floors import Floor
from entropy_cli.results.published import VAR_CODES, VAR_PATCH_NUMS

NEAR = 0.02  # nats between a loss and ln V that are nothing
NORMAL_95 = 1.96


def floor_findings(watched: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """Losses where they can't be, or should not be."""
    for one in watched:
        level, value_n = one.level, one.finite.value_n
        if level is None or not len(value_n):
            continue
        error = 0.0 if level.half_width is None else level.half_width / NORMAL_95
        yield from _below(one, level.floor, error)
        if level.ceiling is None:
            continue
        over = above(value_n, level.ceiling.value, level.ceiling.half_width / NORMAL_95)
        if over is not None and over.fires:
            least, most = ("", "") if level.unigram_value is not None else ("at least ", ", at most")
            yield RunFinding(
                "above_unigram",
                "warning",
                f"{one.metric.split} loss of {over.last:.4f} at the end is {least}"
                f"{over.last - over.bound:.4f} nats above the unigram entropy{most} {over.bound:.4f}, "
                "which a constant prediction reaches. Usual causes: a run that has hardly begun, labels "
                "of another tokenizer or in another order, a broken model.",
                one.metric.name,
                asdict(over),
            )


def _below(one: SeriesWithFloor, floor: float, error: float) -> Iterator[RunFinding]:
    """A loss below its floor: by more than its noise, or, of a few points, by more than a little."""
    value_n = one.finite.value_n
    found = below(value_n, floor, error)
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
            f"{one.metric.split} loss of {lowest:.4f} lies {floor - lowest:.4f} nats below the floor "
            f"{floor:.4f}, which is impossible in expectation for labels drawn from the soft "
            "assignment. Usual causes: the labels are the nearest codes, for which the assignment "
            "entropy is no floor; another temperature, tokenizer or scale; bits for nats; a memorised "
            "training set.",
            one.metric.name,
            evidence,
        )


def rules_of_thumb(
    log: Log, watched: Sequence[SeriesWithFloor], floor: Floor | None
) -> Iterator[RunFinding]:
    """What people go by, with its source; nothing of it is an alarm."""
    codes = None if floor is None else floor.vocab_size
    is_vars = _is_vars(log, watched, floor)
    for one in watched:
        metric, series = one.metric, one.finite
        if metric.split != "train" or not len(series):
            continue
        if metric.kind == "cross_entropy" and metric.of is not None:
            yield from _start(one, codes or (VAR_CODES if is_vars else None))
        if is_vars and metric.of in ("mean", "last"):
            yield from _of_var(one)


def _is_vars(log: Log, watched: Sequence[SeriesWithFloor], floor: Floor | None) -> bool:
    """Whether VAR trained on tokens like those that its issues are about.

    If no floor tells, by the scales that the log may name and a start at ln 4096.
    """
    if not (log.format.startswith("var") or any(one.metric.name.startswith("AR_") for one in watched)):
        return False
    if floor is not None and floor.is_published_var is not None:
        return floor.is_published_var
    sides = tuple(map(int, re.findall(r"\d+", log.facts.get("patch_nums", ""))))
    losses = [one for one in watched if one.metric.kind == "cross_entropy" and len(one.finite)]
    uniform = math.log(VAR_CODES)
    return sides in ((), VAR_PATCH_NUMS) and any(abs(one.initial - uniform) < NEAR for one in losses)


def _start(one: SeriesWithFloor, codes: int | None) -> Iterator[RunFinding]:
    """That an untrained model knows nothing: ln V."""
    before = one.finite.before
    if codes is None or before is None:
        return
    uniform = math.log(codes)
    fits = abs(before - uniform) < NEAR
    verdict = "as it should be" if fits else "another number of codes, or no fresh start"
    yield RunFinding(
        "rule_of_thumb",
        "info",
        f"starts at {before:.3f}; an untrained model has ln {codes} = {uniform:.3f}: {verdict}.",
        one.metric.name,
        {"value": before, "expected": uniform, "source": "ln V"},
    )


def _of_var(one: SeriesWithFloor) -> Iterator[RunFinding]:
    """Issues of FoundationVision/VAR: what its author and users call good or normal."""
    metric, value_n = one.metric, one.finite.value_n
    last = float(value_n[-1])
    where = "mean" if metric.of == "mean" else "last scale"
    if metric.kind == "cross_entropy":
        advice = "; no released VAR gets there in the mean, so it must be meant of the last scale"
        side = "below" if last < 5.5 else "above"
        yield RunFinding(
            "rule_of_thumb",
            "info",
            f"{last:.3f} ({where}) is {side} the 5.5 that is called good for 4096 codes (VAR issue "
            f"53){advice if metric.of == 'mean' else ''}. What counts is the distance to the floor of "
            "this tokenizer.",
            metric.name,
            {"value": last, "limit": 5.5, "source": "FoundationVision/VAR issue 53"},
        )
    elif metric.kind == "accuracy":
        normal = "4 to 6 %" if metric.of == "mean" else "about 8 %"
        yield RunFinding(
            "rule_of_thumb",
            "info",
            f"{last:.2f} % ({where}); {normal} is normal at the end for 4096 codes (VAR issues 130 and "
            "143).",
            metric.name,
            {"value": last, "source": "FoundationVision/VAR issues 130, 143"},
        )
