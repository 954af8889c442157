"""The result of `monitor` as JSON and as a table. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from textwrap import wrap
from typing import Any

from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.core.table import Table, definitions, wrapped
from entropy_cli.entropy.quantity import Labels
from entropy_cli.results.findings import Finding, Severity, by_severity

SCHEMA = "entropy-cli/monitor"
SCHEMA_VERSION = 1
MAX_SERIES, MAX_FINDINGS = 10, 5  # on a screen


@dataclass(frozen=True)
class SeriesSummary:
    """Unsmoothed values of one series, in nats per token if it is a cross-entropy."""

    name: str  # as in the log
    split: str
    kind: str
    points: int
    first: float | None
    best: float | None  # the lowest loss, or the highest accuracy
    best_at: Mapping[str, float]  # its epoch and step
    last: float | None
    floor: float | None = None  # lower bound of the loss; None if none applies
    reducible_first: float | None = None  # first minus floor, negative below the floor
    reducible_last: float | None = None
    reducible_best: float | None = None
    share_left: float | None = None  # share of the initial reducible loss that is left
    initial: float | None = None  # the loss before any training if the log has it, else the first
    unigram: float | None = None  # loss of a constant prediction; None if only a lower bound is known
    slope: tuple[float, float] | None = None  # of ln reducible loss over ln time, with its se
    noise: float | None = None  # standard deviation of a point about the curve; None if only rounding
    ceilings: Mapping[str, float] = field(default_factory=dict)  # upper limits of simple predictions
    words: str = ""  # description of the series
    unit: str | None = None  # of its values; None if the log does not say
    last_at: Mapping[str, float] = field(default_factory=dict)  # epoch and step of the last value


@dataclass(frozen=True)
class RunFinding(Finding):
    """A finding about a training run."""

    series: str | None = None  # its name; None for the whole log
    evidence: Mapping[str, Any] = field(default_factory=dict)  # the numbers behind it, and where


def finding_about(
    series: Series, name: str, severity: Severity, message: str, result: object, at: int, **more: object
) -> RunFinding:
    """Build a finding at a point of a series; its evidence is the result of a detector, and more."""
    evidence = {key: value for key, value in vars(result).items() if key != "fires"} | more
    evidence |= {"at": series.at(at), "position": float(series.position_n[at])}
    return RunFinding(name, severity, message, series.metric.name, evidence)


def about(series: Series, one: Finding, evidence: Mapping[str, Any]) -> RunFinding:
    """Return a finding about a loss as one about a series, with the numbers behind it."""
    return RunFinding(one.id, one.severity, one.message, series.metric.name, evidence)


@dataclass(frozen=True)
class MonitorResult:
    """Summaries and findings of a log."""

    log: str
    format: str
    segments: int  # number of parts, each written by one process
    unreadable: int  # lines and cells that should be values and are none
    series: Sequence[SeriesSummary]
    findings: Sequence[RunFinding]
    floor_source: str | None  # None without floors
    floor_labels: Labels  # that models are trained on; under hard ones CE - A may be negative
    tool_version: str
    not_judged: Sequence[str] = ()  # what the log is too short for, in clauses
    judged_by: Sequence[str] = ()  # sentences on series that are judged by finer values than are shown
    notes: Sequence[str] = ()  # what had to be guessed or mended to read the log

    @property
    def is_hard(self) -> bool:
        """Return whether the assignment entropy is no floor of these losses: then no share is shown."""
        return self.floor_labels == "hard"

    @property
    def excess_name(self) -> str:
        """The name of the last value minus the assignment entropy."""
        return "CE - A" if self.is_hard else "above floor"

    @property
    def headline(self) -> str:
        """The log, its format, and what is odd about it as a file."""
        starts = f", {self.segments} starts with values" if self.segments > 1 else ""
        unreadable = f", {self.unreadable} unreadable lines or cells" if self.unreadable else ""
        return f"{self.log}: format {self.format}{starts}{unreadable}"

    @property
    def descriptions(self) -> dict[str, str]:
        """Return descriptions of the log's series by name and split, where they need one."""
        return {f"{one.name}, {one.split}": one.words for one in self.series if one.words}

    def document(self) -> dict[str, Any]:
        """Return the result as it is in JSON."""
        head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "units": "nats per token"}
        return head | asdict(self)

    def to_json(self, indent: int | None = 1) -> str:
        """Return the result as JSON text, on one line if indent is None."""
        return json.dumps(self.document(), allow_nan=False, indent=indent)


NOISE = "noise: standard deviation of a value about the curve"
SHARE_LEFT = "share left: of the untrained model's distance to it"


def render(result: MonitorResult, *, whole: bool = False) -> str:
    """Render the headline, the series and the findings, the worst first: all, or what fits a screen."""
    findings = by_severity(result.findings)
    if whole:
        shown = [table.text() for table in tables(result)]
        shown += [definitions(result.descriptions)] if result.descriptions else []
    else:
        shown, findings = [_overview(result).text()], findings[:MAX_FINDINGS]
    lines = "\n".join(
        ["Findings", *(map(render_finding, findings) if findings else []), *no_findings(result)]
    )
    parts = [wrapped("", result.headline), *shown, lines]
    return "\n\n".join(parts if whole else [*parts, _left_out(result)])


def no_findings(result: MonitorResult) -> list[str]:
    """Return what stands in place of findings: none, or what the log is too short for."""
    lines = [] if result.findings or result.not_judged else ["none"]
    if result.not_judged:
        lines.append(wrapped("", f"Too short to judge: {'; '.join(result.not_judged)}."))
    return lines + [wrapped("", sentence) for sentence in result.judged_by]


def _overview(result: MonitorResult) -> Table:
    """Return one table of the first series, with the reducible loss where there is a floor."""
    series = result.series[:MAX_SERIES]
    table = _series_table(series)
    name = result.excess_name
    words = "last minus A, may be negative" if result.is_hard else "last minus floor"
    more = [
        [
            format_number(one.reducible_last),
            *(("", _below_ceiling(one)) if result.is_hard else (_share_left(one), "")),
        ]
        for one in series
    ]
    has_floor = any(one.floor is not None for one in series)
    share = f"; {SHARE_LEFT}" if any(cells[1] for cells in more) else ""
    source = f"; {name}: {words} ({result.floor_source}){share}" if has_floor else ""
    table = replace(
        table,
        head=[*table.head, name, "share left", "below ceiling"],
        rows=[[*row, *cells] for row, cells in zip(table.rows, more, strict=True)],
        caption=f"{table.caption}{source}",
    )
    return table.without("kind", "noise").without_empty_columns().fitted("points", "at", "first")


def _left_out(result: MonitorResult) -> str:
    """Say what a screen leaves out."""
    series, findings = len(result.series) - MAX_SERIES, len(result.findings) - MAX_FINDINGS
    more = [f"{series} more series"] if series > 0 else []
    more += [f"{findings} more findings"] if findings > 0 else []
    return wrapped("", f"With --table: {', '.join([*more, 'noise, slopes and descriptions'])}.")


def tables(result: MonitorResult) -> list[Table]:
    """Return all numbers: the series, and the reducible loss of those with a floor."""
    with_floor = [one for one in result.series if one.floor is not None]
    reducible = [_reducible(with_floor, result)] if with_floor else []
    with_ceilings = [one for one in with_floor if one.ceilings]
    ceilings = [_ceilings(with_ceilings)] if with_ceilings else []
    series = _series_table(result.series)
    return [replace(series, caption=f"{series.caption}; {NOISE}"), *reducible, *ceilings]


def _series_table(series: Sequence[SeriesSummary]) -> Table:
    head = ["series", "split", "kind", "points", "first", "best", "at", "last", "noise", "unit"]
    rows = []
    for one in series:
        first, best, last, noise = map(format_number, (one.first, one.best, one.last, one.noise))
        row = [one.name, one.split, one.kind.replace("_", "-"), str(one.points)]
        unit = "" if one.unit in (None, "nats per token") else one.unit
        rows.append([*row, first, best, format_place(one.best_at), last, noise, unit])
    is_known = any(one.kind == "cross_entropy" or one.floor is not None for one in series)
    has_unit, has_accuracy = any(row[-1] for row in rows), any(one.kind == "accuracy" for one in series)
    units = [
        *(["cross-entropies in nats per token" + " or their unit" * has_unit] if is_known else []),
        *(["accuracies as logged"] if has_accuracy else []),
    ]
    caption, left = "; ".join(["unsmoothed values", *units]), (*range(3), len(head) - 1)
    table = Table("series", "Series", head, rows, caption, sortable=True, left=left)
    return table if has_unit else table.without("unit")


def _reducible(series: Sequence[SeriesSummary], result: MonitorResult) -> Table:
    head = ["series", "split", "floor", "first", "best", "last", "share left", "log-log slope"]
    rows = []
    for one in series:
        slope = "" if one.slope is None else "{:.3f} ± {:.3f}".format(*one.slope)
        numbers = (one.floor, one.reducible_first, one.reducible_best, one.reducible_last)
        rows.append([one.name, one.split, *map(format_number, numbers), _share_left(one), slope])
    if not result.is_hard:
        slope = "log-log slope: of the distance over training time, ± standard error"
        caption = f"above the floor, nats per token ({result.floor_source}); {SHARE_LEFT}; {slope}"
        return Table("reducible", "Reducible loss", head, rows, caption, left=range(2))
    head[2], caption = "A", f"loss minus A, nats per token; {result.floor_source}"
    table = Table("reducible", "CE - A (may be negative)", head, rows, caption, left=range(2))
    return table.without("share left", "log-log slope")


def _ceilings(series: Sequence[SeriesSummary]) -> Table:
    names = list(dict.fromkeys(name for one in series for name in one.ceilings))
    rows = []
    for one in series:
        last = one.last or 0.0
        below = [one.ceilings[name] - last if name in one.ceilings else None for name in names]
        rows.append([one.name, one.split, *map(format_number, below)])
    caption = "how far the last value lies below each, nats per token; negative above it"
    return Table("ceilings", "Ceilings", ["series", "split", *names], rows, caption, left=range(2))


def _below_ceiling(one: SeriesSummary) -> str:
    """Return how far a loss lies below the lowest of its ceilings, and which that is."""
    if not one.ceilings or one.last is None:
        return ""
    name = min(one.ceilings, key=one.ceilings.__getitem__)
    return f"{one.ceilings[name] - one.last:.4f} ({name})"


def _share_left(one: SeriesSummary) -> str:
    return "" if one.share_left is None or one.share_left < 0 else f"{one.share_left:.1%}"


def render_finding(one: RunFinding) -> str:
    """Return a finding as text for a terminal."""
    series = f" {one.series}:" if one.series else ""
    return wrapped(f"{one.severity:8}", f"{one.id}:{series} {one.message}")


def finding_lines(result: MonitorResult, columns: int = 120, most: int = 24) -> list[str]:
    """Return the findings without advice and rules of thumb, at most so many lines."""
    findings = [one for one in by_severity(result.findings) if one.id != "rule_of_thumb"]
    lines: list[str] = []
    names = max((len(one.id) for one in findings), default=0)
    for i, one in enumerate(findings):
        series = f"{one.series}: " if one.series else ""
        lead = f"{one.severity:8}{one.id:{names}} "
        evidence = one.message.partition(". ")[0].removesuffix(".")
        more = wrap(lead + series + evidence, columns, subsequent_indent=" " * len(lead))
        if len(lines) + len(more) > most:
            return [*lines, f"and {len(findings) - i} more findings"]
        lines += more
    return lines


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
