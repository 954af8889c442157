"""Readers of tables and JSON records with named columns, whatever program wrote them."""

import ast
import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest
from typing import Any

from entropy_cli.commands.monitor.logs.names import infer_split, metric_from_name
from entropy_cli.commands.monitor.logs.series import RESTART, UNREADABLE, Kind, Metric, Row
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
SPLITS = ("mode", "split", "phase", "subset")  # columns that name the split of a row
BLANK = ("", "-", "none", "null", "na", "n/a")
DELIMITERS = ",;\t|"
MIN_EPOCHS = 3  # steps that start over this often, after equal numbers of rows, are epochs
MAX_DEPTH = 3  # of nested objects
SUMMARY = "train_runtime"  # key of the last Hugging Face record, which repeats the mean loss
Record = Mapping[str, Any]


def read_table(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read delimited values (comma, semicolon, tab or |) below a header that names the columns.

    Every repeated header starts a new segment. A truncated last line is left out.
    """
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    delimiter = max(DELIMITERS, key=lines[0].count) if lines else ","
    header: list[str] = []
    records: list[Record] = []
    truncated = _is_cut(lines, delimiter) and not text.endswith("\n")
    if truncated:
        yield UNREADABLE
    if lines and not _is_text(lines[0].split(delimiter)):  # its header is further down
        header = next((cells for line in lines if _is_text(cells := line.split(delimiter))), header)
    for line in csv.reader(
        io.StringIO("\n".join(lines[:-1] if truncated else lines)), delimiter=delimiter
    ):
        cells = [cell.strip() for cell in line]
        if not header or _is_header(cells, header):
            yield from build_rows(records, loss_name)
            yield RESTART
            header, records = cells, []
        elif len(cells) == len(header):
            if delimiter == ";":
                cells = [cell.replace(",", ".") for cell in cells]
            records.append(dict(zip(header, cells, strict=True)))
        else:
            yield UNREADABLE
    yield from build_rows(records, loss_name)


def _is_header(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Return whether a line repeats the header: it shares a name with it and has no numbers."""
    return bool(set(cells) & set(header)) and _is_text(cells)


def _is_text(cells: Sequence[str]) -> bool:
    return not any(_parse_number(cell) is not None for cell in cells)


def _is_cut(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether the last line has fewer cells than the others, or fewer digits at its end."""
    *before, last = (line.split(delimiter) for line in lines[-6:])
    if len(lines) < 3:
        return False
    digits = [decimals(cells[-1]) for cells in before if _parse_number(cells[-1]) is not None]
    return len(last) < len(before[-1]) or (
        len(set(digits)) == 1 and decimals(last[-1]) < digits[0] and "e" not in before[-1][-1].lower()
    )


def read_json_lines(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read a JSON object or a printed Python dict at the end of each line."""
    records: list[Record] = []
    for line in text.split("\n"):
        start = line.find("{")
        if start < 0:
            continue
        record = _parse(line[start:].strip())
        if isinstance(record, dict):
            if SUMMARY not in record:
                records.append(_flatten(record))
        else:
            yield UNREADABLE
    yield from build_rows(records, loss_name)


def _parse(text: str) -> object:
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(text)
    return None


def read_json(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read one JSON value: a list of records, or an object of lists as Keras writes it."""
    value = json.loads(text)
    if isinstance(value, dict):
        lists = {name: item for name, item in value.items() if isinstance(item, list)}
        value = [dict(zip(lists, row, strict=False)) for row in zip_longest(*lists.values())]
    yield from build_rows([_flatten(item) for item in value if isinstance(item, dict)], loss_name)


def read_trainer_state(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read trainer_state.json of Hugging Face's Trainer; its losses are taken for cross-entropies."""
    state = json.loads(text)
    history = state.get("log_history", []) if isinstance(state, dict) else state
    records = [record for record in history if isinstance(record, dict) and SUMMARY not in record]
    yield from build_rows(records, loss_name, default_kind="cross_entropy")


def _flatten(record: Record, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Flatten nested objects; their names are joined with slashes."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and depth:
            flat |= {f"{name}/{key}": inner for key, inner in _flatten(value, depth - 1).items()}
        else:
            flat[name] = value
    return flat


def build_rows(
    records: Sequence[Record], loss_name: str | None, *, default_kind: Kind = "loss"
) -> Iterator[Row]:
    """Turn records into rows.

    Args:
        records: values are numbers, text or None.
        loss_name: a column to read as a loss whatever its name.
        default_kind: kind of a column that is named a loss and nothing more.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    metrics = {name: metric for name in names if (metric := _metric(name, loss_name, default_kind))}
    epoch, step = (_first_column(names, known) for known in (EPOCHS, STEPS))
    if epoch and step and any(_parse_number(record.get(epoch)) is None for record in records):
        epoch = None  # only some records have one, so it can't order them
    keys = [
        tuple(_parse_number(record.get(name)) if name else None for name in (epoch, step))
        for record in records
    ]
    is_global_step, split_column = _has_global_steps(keys), _first_column(names, SPLITS)
    last_step: float | None = None
    epochs = _repeated_epochs([at_step for _, at_step in keys]) if step and not epoch else None
    for i, record in enumerate(records):
        at_epoch, at_step = keys[i]
        if is_global_step:  # the values of a whole epoch belong to its last step
            at_step = last_step = last_step if at_step is None else at_step
        if at_epoch is None and at_step is None:
            at_step = float(i)
        at_epoch = at_epoch if epochs is None else epochs[i]
        split = infer_split(str(record.get(split_column) or "")) if split_column else "train"
        values = {}
        for name, metric in metrics.items():
            cell = record.get(name)
            number = _parse_number(cell)
            if number is not None:
                values[replace(metric, split="val") if split == "val" else metric] = number
            elif not _is_blank(cell):
                yield UNREADABLE
        yield Row(at_epoch, at_step, values, is_global_step)


def _has_global_steps(keys: Sequence[tuple[float | None, ...]]) -> bool:
    """Return whether steps keep counting across epochs, so that they alone order the rows."""
    known = [(epoch, step) for epoch, step in keys if epoch is not None and step is not None]
    gaps = [b[1] - a[1] for a, b in pairwise(known) if b[0] > a[0]]
    return bool(gaps) and min(gaps) > 0


def _repeated_epochs(steps: Sequence[float | None]) -> list[float] | None:
    """Count the epochs of steps that start over after equal numbers of rows; None for others."""
    starts = [0, *(i for i, (a, b) in enumerate(pairwise(steps), 1) if None not in (a, b) and b < a)]  # type: ignore[operator]
    lengths = {b - a for a, b in pairwise(starts)}
    if len(starts) < MIN_EPOCHS or len(lengths) != 1 or len({steps[i] for i in starts}) != 1:
        return None
    return [float(i // starts[1]) for i in range(len(steps))]


def _metric(name: str, loss_name: str | None, default_kind: Kind) -> Metric | None:
    """Return the metric of a column; `RUN - METRIC` of Weights & Biases is read as METRIC."""
    found = metric_from_name(name.rpartition(" - ")[2])
    if found is None:
        return Metric(name, infer_split(name), default_kind) if name == loss_name else None
    kind = (
        default_kind if found.kind == "loss" or (name == loss_name and not found.is_loss) else found.kind
    )
    return Metric(name, found.split, kind, is_proxy=found.is_proxy)


def _first_column(names: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the column of a known name; names that come first in `known` are preferred."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def _is_blank(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and cell.lower() in BLANK)


def _parse_number(cell: object) -> float | None:
    """Return a cell as a number, or None; booleans are no numbers."""
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def read_jepa_table(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read CSV of I-JEPA, V-JEPA and V-JEPA 2, whose losses have moving-average targets.

    Source:
        facebookresearch/ijepa, jepa, vjepa2: src/utils/logging.py, app/vjepa/train.py.
    """
    for row in read_table(text, loss_name):
        if row.values:
            row = row._replace(values={_as_proxy(metric): value for metric, value in row.values.items()})
        yield row


def _as_proxy(metric: Metric) -> Metric:
    is_loss = metric.kind in ("loss", "regulariser")
    return Metric(metric.name, metric.split, metric.kind, is_proxy=is_loss)
