"""Logs that are records: objects or table rows that name their metrics; who wrote them is unknown."""

import ast
import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest
from typing import Any

from entropy_cli.commands.monitor.logs.names import metric_of, split_of
from entropy_cli.commands.monitor.logs.series import MARK, UNREADABLE, Kind, Metric, Row
from entropy_cli.commands.monitor.logs.text import decimals

STEPS = (
    "train/global_step",
    "trainer/global_step",
    "step",
    "global_step",
    "_step",
    "iteration",
    "iter",
    "itr",
    "it",
)
EPOCHS = ("train/epoch", "trainer/epoch", "epoch", "ep")
PARTS = ("mode", "split", "phase", "subset")  # columns whose text says of which data a row is
BLANK = ("", "-", "none", "null", "na", "n/a")
DELIMITERS = ",;\t|"
MANY_PASSES = 3  # of steps that begin anew, all alike: epochs, no restarts
DEEPEST = 3  # objects in objects
SUMMARY = "train_runtime"  # a key of the last record of a Hugging Face run, which repeats its mean loss
Record = Mapping[str, Any]


def read_table(text: str, chosen: str | None = None) -> Iterator[Row]:
    """Comma-separated values (or ; tab |) below a head that names the columns.

    The head may come again wherever a process started to write. A last line that was cut off is left
    out.
    """
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    delimiter = max(DELIMITERS, key=lines[0].count) if lines else ","
    head: list[str] = []
    records: list[Record] = []
    cut = _is_cut(lines, delimiter) and not text.endswith("\n")
    if cut:
        yield UNREADABLE
    if lines and not _is_text(lines[0].split(delimiter)):  # its beginning is in another file
        head = next((cells for line in lines if _is_text(cells := line.split(delimiter))), head)
    for line in csv.reader(io.StringIO("\n".join(lines[:-1] if cut else lines)), delimiter=delimiter):
        cells = [cell.strip() for cell in line]
        if not head or _is_head(cells, head):
            yield from rows_of(records, chosen)
            yield MARK
            head, records = cells, []
        elif len(cells) == len(head):
            point = [cell.replace(",", ".") for cell in cells] if delimiter == ";" else cells
            records.append(dict(zip(head, point, strict=True)))
        else:
            yield UNREADABLE
    yield from rows_of(records, chosen)


def _is_head(cells: Sequence[str], head: Sequence[str]) -> bool:
    """Whether a line names columns: it has a name of before, and no numbers."""
    return bool(set(cells) & set(head)) and _is_text(cells)


def _is_text(cells: Sequence[str]) -> bool:
    return not any(_number(cell) is not None for cell in cells)


def _is_cut(lines: Sequence[str], delimiter: str) -> bool:
    """Whether the last of some lines has fewer cells than the others, or fewer digits at its end."""
    *before, last = (line.split(delimiter) for line in lines[-6:])
    if len(lines) < 3:
        return False
    short = [decimals(cells[-1]) for cells in before if _number(cells[-1]) is not None]
    return len(last) < len(before[-1]) or (
        len(set(short)) == 1 and decimals(last[-1]) < short[0] and "e" not in before[-1][-1].lower()
    )


def read_json_lines(text: str, chosen: str | None = None) -> Iterator[Row]:
    """A JSON object, or a Python dict as it is printed, at the end of each line."""
    records: list[Record] = []
    for line in text.split("\n"):
        start = line.find("{")
        if start < 0:
            continue
        record = _parsed(line[start:].strip())
        if isinstance(record, dict):
            if SUMMARY not in record:
                records.append(_flat(record))
        else:
            yield UNREADABLE
    yield from rows_of(records, chosen)


def _parsed(text: str) -> object:
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(text)
    return None


def read_json(text: str, chosen: str | None = None) -> Iterator[Row]:
    """One JSON value: a list of records, or an object of lists as Keras keeps it."""
    value = json.loads(text)
    if isinstance(value, dict):
        lists = {name: item for name, item in value.items() if isinstance(item, list)}
        value = [dict(zip(lists, row, strict=False)) for row in zip_longest(*lists.values())]
    yield from rows_of([_flat(item) for item in value if isinstance(item, dict)], chosen)


def read_trainer_state(text: str, chosen: str | None = None) -> Iterator[Row]:
    """trainer_state.json of Hugging Face's Trainer, whose losses are cross-entropies unless changed."""
    state = json.loads(text)
    history = state.get("log_history", []) if isinstance(state, dict) else state
    records = [record for record in history if isinstance(record, dict) and SUMMARY not in record]
    yield from rows_of(records, chosen, usual="cross_entropy")


def _flat(record: Record, depth: int = DEEPEST) -> dict[str, Any]:
    """With the names of objects within it before those of their members."""
    found = {}
    for name, value in record.items():
        if isinstance(value, dict) and depth:
            found.update({f"{name}/{key}": inner for key, inner in _flat(value, depth - 1).items()})
        else:
            found[name] = value
    return found


def rows_of(records: Sequence[Record], chosen: str | None, *, usual: Kind = "loss") -> Iterator[Row]:
    """Records as rows.

    Args:
        records: their values are numbers, text, or None.
        chosen: a column to take whatever its name.
        usual: what is called a loss and nothing else.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    metrics = {name: metric for name in names if (metric := _metric(name, chosen, usual))}
    epoch, step = (_place(names, known) for known in (EPOCHS, STEPS))
    if epoch and step and any(_number(record.get(epoch)) is None for record in records):
        epoch = None  # where only some have it, it can't order them
    keys = [
        tuple(_number(record.get(name)) if name else None for name in (epoch, step))
        for record in records
    ]
    of_run, part = _is_of_run(keys), _place(names, PARTS)
    before: float | None = None
    passes = _passes([at for _, at in keys]) if step and not epoch else None
    for i, record in enumerate(records):
        when, at = keys[i]
        if of_run:  # what is said of an epoch as a whole belongs to its last step
            at = before = before if at is None else at
        if when is None and at is None:
            at = float(i)
        when = when if passes is None else passes[i]
        split = split_of(str(record.get(part) or "")) if part else "train"
        values = {}
        for name, metric in metrics.items():
            cell = record.get(name)
            number = _number(cell)
            if number is not None:
                values[replace(metric, split="val") if split == "val" else metric] = number
            elif not _is_blank(cell):
                yield UNREADABLE
        yield Row(when, at, values, of_run)


def _is_of_run(keys: Sequence[tuple[float | None, ...]]) -> bool:
    """Whether steps go on from epoch to epoch, so that they alone order the rows."""
    known = [(epoch, step) for epoch, step in keys if epoch is not None and step is not None]
    turns = [b[1] - a[1] for a, b in pairwise(known) if b[0] > a[0]]
    return bool(turns) and min(turns) > 0


def _passes(steps: Sequence[float | None]) -> list[float] | None:
    """Epochs, of steps that begin again and again after the same number of rows; else None."""
    starts = [0, *(i for i, (a, b) in enumerate(pairwise(steps), 1) if None not in (a, b) and b < a)]  # type: ignore[operator]
    lengths = {b - a for a, b in pairwise(starts)}
    if len(starts) < MANY_PASSES or len(lengths) != 1 or len({steps[i] for i in starts}) != 1:
        return None
    return [float(i // starts[1]) for i in range(len(steps))]


def _metric(name: str, chosen: str | None, usual: Kind) -> Metric | None:
    """A column as a metric; in `RUN - METRIC`, as Weights & Biases exports it, the run says nothing."""
    found = metric_of(name.rpartition(" - ")[2])
    if found is None:
        return Metric(name, split_of(name), usual) if name == chosen else None
    kind = usual if found.kind == "loss" or (name == chosen and not found.is_loss) else found.kind
    return Metric(name, found.split, kind, is_proxy=found.is_proxy)


def _place(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The name that tells where a record belongs, by what is most usual."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def _is_blank(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and cell.lower() in BLANK)


def _number(cell: object) -> float | None:
    """A number, or None; true and false are none."""
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def read_jepa_table(text: str, chosen: str | None = None) -> Iterator[Row]:
    """CSV of I-JEPA, V-JEPA and V-JEPA 2: losses against targets that a moving average makes.

    Source:
        facebookresearch/ijepa, jepa, vjepa2: src/utils/logging.py, app/vjepa/train.py.
    """
    for row in read_table(text, chosen):
        if row.values:
            row = row._replace(values={_as_proxy(metric): value for metric, value in row.values.items()})
        yield row


def _as_proxy(metric: Metric) -> Metric:
    is_loss = metric.kind in ("loss", "regulariser")
    return Metric(metric.name, metric.split, metric.kind, is_proxy=is_loss)
