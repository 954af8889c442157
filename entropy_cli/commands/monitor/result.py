"""The result of `monitor` as JSON and as a table. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from entropy_cli.core.text import columns, definitions, wrapped
from entropy_cli.results.findings import Finding, by_severity

SCHEMA = "entropy-cli/monitor"
SCHEMA_VERSION = 1


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


def render(result: MonitorResult) -> str:
    """Render the headline, the series, their reducible losses and the findings, the worst first."""
    parts = [_headline(result), _series(result.series)]
    with_floor = [series for series in result.series if series.floor is not None]
    if with_floor:
        title = f"Reducible loss: above the floor, nats per token; {result.floor_source}"
        parts.append(wrapped("", title) + "\n" + _reducible(with_floor))
    descriptions = {f"{one.name}, {one.split}": one.words for one in result.series if one.words}
    if descriptions:
        parts.append(definitions(descriptions))
    parts.append(_findings(result.findings))
    return "\n\n".join(parts)


def _headline(result: MonitorResult) -> str:
    parts = f", {result.segments} segments" if result.segments > 1 else ""
    parts += f", {result.unreadable} unreadable lines or cells" if result.unreadable else ""
    return f"{result.log}: format {result.format}{parts}, entropy-cli {result.tool_version}"


def _series(series: Sequence[SeriesSummary]) -> str:
    head = ["series", "split", "kind", "points", "first", "best", "at", "last", "noise"]
    rows = [head]
    for one in series:
        numbers = [format_number(value) for value in (one.first, one.best, one.last, one.noise)]
        row = [one.name, one.split, one.kind.replace("_", "-"), str(one.points)]
        rows.append([*row, *numbers[:2], format_place(one.best_at), *numbers[2:]])
    return columns(rows, left=3)


def _reducible(series: Sequence[SeriesSummary]) -> str:
    rows = [["series", "split", "floor", "first", "best", "last", "share left", "power of time"]]
    for one in series:
        slope = "" if one.slope is None else f"{one.slope[0]:.3f} ± {one.slope[1]:.3f}"
        numbers = (one.floor, one.reducible_first, one.reducible_best, one.reducible_last)
        share = "" if one.share_left is None else f"{one.share_left:.1%}"
        rows.append([one.name, one.split, *map(format_number, numbers), share, slope])
    return columns(rows, left=2)


def _findings(findings: Sequence[RunFinding]) -> str:
    if not findings:
        return "Findings\nnone"
    lines = []
    for finding in by_severity(findings):
        series = f"{finding.series}: " if finding.series else ""
        lines.append(wrapped(f"{finding.severity:8}{finding.id:15}", f"{series}{finding.message}"))
    return "\n".join(["Findings", *lines])


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
