"""The list of the series of a log: all numbers with a name, with points, first, last and kind."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from entropy_cli.commands.monitor.logs.read import read_log
from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.result import format_number
from entropy_cli.core.table import Table, wrapped

SCHEMA = "entropy-cli/monitor-list"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ListedSeries:
    """A series of a log, without smoothing or conversion."""

    name: str
    split: str
    kind: str
    unit: str | None  # of its values; None if the log does not say
    target: str  # what it is a loss of
    points: int
    first: float | None  # finite ones
    last: float | None
    is_finer: bool  # whether it has the single steps of a series of whole epochs
    words: str  # description


@dataclass(frozen=True)
class Listing:
    """The series of a log."""

    log: str
    format: str
    series: Sequence[ListedSeries]
    notes: Sequence[str]

    def to_json(self) -> str:
        """Return the list as JSON text."""
        head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
        return json.dumps({**head, **asdict(self)}, allow_nan=False, indent=1)

    def render(self) -> str:
        """Render the list as a table."""
        head = ["series", "split", "kind", "points", "first", "last", "unit"]
        rows = [
            [
                f"{one.name} (steps)" if one.is_finer else one.name,
                one.split,
                one.kind.replace("_", "-"),
                str(one.points),
                format_number(one.first),
                format_number(one.last),
                one.unit or "",
            ]
            for one in self.series
        ]
        caption = "values of the log; --loss NAME reads one as the loss"
        table = Table("series", "Series", head, rows, caption, left=(0, 1, 2, 6))
        notes = [wrapped("note    ", note) for note in self.notes]
        text = table.without_empty_columns().fitted("unit", "split").text()
        return "\n\n".join([wrapped("", f"{self.log}: format {self.format}"), text, *notes])


def list_series(
    path: Path, format_name: str, loss_name: str | None, progress: Callable[[int], object]
) -> Listing:
    """List all series of a log, but for single numbers that say nothing about the training.

    `progress` is called with the number of bytes that were read.

    Raises:
        EntropyCliError: the log can't be read, or has no series of that name.
    """
    log = read_log(path, format_name, loss_name, progress, everything=True)
    series = [one for one in log.series if one.metric.kind != "other" or len(one) > 1]
    listed = [one for some in series or log.series for one in _listed(some)]
    return Listing(str(path), log.format, listed, log.notes)


def _listed(series: Series, *, is_finer: bool = False) -> Iterator[ListedSeries]:
    metric, value_n = series.metric, series.finite.value_n
    first, last = (float(value_n[0]), float(value_n[-1])) if len(value_n) else (None, None)
    more = (metric.unit, metric.target, len(series), first, last, is_finer, metric.description)
    yield ListedSeries(metric.name, metric.split, metric.kind, *more)
    if series.finer is not None:
        yield from _listed(series.finer, is_finer=series.finer.metric == metric)
