"""Findings about a loss against its floor, and rules of thumb with their sources."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from entropy_cli.commands.monitor.detectors.limits import above_ceiling, below_floor
from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.results.floors import Floor, Level, beside_rungs
from entropy_cli.results.published import VAR_CODES, VAR_PATCH_NUMS

NEAR = 0.02  # nats: a loss this close to ln V counts as equal
NORMAL_95 = 1.96
DEVIATIONS = 4  # standard errors above a rung that are no chance


def floor_findings(shown: Sequence[Series], log: Log, floor: Floor | None) -> Iterator[RunFinding]:
    """Report losses below their floor, above the unigram entropy, and beside the ladder's rungs."""
    sides = _sides(log)
    is_same = floor is None or floor.patch_nums is None or sides in ((), floor.patch_nums)
    for series in shown:
        if series.level is not None and len(series):
            yield from _below_floor(series, series.level)
            yield from _above_unigram(series, series.level)
            if is_same:
                yield from _beside_rungs(series, series.level)


def _below_floor(series: Series, level: Level) -> Iterator[RunFinding]:
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
        message = (
            f"{series.metric.split} loss of {lowest:.4f} lies {floor - lowest:.4f} nats below the floor "
            f"{floor:.4f}, which is impossible in expectation for labels drawn from the soft "
            "assignment. Usual causes: the labels are the nearest codes, for which the assignment "
            "entropy is no floor; another temperature, path, tokenizer or scale; bits instead of nats; "
            "a memorised training set."
        )
        yield RunFinding("below_floor", "warning", message, series.metric.name, evidence)


def _above_unigram(series: Series, level: Level) -> Iterator[RunFinding]:
    """Report a loss above the unigram entropy."""
    if level.ceiling is None:
        return
    over = above_ceiling(series.value_n, level.ceiling)
    if over is not None and over.fires:
        message = (
            f"{series.metric.split} loss of {over.last:.4f} at the end is at least "
            f"{over.last - over.bound:.4f} nats above the unigram entropy, at most {over.bound:.4f}, "
            "which the code frequencies of other images reach. Usual causes: a run that has hardly "
            "begun, labels of another tokenizer or in another order, a broken model."
        )
        yield RunFinding("above_unigram", "warning", message, series.metric.name, asdict(over))


def _beside_rungs(series: Series, level: Level) -> Iterator[RunFinding]:
    """Set a loss beside the rungs of the ladder of hard tokens."""
    if not level.rungs:
        return
    lowest = min(rung.upper95 for rung in level.rungs)
    over = above_ceiling(series.value_n, lowest)
    value = float(series.value_n[-1]) if over is None else over.last
    error = NEAR if over is None else DEVIATIONS * over.last_se
    is_above, clause = beside_rungs(value, error, level.rungs)
    where = f"{series.metric.split} loss of {value:.4f} at the end is {clause}"
    if is_above:
        advice = (
            ". Usual causes: a run that has hardly begun, labels of another tokenizer or in another "
            "order, or a model that does not get its context."
        )
    else:
        advice = ". How far below its rungs a loss can go, the ladder does not say."
    evidence = {"value": value, "rungs": {rung.id: rung.upper95 for rung in level.rungs}}
    name = series.metric.name
    if is_above:
        yield RunFinding("above_rung", "warning", where + advice, name, evidence)
    else:
        yield RunFinding("ladder", "info", where + advice, name, evidence)


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
