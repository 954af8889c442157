"""Find where the values of a log stand, and its dialect, from its beginning; read it as that."""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from entropy_cli.commands.monitor.logs.dialect import ANY, Container, Dialect
from entropy_cli.commands.monitor.logs.dialects import DIALECTS
from entropy_cli.commands.monitor.logs.lines import LineReader
from entropy_cli.commands.monitor.logs.names import Namer
from entropy_cli.commands.monitor.logs.records import (
    RecordReader,
    document_records,
    read_records,
    record_of,
)
from entropy_cli.commands.monitor.logs.rows import Rows
from entropy_cli.commands.monitor.logs.table import TableReader
from entropy_cli.core.errors import LogError

# The names of logs without a known dialect, by where their values stand.
PLAIN: Mapping[str, Container] = {"jsonl": "records", "csv": "table", "text": "lines"}
DOCUMENT = re.compile(r'\s*(?:\[\s*\{|\{\s*\n|\{\s*"[^"\n]+"\s*:\s*\[)')
MAX_RECORDS = 5_000  # in which the names of a log are sought


class Form(NamedTuple):
    """Say how a log is to be read."""

    name: str  # of the dialect, or of the container if it is not known
    container: Container
    dialect: Dialect | None
    names: Sequence[str]  # in the beginning of the log


class Reading(NamedTuple):
    """Hold what was read of a log."""

    rows: Rows
    names: Sequence[str]
    notes: Sequence[str] = ()  # what had to be mended
    arguments: Mapping[str, str] = {}


def is_document(text: str) -> bool:
    """Return whether a text begins like one JSON value that holds the whole log."""
    return bool(DOCUMENT.match(text)) or '"log_history"' in text


def detect(text: str, loss_name: str | None) -> tuple[Form | None, int]:
    """Return how to read a log with this beginning, and how many of its rows have a loss.

    Of several ways the first of `PLAIN` is taken that finds about as many rows with a loss as any. None
    if nothing is known to read it.
    """
    forms = [choose(container, text, loss_name) for container in PLAIN.values()]
    if "\n" not in text.strip():
        with contextlib.suppress(ValueError):
            forms.append(choose("document", text, loss_name))
    found = [_read_beginning(text, form, loss_name) for form in forms]
    counts = list(map(count_losses, found))
    jsonl, csv, *_ = forms
    if jsonl.dialect is None and found[2].is_placed and not found[0].is_placed:
        counts[0] = 0  # the position stands before the braces: step 7: {'loss': 2.5}
    most = max(counts)
    if most:
        return next((form, n) for form, n in zip(forms, counts, strict=True) if n >= most / 2)
    known = [form for form in forms if form.dialect is not None]
    plain = [form for form, is_one in ((jsonl, bool(jsonl.names)), (csv, _is_table(text))) if is_one]
    return next(iter([*known, *plain]), None), 0


def choose(container: Container, text: str, loss_name: str | None = None) -> Form:
    """Return how to read a log whose values stand there: by the dialect that its beginning shows.

    Raises:
        ValueError: a document is no JSON.
    """
    plain = next((name for name, place in PLAIN.items() if place == container), "json")
    names = _names(text, container)
    counted = [
        (dialect.count_signs(text), sum(name in names for name in dialect.names), name)
        for name, dialect in DIALECTS.items()
        if dialect.container == container
    ]
    for signs, known, name in sorted(counted, key=lambda found: found[:2], reverse=True):
        form = Form(name, container, DIALECTS[name], names)
        has_names = known or container != "lines" or not form.dialect.names  # type: ignore[union-attr]
        if signs and has_names and _is_in_range(text, form, loss_name):
            return form
    return Form(plain, container, None, names)


def _is_in_range(text: str, form: Form, loss_name: str | None) -> bool:
    """Return whether the first loss of a log is one that its dialect can have."""
    low, high = form.dialect.first if form.dialect else ANY
    if (low, high) == ANY:
        return True
    rows = _read_beginning(text, form, loss_name)
    firsts = [cells.value[0] for metric, cells in rows.cells.items() if metric.is_loss]
    return all(low <= value <= high for value in firsts)


def _is_table(text: str) -> bool:
    """Return whether the first line looks like a head: several cells, and no number with decimals."""
    return bool(re.match(r"(?![^\n]*\d\.\d)[^\n,;\t|]*[,;\t|][^\n]*\n", text))


def _names(text: str, container: Container) -> Sequence[str]:
    """Return all names in the beginning of a log."""
    if container == "lines":
        reader = LineReader(Namer())
        reader.read([text])
        return tuple(reader.names)
    if container == "table":
        table = TableReader(Namer(), "")
        with contextlib.suppress(LogError):  # of a table of runs
            table.read([text])
        return tuple(table.records.names)
    found = map(record_of, text.split("\n")) if container == "records" else document_records(text)
    records = [record for record, _ in zip(filter(None, found), range(MAX_RECORDS), strict=False)]
    return tuple({name: None for record in records for name in record})


def _read_beginning(text: str, form: Form, loss_name: str | None) -> Rows:
    """Return the rows of the beginning of a log; none if it can't be read so."""
    with contextlib.suppress(ValueError, LogError):
        return read_as(form, [text], Namer(form.dialect, loss_name, form.names), "").rows
    return Rows()


def count_losses(rows: Rows) -> int:
    """Return how many rows have a loss."""
    return len(set().union(*(cells.row for metric, cells in rows.cells.items() if metric.is_loss)))


def read_as(
    form: Form, pieces: Iterable[str], namer: Namer, path: object, *, growing: bool = False
) -> Reading:
    """Read a log.

    Args:
        form: how to read it.
        pieces: its text; all of it is held at once if it is a document.
        namer: says what the names stand for.
        path: of the log, for messages.
        growing: whether it is still being written, so that its last line may be incomplete.

    Raises:
        ValueError: it can't be read as that.
        LogError: it is a table of runs.
    """
    if form.container == "lines":
        reader = LineReader(namer)
        rows = reader.read(pieces)
        return Reading(rows, tuple(reader.names), reader.notes(), reader.arguments)
    if form.container == "table":
        table = TableReader(namer, path)
        table.read(pieces, growing=growing)
        return Reading(table.records.rows, tuple(table.records.names), table.notes)
    records = RecordReader(namer, form.names)
    if form.container == "records":
        return Reading(read_records(pieces, records), tuple(records.names))
    for record in document_records("".join(pieces)):
        records.read(record)
    return Reading(records.rows, tuple(records.names))
