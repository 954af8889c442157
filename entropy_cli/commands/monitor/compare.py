"""Several logs side by side, aligned on tokens, steps or epochs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.monitor import MonitorOutput
from entropy_cli.commands.monitor.result import format_number, format_place, no_findings, render_finding
from entropy_cli.core.errors import LogError
from entropy_cli.core.table import Table, wrapped
from entropy_cli.results.findings import by_severity

SCHEMA, SCHEMA_VERSION = "entropy-cli/monitor-comparison", 1
UNITS = ("token", "step", "epoch")  # the first that all runs have
WINDOW = 0.05  # of the training up to the common end: its median is compared
MOST_FINDINGS = 3  # of a run, on a screen


class Curve(NamedTuple):
    """A loss of one run, by the common unit of training time."""

    run: str
    series: Series  # whose steps are of the common unit
    at_common: float | None  # the median of the values just before the common end

    @property
    def is_main(self) -> bool:
        """Return whether it is a main training loss."""
        return self.series.metric.is_main


@dataclass(frozen=True)
class Comparison:
    """Several runs: their outputs, and their losses aligned.

    Attributes:
        names: the names of the runs, no two equal.
        outputs: what `monitor` says about each.
        unit: of training time: token, step or epoch.
        common: where the shortest run ends, in that unit.
        curves: the losses, by run.
    """

    names: Sequence[str]
    outputs: Sequence[MonitorOutput]
    unit: str
    common: float
    curves: Sequence[Curve]

    @property
    def common_text(self) -> str:
        """The common end in words."""
        return format_place({self.unit: self.common})

    def to_json(self) -> str:
        """Return the documents of all logs as one."""
        logs = [output.result.document() for output in self.outputs]
        head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
        return json.dumps({**head, "logs": logs}, allow_nan=False, indent=1)


def compare(outputs: Sequence[MonitorOutput]) -> Comparison:
    """Align the losses of several logs.

    Raises:
        LogError: there is no unit of training time that all of them have.
    """
    paths = [Path(output.result.log) for output in outputs]
    short = [path.name for path in paths]
    names = [path.name if short.count(path.name) == 1 else str(path) for path in paths]
    losses = [[one for one in output.series if _is_compared(one)] for output in outputs]
    for unit in UNITS:
        aligned = [
            [_aligned(one, output.series, unit) for one in mine]
            for mine, output in zip(losses, outputs, strict=True)
        ]
        known = [[one for one in mine if one is not None] for mine in aligned]
        if all(known):
            break
    else:
        has = [f"{name} has {_units(mine)}" for name, mine in zip(names, losses, strict=True)]
        raise LogError(
            f"the logs have no unit of training time in common: {', '.join(has)}. Compare logs that "
            "count the same, or give them one at a time."
        )
    common = min(max(float(one.step_n[-1]) for one in mine) for mine in known)
    curves = [
        Curve(name, one, _at(one, common))
        for name, mine in zip(names, known, strict=True)
        for one in mine
    ]
    return Comparison(names, outputs, unit, common, curves)


def _is_compared(series: Series) -> bool:
    """Return whether a series is a loss of all tokens or the final scale, and no part of a loss."""
    metric = series.metric
    return metric.kind in ("cross_entropy", "loss") and not isinstance(metric.scope, int)


def _units(losses: Sequence[Series]) -> str:
    return f"{losses[0].position_unit}s" if losses else "no losses"


def _aligned(series: Series, others: Sequence[Series], unit: str) -> Series | None:
    """Return a series whose steps are positions in a unit; None if the log does not have it."""
    if unit == "token":
        tokens = next((one for one in others if one.metric.kind == "tokens"), None)
        if tokens is None or (np.diff(tokens.value_n) < 0).any():
            return None
        if tokens.position_unit != series.position_unit:
            return None
        position_n = np.interp(series.position_n, tokens.position_n, tokens.value_n)
    elif series.position_unit != unit:
        return None
    else:
        raw_n = series.epoch_n if unit == "epoch" else series.step_n
        is_plain = np.isfinite(raw_n).all() and (np.diff(raw_n) > 0).all()
        position_n = raw_n if is_plain else series.position_n  # steps within epochs
    return replace(series, step_n=position_n, epoch_n=np.full_like(position_n, np.nan))


def _at(series: Series, common: float) -> float | None:
    """Return the median of a series just before the common end."""
    before_n = series.step_n <= common
    window_n = before_n & (series.step_n >= (1 - WINDOW) * common)
    if window_n.any():
        return float(np.median(series.value_n[window_n]))
    return float(series.value_n[before_n][-1]) if before_n.any() else None


def render(comparison: Comparison, *, whole: bool = False) -> str:
    """Return the table of the runs and the findings of each, as text for a terminal."""
    parts = [comparison_table(comparison).text()]
    for name, output in zip(comparison.names, comparison.outputs, strict=True):
        findings = by_severity(output.result.findings)
        shown = (
            findings if whole else [one for one in findings if one.severity != "info"][:MOST_FINDINGS]
        )
        lines = [*map(render_finding, shown), *([] if findings else no_findings(output.result))]
        left = len(findings) - len(shown)
        some = f"{left} more" if shown else f"no warning, {left} for information"
        more = [f"{some}: --table"] if left else []
        parts.append("\n".join([wrapped("", f"Findings: {name}"), *lines, *more]))
    return "\n\n".join(parts)


def comparison_table(comparison: Comparison) -> Table:
    """Return a row for each loss of each run, with its value where the shortest run ends."""
    results = [output.result for output in comparison.outputs]
    excess = "CE - A" if any(result.is_hard for result in results) else "above floor"
    head = ["run", "series", "split", "points", "last", "at", excess, f"at\n{comparison.common_text}"]
    rows = []
    for curve in comparison.curves:
        one = curve.series
        last = float(one.value_n[-1])
        place = format_place({comparison.unit: float(one.step_n[-1])})
        row = [curve.run, one.metric.name, one.metric.split, str(len(one)), format_number(last), place]
        above = None if one.level is None else last - one.level.floor
        rows.append([*row, format_number(above), format_number(curve.at_common)])
    sources = list(dict.fromkeys(result.floor_source for result in results if result.floor_source))
    clause = ", may be negative" if excess == "CE - A" else ""
    floors = f"; {excess}: of the last value{clause} ({'; '.join(sources)})" if sources else ""
    caption = (
        f"aligned on {comparison.unit}s; last column: median of the last {WINDOW:.0%} up to "
        f"{comparison.common_text}, where the shortest run ends{floors}"
    )
    table = Table("runs", "Runs", head, rows, caption, sortable=True, left=range(3))
    return table.without_empty_columns().fitted("points", "at", "split")
