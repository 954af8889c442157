"""Find where the values of a log stand, and its dialect, from its beginning; choose what reads it."""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from entropy_cli.commands.monitor.logs.dialect import ANY, Container, Dialect
from entropy_cli.commands.monitor.logs.dialects import DIALECTS
from entropy_cli.commands.monitor.logs.lines import LineReader
from entropy_cli.commands.monitor.logs.names import Namer
from entropy_cli.commands.monitor.logs.records import RecordReader
from entropy_cli.commands.monitor.logs.rows import Rows
from entropy_cli.commands.monitor.logs.table import TableReader

# The names of logs without a known dialect, by where their values stand.
PLAIN: Mapping[str, Container] = {"jsonl": "records", "csv": "table", "text": "lines"}
DOCUMENT = re.compile(r'\s*(?:\[\s*\{|\{\s*\n|\{\s*"[^"\n]+"\s*:\s*\[)')
Reader = LineReader | TableReader | RecordReader


class Form(NamedTuple):
    """Say how a log is to be read."""

    name: str  # of the dialect, or of the container if it is not known
    container: Container
    dialect: Dialect | None
    names: Sequence[str]  # in the beginning of the log


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
    reader = reader_of(container, Namer())
    reader.read([text])
    names = tuple(reader.names)
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


def _read_beginning(text: str, form: Form, loss_name: str | None) -> Rows:
    """Return the rows of the beginning of a log; none if it can't be read so."""
    with contextlib.suppress(ValueError):
        return reader_of(form.container, Namer(form.dialect, loss_name, form.names), form.names).read(
            [text]
        )
    return Rows()


def count_losses(rows: Rows) -> int:
    """Return how many rows have a loss."""
    return len(set().union(*(cells.row for metric, cells in rows.cells.items() if metric.is_loss)))


def reader_of(
    container: Container,
    namer: Namer,
    names: Iterable[str] = (),
    *,
    growing: bool = False,
) -> Reader:
    """Return what reads a log.

    Args:
        container: where its values stand.
        namer: says what the names stand for.
        names: in its beginning, if they are known.
        growing: whether it is still being written, so that its last line may be incomplete.
    """
    if container == "lines":
        return LineReader(namer)
    if container == "table":
        return TableReader(namer, growing=growing)
    return RecordReader(namer, names, is_document=container == "document")
