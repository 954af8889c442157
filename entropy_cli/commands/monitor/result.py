"""What a training log says, as JSON and as a table. Imports no torch."""

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
    """One series: unsmoothed values, in nats per token if it is a cross-entropy.

    Attributes:
        best: the lowest loss, or the highest accuracy; `best_at` is where, in the log's terms.
        initial: the loss before any training where the log has it, else the first.
        floor: what it can't fall below; None if there is none for it.
        unigram: what a constant prediction reaches; None where only a lower bound of it is known.
        reducible_first: above the floor, likewise best and last; negative below it.
        share_left: of the initial reducible loss.
        slope: exponent of the reducible loss as a power of training time, and its standard error.
        noise: standard deviation of a point about the curve.
        words: what there is to know about it.
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
    """Something to know or to do about a training run.

    Attributes:
        series: the name of the series it is about; None for the whole log.
        evidence: the numbers it rests on, and where.
    """

    series: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Monitor:
    """What was found in a log.

    Attributes:
        segments: parts of it that one process wrote.
        unreadable: lines and cells that should be values and are none.
        floor_source: where the floors are from.
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
        """As JSON text; on one line without an indent."""
        content = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "units": "nats per token",
            **asdict(self),
        }
        return json.dumps(content, allow_nan=False, indent=indent)


def render(found: Monitor) -> str:
    """Headline, the series, what is reducible of them, and the findings, the worst first."""
    parts = [_headline(found), _series(found.series)]
    above = [one for one in found.series if one.floor is not None]
    if above:
        title = f"Reducible loss: above the floor, nats per token; {found.floor_source}"
        parts.append(wrapped("", title) + "\n" + _reducible(above))
    words = {f"{one.name}, {one.split}": one.words for one in found.series if one.words}
    if words:
        parts.append(definitions(words))
    parts.append(_findings(found.findings))
    return "\n\n".join(parts)


def _headline(found: Monitor) -> str:
    parts = f", {found.segments} segments" if found.segments > 1 else ""
    parts += f", {found.unreadable} unreadable lines or cells" if found.unreadable else ""
    return f"{found.log}: format {found.format}{parts}, entropy-cli {found.tool_version}"


def _series(series: Sequence[SeriesSummary]) -> str:
    head = ["series", "split", "kind", "points", "first", "best", "at", "last", "noise"]
    rows = [head]
    for one in series:
        numbers = [number(value) for value in (one.first, one.best, one.last, one.noise)]
        row = [one.name, one.split, one.kind.replace("_", "-"), str(one.points)]
        rows.append([*row, *numbers[:2], place(one.best_at), *numbers[2:]])
    return columns(rows, left=3)


def _reducible(series: Sequence[SeriesSummary]) -> str:
    rows = [["series", "split", "floor", "first", "best", "last", "left of the start", "power of time"]]
    for one in series:
        slope = "" if one.slope is None else f"{one.slope[0]:.3f} ± {one.slope[1]:.3f}"
        numbers = (one.floor, one.reducible_first, one.reducible_best, one.reducible_last)
        share = "" if one.share_left is None else f"{one.share_left:.1%}"
        rows.append([one.name, one.split, *map(number, numbers), share, slope])
    return columns(rows, left=2)


def _findings(findings: Sequence[RunFinding]) -> str:
    if not findings:
        return "Findings\nnone"
    lines = []
    for finding in by_severity(findings):
        of = f"{finding.series}: " if finding.series else ""
        lines.append(wrapped(f"{finding.severity:8}{finding.id:15}", f"{of}{finding.message}"))
    return "\n".join(["Findings", *lines])


def place(at: Mapping[str, float]) -> str:
    """Where something is, for people."""
    return " ".join(
        f"{name} {value:g}" if value < 1e5 else f"{name} {value:.0f}" for name, value in at.items()
    )


def number(value: float | None) -> str:
    """Four digits after the point, or as many that count."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
