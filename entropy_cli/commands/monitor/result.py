"""The result of `monitor` as JSON and as a table. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from entropy_cli.core.table import Table, definitions, wrapped
from entropy_cli.results.findings import Finding, by_severity

SCHEMA = "entropy-cli/monitor"
SCHEMA_VERSION = 1
MAX_SERIES, MAX_FINDINGS = 10, 5  # on a screen


@dataclass(frozen=True)
class SeriesSummary:
    """Unsmoothed values of one series, in nats per token if it is a cross-entropy.

    Attributes:
        name: as in the log.
        best: the lowest loss, or the highest accuracy.
        best_at: epoch and step of the best.
        initial: the loss before any training if the log has it, else the first.
        floor: lower bound of the loss; None if none applies.
        unigram: loss of a constant prediction; None if only a lower bound of it is known.
        reducible_first: first minus floor, likewise best and last; negative below the floor.
        share_left: share of the initial reducible loss that is left.
        slope: exponent of the reducible loss as a power of training time, and its standard error.
        noise: standard deviation of a point about the curve.
        words: description of the series.
    """

    name: str
    split: str
    kind: str
    points: int
    first: float | None
    best: float | None
    best_at: Mapping[str, float]
    last: float | None
    floor: float | None = None
    reducible_first: float | None = None
    reducible_last: float | None = None
    reducible_best: float | None = None
    share_left: float | None = None
    initial: float | None = None
    unigram: float | None = None
    slope: tuple[float, float] | None = None
    noise: float | None = None
    words: str = ""


@dataclass(frozen=True)
class RunFinding(Finding):
    """A finding about a training run.

    Attributes:
        series: name of the series; None for the whole log.
        evidence: the numbers behind it, and where.
    """

    series: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MonitorResult:
    """Summaries and findings of a log.

    Attributes:
        segments: number of parts, each written by one process.
        unreadable: lines and cells that should be values and are none.
        floor_source: source of the floors; None without floors.
    """

    log: str
    format: str
    segments: int
    unreadable: int
    series: Sequence[SeriesSummary]
    findings: Sequence[RunFinding]
    floor_source: str | None
    tool_version: str

    def to_json(self, indent: int | None = 1) -> str:
        """Return the result as JSON text, on one line if indent is None."""
        content = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "units": "nats per token",
            **asdict(self),
        }
        return json.dumps(content, allow_nan=False, indent=indent)


def render(result: MonitorResult, *, whole: bool = False) -> str:
    """Render the headline, the series and the findings, the worst first.

    Args:
        result: the summaries and findings.
        whole: whether to show all of them, not only what fits a screen.
    """
    shown = tables(result) if whole else [_overview(result)]
    parts = [_headline(result), *(table.text() for table in shown)]
    descriptions = {f"{one.name}, {one.split}": one.words for one in result.series if one.words}
    if descriptions and whole:
        parts.append(definitions(descriptions))
    findings = by_severity(result.findings)
    lines = [_finding(one) for one in (findings if whole else findings[:MAX_FINDINGS])]
    parts.append("\n".join(["Findings", *(lines or ["none"])]))
    if not whole:
        parts.append(_left_out(result))
    return "\n\n".join(parts)


def _headline(result: MonitorResult) -> str:
    parts = f", {result.segments} segments" if result.segments > 1 else ""
    parts += f", {result.unreadable} unreadable lines or cells" if result.unreadable else ""
    text = f"{result.log}: format {result.format}{parts}, entropy-cli {result.tool_version}"
    return wrapped("", text)


def _overview(result: MonitorResult) -> Table:
    """Return one table of the first series, with the reducible loss where there is a floor."""
    series = result.series[:MAX_SERIES]
    reducible = [[format_number(one.reducible_last), _share_left(one)] for one in series]
    table = series_table(series)
    rows = [[*row, *more] for row, more in zip(table.rows, reducible, strict=True)]
    table = replace(table, head=[*table.head, "above floor", "share left"], rows=rows)
    if result.floor_source is not None:
        table = replace(
            table, caption=f"{table.caption}; above floor: last minus floor ({result.floor_source})"
        )
    return table.without("kind", "noise").without_empty_columns().fitted("points", "at", "first")


def _left_out(result: MonitorResult) -> str:
    """Say what a screen leaves out."""
    counts = {
        "series": len(result.series) - MAX_SERIES,
        "findings": len(result.findings) - MAX_FINDINGS,
    }
    more = [f"{count} more {name}" for name, count in counts.items() if count > 0]
    return wrapped("", f"With --table: {', '.join([*more, 'noise, power of time and descriptions'])}.")


def tables(result: MonitorResult) -> list[Table]:
    """Return all numbers: the series, and the reducible loss of those with a floor."""
    with_floor = [one for one in result.series if one.floor is not None]
    found = [series_table(result.series)]
    return [*found, _reducible(with_floor, result.floor_source or "")] if with_floor else found


def series_table(series: Sequence[SeriesSummary]) -> Table:
    """Return the values of series, a row each."""
    head = ["series", "split", "kind", "points", "first", "best", "at", "last", "noise"]
    rows = []
    for one in series:
        first, best, last, noise = map(format_number, (one.first, one.best, one.last, one.noise))
        row = [one.name, one.split, one.kind.replace("_", "-"), str(one.points)]
        rows.append([*row, first, best, format_place(one.best_at), last, noise])
    caption = "unsmoothed values; cross-entropies in nats per token"
    return Table("series", "Series", head, rows, caption, sortable=True, left=range(3))


def _reducible(series: Sequence[SeriesSummary], source: str) -> Table:
    head = ["series", "split", "floor", "first", "best", "last", "share left", "power of time"]
    rows = []
    for one in series:
        slope = "" if one.slope is None else f"{one.slope[0]:.3f} ± {one.slope[1]:.3f}"
        numbers = (one.floor, one.reducible_first, one.reducible_best, one.reducible_last)
        rows.append([one.name, one.split, *map(format_number, numbers), _share_left(one), slope])
    caption = f"above the floor, nats per token; {source}"
    return Table("reducible", "Reducible loss", head, rows, caption, left=range(2))


def _share_left(one: SeriesSummary) -> str:
    return "" if one.share_left is None else f"{one.share_left:.1%}"


def _finding(one: RunFinding) -> str:
    series = f" {one.series}:" if one.series else ""
    return wrapped(f"{one.severity:8}", f"{one.id}:{series} {one.message}")


def format_place(at: Mapping[str, float]) -> str:
    """Format an epoch and step, or a row."""
    return " ".join(
        f"{name} {value:g}" if value < 1e5 else f"{name} {value:.0f}" for name, value in at.items()
    )


def format_number(value: float | None) -> str:
    """Format with four decimals, or with three digits below 0.1; None is blank."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
