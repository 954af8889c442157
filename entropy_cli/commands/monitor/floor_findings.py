"""Findings about a loss against its floor and the ceilings of its tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from entropy_cli.commands.monitor.detectors.limits import above_ceiling, below_floor
from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.result import RunFinding, about
from entropy_cli.entropy.quantity import Labels
from entropy_cli.results import floor_checks as checks
from entropy_cli.results.floor_checks import AT_END, NEAR
from entropy_cli.results.floors import Floor, Level

NORMAL_95 = 1.96
TENTH, BIN = " (median of the last tenth)", " (median of the lowest thirtieth)"
DEVIATIONS = 4  # standard errors above a rung that are no chance


def floor_findings(shown: Sequence[Series], floor: Floor | None) -> Iterator[RunFinding]:
    """Report losses below their floor, above the unigram entropy, and beside the ladder's rungs."""
    labels: Labels = "unknown" if floor is None else floor.labels
    for series in shown:
        if series.level is not None and len(series):
            yield from _below_floor(series, series.level, labels)
            yield from _beside_ceilings(series, series.level, labels)


def _below_floor(series: Series, level: Level, labels: Labels) -> Iterator[RunFinding]:
    """Report a loss below its floor by more than its noise, or than `NEAR` if it has few points."""
    floor, error = level.floor, (level.half_width or 0.0) / NORMAL_95
    found = below_floor(series.value_n, floor, error)
    if found is None:
        lowest, where = float(series.value_n.min()), ""
        fires = lowest < floor - 4 * error - NEAR
        evidence: dict[str, object] = {"bound": floor, "bound_se": error, "lowest": lowest}
    else:
        lowest, where = (found.last, TENTH) if found.last < floor else (found.lowest, BIN)
        fires, evidence = found.fires, asdict(found)
    if fires:
        yield about(series, checks.below_floor(lowest, level, labels, _what(series), where), evidence)


def _beside_ceilings(series: Series, level: Level, labels: Labels) -> Iterator[RunFinding]:
    """Report a loss above the unigram entropy; set any other beside the rungs of the ladder."""
    over = None if level.ceiling is None else above_ceiling(series.value_n, level.ceiling)
    if over is not None and over.fires:
        yield about(
            series,
            checks.above_unigram(over.last, over.bound, _what(series), AT_END + TENTH),
            asdict(over),
        )
    elif level.rungs and labels != "soft":
        last = above_ceiling(series.value_n, min(rung.upper95 for rung in level.rungs))
        value, where = (
            (float(series.value_n[-1]), AT_END) if last is None else (last.last, AT_END + TENTH)
        )
        margin = NEAR if last is None else DEVIATIONS * last.last_se
        evidence = {"value": value, "rungs": {rung.id: rung.upper95 for rung in level.rungs}}
        yield about(series, checks.beside_ladder(value, level, margin, _what(series), where), evidence)


def _what(series: Series) -> str:
    return f"{series.metric.split} loss"
