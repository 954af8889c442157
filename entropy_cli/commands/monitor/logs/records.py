"""Readers of tables and JSON records with named columns, whatever program wrote them."""

import ast
import contextlib
import csv
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from entropy_cli.commands.monitor.logs.names import infer_split, metric_from_name, var_metric
from entropy_cli.commands.monitor.logs.runs import RESTART, UNREADABLE, Row
from entropy_cli.commands.monitor.logs.series import Kind, Metric
from entropy_cli.core.reading import parse_json

ITERATIONS = ("iteration", "iter", "itr", "it")
STEPS = ("train/global_step", "trainer/global_step", "step", "global_step", "_step", *ITERATIONS)
EPOCHS = ("train/epoch", "trainer/epoch", "epoch", "ep")
SPLITS = ("mode", "split", "phase", "subset")  # columns that name the split of a row
BLANK = ("", "-", "none", "null", "na", "n/a")
DELIMITERS = ",;\t|"
MIN_EPOCHS = 3  # steps that start over this often, after equal numbers of rows, are epochs
MAX_PLACE = 1e15  # larger epochs and steps are none
MAX_DEPTH = 3  # of nested objects
MAX_LITERAL = 2**16  # characters of a printed dict: parsing one takes 400 bytes of memory for each
MAX_NAME = 200  # characters of an object's name, which are repeated before all names in it
SUMMARY = "train_runtime"  # key of the last Hugging Face record, which repeats the mean loss
BARE_NONFINITE = re.compile(r"(?<=: )-?(?:nan|inf)(?=[,}])")
Record = Mapping[str, Any]


def read_table(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read delimited values (comma, semicolon, tab or |) below a header that names the columns.

    Every repeated header starts a new segment. A truncated last line is left out.
    """
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    delimiter = max(DELIMITERS, key=lines[0].count) if lines else ","
    if _is_cut(lines, delimiter) and not text.endswith("\n"):
        yield UNREADABLE
        del lines[-1]
    header: list[str] = []
    records: list[Record] = []
    if lines and not _is_text(lines[0].split(delimiter)):  # its header is further down
        header = next((cells for line in lines if _is_text(cells := line.split(delimiter))), header)
    for line in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter):
        cells = [cell.strip() for cell in line]
        if not header or (set(cells) & set(header) and _is_text(cells)):
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


def _is_text(cells: Sequence[str]) -> bool:
    return all(_parse_number(cell) is None for cell in cells)


def _is_cut(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether the last line has fewer cells than the others, or fewer digits at its end."""
    if len(lines) < 3:
        return False
    *before, last = (line.split(delimiter) for line in lines[-6:])
    digits = {_decimals(cells[-1]) for cells in before if _parse_number(cells[-1]) is not None}
    is_shorter = len(digits) == 1 and _decimals(last[-1]) < min(digits)
    return len(last) < len(before[-1]) or (is_shorter and "e" not in before[-1][-1].lower())


def _decimals(text: str) -> int:
    """Return the number of digits after the decimal point."""
    return len(text.strip().partition(".")[2])


def read_jepa_table(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read CSV of I-JEPA, V-JEPA and V-JEPA 2, whose losses have moving-average targets.

    Source:
        facebookresearch/ijepa, jepa, vjepa2: src/utils/logging.py, app/vjepa/train.py.
    """
    for row in read_table(text, loss_name):
        values = {
            replace(metric, is_proxy=metric.kind in ("loss", "regulariser")): value
            for metric, value in row.values.items()
        }
        yield row._replace(values=values) if values else row


def read_json_lines(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read a JSON object or a printed Python dict at the end of each line."""
    records: list[Record] = []
    for line in text.split("\n"):
        start = line.find("{")
        if start < 0:
            continue
        record = _record(line[start:].strip())
        if record is None:
            yield UNREADABLE
        elif SUMMARY not in record:
            records.append(_flatten(record))
    yield from build_rows(records, loss_name)


def _record(text: str) -> dict[str, Any] | None:
    """Parse a JSON object or a printed Python dict; return None for anything else."""
    record = None
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(text)
    if record is None and len(text) <= MAX_LITERAL:
        expected = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)
        with contextlib.suppress(*expected), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as \\d
            record = ast.literal_eval(text)
    if not isinstance(record, dict):
        return None
    return {name: value for name, value in record.items() if isinstance(name, str)}


def read_log_txt(text: str, _: str | None = None) -> Iterator[Row]:
    """Read log.txt of VAR: a JSON object over several lines, then one Python dict per line.

    VAR starts the file again every ten epochs. Validation values repeat until the next evaluation, so
    only changed ones are kept.

    Source:
        FoundationVision/VAR, utils/arg_util.py.
    """
    previous: dict[Metric, float] = {}
    for line in text.split("\n"):
        if line == "{":
            yield RESTART
        quoted = BARE_NONFINITE.sub(lambda match: f"'{match[0]}'", line)
        record = _record(quoted) if line.startswith("{'") else None
        if record is None or not isinstance(record.get("ep"), str):
            continue
        if (epoch := _place(record["ep"].partition("/")[0])) is None:
            yield UNREADABLE
            continue
        values = {}
        for name, cell in record.items():
            metric = Metric("tnm", kind="gradient_norm") if name == "grad_norm" else var_metric(name)
            if metric is None or cell in (None, -1):
                continue
            if (value := _parse_number(cell)) is None:
                yield UNREADABLE
            elif metric.split == "train" or previous.get(metric) != value:
                previous[metric] = values[metric] = value
        yield Row(epoch, None, values)


def read_json(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read one JSON value: a list of records, or an object of lists as Keras writes it."""
    value = parse_json(text)
    if isinstance(value, dict):
        lists = {name: item for name, item in value.items() if isinstance(item, list)}
        value = [{} for _ in range(max(map(len, lists.values()), default=0))]
        for name, cells in lists.items():  # which may be of different lengths
            for record, cell in zip(value, cells, strict=False):
                record[name] = cell
    items = value if isinstance(value, list) else []
    yield from build_rows([_flatten(item) for item in items if isinstance(item, dict)], loss_name)


def read_trainer_state(text: str, loss_name: str | None = None) -> Iterator[Row]:
    """Read trainer_state.json of Hugging Face's Trainer; its losses are taken for cross-entropies."""
    state = parse_json(text)
    history = state.get("log_history", []) if isinstance(state, dict) else state
    if not isinstance(history, list):
        raise ValueError(f"log_history is {type(history).__name__}, expected a list")
    records = [record for record in history if isinstance(record, dict) and SUMMARY not in record]
    yield from build_rows(records, loss_name, default_kind="cross_entropy")


def _flatten(record: Record, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Flatten nested objects; their names are joined with slashes."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, dict) and depth and len(name) <= MAX_NAME:
            flat |= {f"{name}/{key}": inner for key, inner in _flatten(value, depth - 1).items()}
        else:
            flat[name] = value
    return flat


def build_rows(
    records: Sequence[Record], loss_name: str | None, *, default_kind: Kind = "loss"
) -> Iterator[Row]:
    """Turn records, whose values are numbers, text or None, into rows; see `metric_from_name`."""
    names = list(dict.fromkeys(name for record in records for name in record))
    found = {name: metric_from_name(name, loss_name, default_kind) for name in names}
    metrics = {name: metric for name, metric in found.items() if metric}
    epoch, step, split = (_first_column(names, known) for known in (EPOCHS, STEPS, SPLITS))
    places = _places(records, epoch, step)
    is_global_step = _has_global_steps(places)
    last_step: float | None = None
    for record, (at_epoch, at_step) in zip(records, places, strict=True):
        if is_global_step:  # the values of a whole epoch belong to its last step
            at_step = last_step = last_step if at_step is None else at_step
        is_val = split is not None and _is_val(record.get(split))
        values = {}
        # Each record may have names of its own, or but few of many that are metrics.
        for name in metrics if len(metrics) <= len(record) else record:
            metric, cell = metrics.get(name), record.get(name)
            if metric is None:
                continue
            if (number := _parse_number(cell)) is not None:
                values[replace(metric, split="val") if is_val else metric] = number
            elif cell is not None and not (isinstance(cell, str) and cell.lower() in BLANK):
                yield UNREADABLE
        yield Row(at_epoch, at_step, values, is_global_step)


def _is_val(cell: object) -> bool:
    return isinstance(cell, str) and infer_split(cell) == "val"


def _places(
    records: Sequence[Record], epoch: str | None, step: str | None
) -> list[tuple[float | None, float | None]]:
    """Return epoch and step of each record; epochs are counted where steps start over regularly."""
    steps, epochs = (
        [_place(record.get(name)) if name else None for record in records] for name in (step, epoch)
    )
    is_counted = step is not None and None in epochs  # epochs that not all have can't order the rows
    if is_counted:
        epochs = _repeated_epochs(steps)
    return [
        (at_epoch, float(i) if at_step is None and (at_epoch is None or is_counted) else at_step)
        for i, (at_epoch, at_step) in enumerate(zip(epochs, steps, strict=True))
    ]


def _has_global_steps(places: Sequence[tuple[float | None, float | None]]) -> bool:
    """Return whether steps keep counting across epochs, so that they alone order the rows."""
    known = [(epoch, step) for epoch, step in places if epoch is not None and step is not None]
    gaps = [b[1] - a[1] for a, b in pairwise(known) if b[0] > a[0]]
    return bool(gaps) and min(gaps) > 0


def _repeated_epochs(steps: Sequence[float | None]) -> list[float | None]:
    """Count the epochs of steps that start over after equal numbers of rows; None for others."""
    pairs = enumerate(pairwise(steps), 1)
    starts = [0, *(i for i, (a, b) in pairs if a is not None and b is not None and b < a)]
    lengths = {b - a for a, b in pairwise(starts)}
    if len(starts) < MIN_EPOCHS or len(lengths) != 1 or len({steps[i] for i in starts}) != 1:
        return [None] * len(steps)
    return [float(i // starts[1]) for i in range(len(steps))]


def _first_column(names: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the column of a known name; names that come first in `known` are preferred."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def _place(cell: object) -> float | None:
    """Return a cell as an epoch or a step, or None."""
    number = _parse_number(cell)
    return number if number is not None and abs(number) < MAX_PLACE else None


def _parse_number(cell: object) -> float | None:
    """Return a cell as a number, or None; booleans are no numbers."""
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None
