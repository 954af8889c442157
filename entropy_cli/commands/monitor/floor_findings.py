"""Findings about a loss against its floor, and rules of thumb with their sources."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from entropy_cli.commands.monitor.detectors.limits import above_ceiling, below_floor
from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.entropy.quantity import Labels
from entropy_cli.results import floor_checks as checks
from entropy_cli.results.findings import Finding
from entropy_cli.results.floor_checks import NEAR
from entropy_cli.results.floors import Floor, Level
from entropy_cli.results.published import VAR_CODES, VAR_PATCH_NUMS

NORMAL_95 = 1.96
DEVIATIONS = 4  # standard errors above a rung that are no chance


def floor_findings(shown: Sequence[Series], log: Log, floor: Floor | None) -> Iterator[RunFinding]:
    """Report losses below their floor, above the unigram entropy, and beside the ladder's rungs."""
    labels: Labels = "unknown" if floor is None else floor.labels
    sides = _sides(log)
    is_same = floor is None or floor.patch_nums is None or sides in ((), floor.patch_nums)
    for series in shown:
        if series.level is not None and len(series):
            level = series.level if is_same else replace(series.level, rungs=())
            yield from _below_floor(series, level, labels)
            yield from _beside_ceilings(series, level, labels)


def _below_floor(series: Series, level: Level, labels: Labels) -> Iterator[RunFinding]:
    """Report a loss below its floor by more than its noise, or than `NEAR` if it has few points."""
    floor, error = level.floor, (level.half_width or 0.0) / NORMAL_95
    found = below_floor(series.value_n, floor, error)
    if found is None:
        lowest = float(series.value_n.min())
        fires = lowest < floor - 4 * error - NEAR
        evidence: dict[str, object] = {"bound": floor, "bound_se": error, "lowest": lowest}
    else:
        lowest = found.last if found.last < floor else found.lowest
        fires, evidence = found.fires, asdict(found)
    if fires:
        yield _about(series, checks.below_floor(lowest, level, labels, _what(series)), evidence)


def _beside_ceilings(series: Series, level: Level, labels: Labels) -> Iterator[RunFinding]:
    """Report a loss above the unigram entropy; set any other beside the rungs of the ladder."""
    over = None if level.ceiling is None else above_ceiling(series.value_n, level.ceiling)
    if over is not None and over.fires:
        yield _about(series, checks.above_unigram(over.last, over.bound, _what(series)), asdict(over))
    elif level.rungs and labels != "soft":
        last = above_ceiling(series.value_n, min(rung.upper95 for rung in level.rungs))
        value = float(series.value_n[-1]) if last is None else last.last
        margin = NEAR if last is None else DEVIATIONS * last.last_se
        evidence = {"value": value, "rungs": {rung.id: rung.upper95 for rung in level.rungs}}
        yield _about(series, checks.beside_ladder(value, level, margin, _what(series)), evidence)


def _what(series: Series) -> str:
    return f"{series.metric.split} loss"


def _about(series: Series, one: Finding, evidence: Mapping[str, object]) -> RunFinding:
    return RunFinding(one.id, one.severity, one.message, series.metric.name, evidence)


def rules_of_thumb(log: Log, shown: Sequence[Series], floor: Floor | None) -> Iterator[RunFinding]:
    """Report published rules of thumb with their sources, all of them as information."""
    is_var = _is_published_var(log, shown, floor)
    codes = (floor and floor.vocab_size) or (VAR_CODES if is_var else None)
    for series in shown:
        metric = series.metric
        if metric.split == "train" and len(series) and metric.scope is not None:
            if codes is not None and metric.kind == "cross_entropy":
                yield from _initial_loss(series, codes)
            if is_var and not isinstance(metric.scope, int):
                yield from _var_issues(series)


def _is_published_var(log: Log, shown: Sequence[Series], floor: Floor | None) -> bool:
    """Return whether VAR trained on tokens of its published tokenizer, which its issues discuss.

    Decided by the floor if it is known there, else by the scales in the log and a start at ln 4096.
    """
    is_var = log.format.startswith("var") or any(one.metric.name.startswith("AR_") for one in shown)
    if not is_var:
        return False
    if floor is not None and floor.is_published_var is not None:
        return floor.is_published_var
    sides = _sides(log)
    losses = [one for one in shown if one.metric.kind == "cross_entropy" and len(one)]
    uniform = math.log(VAR_CODES)
    return sides in ((), VAR_PATCH_NUMS) and any(abs(one.initial - uniform) < NEAR for one in losses)


def _sides(log: Log) -> tuple[int, ...]:
    """Return the sides of the scales that a log names; none if it does not."""
    return tuple(map(int, re.findall(r"\d+", log.arguments.get("patch_nums", ""))))


def _rule_of_thumb(series: Series, message: str, value: float, source: str, **more: float) -> RunFinding:
    evidence = {"value": value, **more, "source": source}
    return RunFinding("rule_of_thumb", "info", message, series.metric.name, evidence)


def _initial_loss(series: Series, codes: int) -> Iterator[RunFinding]:
    """Compare the loss of the untrained model with ln V."""
    initial, uniform = series.untrained_value, math.log(codes)
    if initial is None:
        return
    fits = abs(initial - uniform) < NEAR
    verdict = "as expected" if fits else "a different codebook size, or a resumed run"
    message = f"starts at {initial:.3f}; an untrained model has ln {codes} = {uniform:.3f}: {verdict}."
    yield _rule_of_thumb(series, message, initial, "ln V", expected=uniform)


def _var_issues(series: Series) -> Iterator[RunFinding]:
    """Compare with what the author and users of VAR call good or normal in its issues."""
    metric, last = series.metric, float(series.value_n[-1])
    is_mean = metric.scope == "mean"
    scope = "mean" if is_mean else "final scale"
    if metric.kind == "cross_entropy":
        advice = "; no released VAR reaches it in the mean, so it must refer to the final scale"
        message = (
            f"{last:.3f} ({scope}) is {'below' if last < 5.5 else 'above'} the 5.5 that is called good "
            f"for 4096 codes (VAR issue 53){advice if is_mean else ''}. What counts is the distance to "
            "the floor of this tokenizer."
        )
        yield _rule_of_thumb(series, message, last, "FoundationVision/VAR issue 53", limit=5.5)
    elif metric.kind == "accuracy":
        normal = "4 to 6 %" if is_mean else "about 8 %"
        message = (
            f"{last:.2f} % ({scope}); {normal} is normal at the end for 4096 codes (VAR issues 130 and "
            "143)."
        )
        yield _rule_of_thumb(series, message, last, "FoundationVision/VAR issues 130, 143")
