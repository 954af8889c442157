"""Read records of named values: tables below a head, JSON or printed dicts per line, one document."""

import ast
import contextlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from entropy_cli.commands.monitor.logs.dialect import Dialect
from entropy_cli.commands.monitor.logs.names import Namer, infer_split, names_training
from entropy_cli.commands.monitor.logs.rows import MAX_PLACE, Rows
from entropy_cli.commands.monitor.logs.run_names import OF_RECORDS, OF_TABLES, RunNames
from entropy_cli.commands.monitor.logs.text import parse_number
from entropy_cli.core.reading import parse_json

ITERATIONS = ("iteration", "iter", "itr", "it")
STEPS = ("train/global_step", "trainer/global_step", "step", "global_step", "_step", *ITERATIONS)
EPOCHS = ("train/epoch", "trainer/epoch", "epoch", "ep")
# Names of the split of a record.
SPLITS = {"mode", "split", "phase", "subset", "partition", "set", "dataset"}
SPLITS |= {"stage", "loop", "type", "kind", "event"}
BLANK = ("", "-", "none", "null", "na", "n/a")
MAX_DEPTH = 3  # of nested objects
MAX_LITERAL = 2**16  # characters of a printed dict: parsing one takes 400 bytes of memory for each
MAX_NAME = 200  # characters of an object's name, which are repeated before all names in it
SUMMARY = "train_runtime"  # key of the last Hugging Face record, which repeats the mean loss
BARE_NONFINITE = re.compile(r"(?<=: )-?(?:nan|inf)(?=[,}])")
OBJECT = re.compile(r"\{\s*[\"'][^\"'\n]*[\"']\s*:")
Record = Mapping[str, Any]


class RecordReader:
    """Reads records into rows.

    Args:
        namer: says what names stand for.
        names: names in the log or in its beginning; those of the position are among them.
        run_names: names of columns that tell the run.
        is_document: whether it is one JSON value, in place of a record at the end of each line.

    Attributes:
        rows: what was read.
        names: all names, in their order.
        runs: whose records they are.
        notes, arguments: none.
    """

    notes: Sequence[str] = ()
    arguments: Mapping[str, str] = {}

    def __init__(
        self,
        namer: Namer,
        names: Iterable[str] = (),
        run_names: Sequence[str] = OF_RECORDS,
        *,
        is_document: bool = False,
    ) -> None:
        self.namer, self.dialect = namer, namer.dialect or Dialect("records", ())
        self.rows, self.names = Rows(), dict[str, None]()
        self.run_names, self.is_document = run_names, is_document
        self.begin(names)

    def begin(self, names: Iterable[str]) -> None:
        """Take the position from the columns of these names from here on."""
        given = dict.fromkeys(names)
        self._is_asked = not given  # for the names
        self.names |= given
        known = [name for name in given if name not in self.dialect.ignored]
        self.steps = [*self.dialect.steps] or _first(known, STEPS)
        self.epochs = [*self.dialect.epochs] or _first(known, EPOCHS)
        self.splits = [name for name in known if name.lower() in SPLITS]
        self._places = {*self.steps, *self.epochs, *self.splits}
        self._named = [name for name in known if name.lower() in OF_TABLES]  # which may be splits
        self._trained: set[str] = set()  # those of them that named the training: a run may be a test
        self.runs = RunNames([*given], self.run_names)

    def read(self, pieces: Iterable[str]) -> Rows:
        """Read a log.

        Raises:
            ValueError: a document is no JSON.
        """
        for record in document_records("".join(pieces)) if self.is_document else self._records(pieces):
            self.take(record)
        return self.rows

    def _records(self, pieces: Iterable[str]) -> Iterator[Record]:
        """Yield the JSON object or the printed Python dict at the end of each line."""
        starts = self.dialect.starts
        for line in chain.from_iterable(piece.split("\n") for piece in pieces):
            if starts and starts in line:
                self.rows.restart()
            record = record_of(line)
            if record is None:
                self.rows.unreadable += bool(OBJECT.search(line))
            elif SUMMARY not in record:
                yield record

    def take(self, record: Record) -> None:
        """Take a record, whose values are numbers, text or None."""
        values = []
        if self._is_asked:
            self.names |= dict.fromkeys(record)
        is_val = self._is_val(record)
        for name, cell in record.items():
            metric = None if name in self._places else self.namer.metric(name)
            if metric is None:
                continue
            number = parse_number(cell)
            if number is None:
                is_blank = cell is None or (isinstance(cell, str) and cell.lower() in BLANK)
                self.rows.unreadable += not (is_blank or metric.kind == "other")
            elif number not in self.dialect.placeholders:
                is_trained = not is_val or names_training(name)
                values.append((metric if is_trained else replace(metric, split="val"), number))
        if values:
            self.runs.count(record)
        epoch, step = (
            next((_place(record[name]) for name in names if record.get(name) is not None), None)
            for names in (self.epochs, self.steps)
        )
        self.rows.add(epoch, step, values)

    def _is_val(self, record: Record) -> bool:
        """Return whether a record is of validation: {"type": "eval", "loss": 2.5}."""
        for name in self._named:
            if isinstance(cell := record.get(name), str) and names_training(cell):
                self._trained.add(name)
        cells = [record.get(name) for name in (*self.splits, *self._trained)]
        return any(isinstance(cell, str) and infer_split(cell) == "val" for cell in cells)


def record_of(line: str) -> dict[str, Any] | None:
    """Return the flattened object at the end of a line; None if there is none."""
    start = line.find("{")
    if start < 0:
        return None
    record, text = None, line[start:].strip()
    if not text.endswith("}"):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(text)
    if record is None and len(text) <= MAX_LITERAL:
        expected = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)
        quoted = BARE_NONFINITE.sub(lambda match: f"'{match[0]}'", text)
        with contextlib.suppress(*expected), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as \\d
            record = ast.literal_eval(quoted)
    return flatten(record) if isinstance(record, dict) else None


def flatten(record: Mapping[Any, Any], depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Flatten nested objects; their names are joined with slashes."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, dict) and depth and len(name) <= MAX_NAME:
            flat |= {f"{name}/{key}": inner for key, inner in flatten(value, depth - 1).items()}
        else:
            flat[name] = value
    return flat


def document_records(text: str) -> Iterator[dict[str, Any]]:
    """Yield the records of one JSON value: a list of them, an object of lists, or a trainer's state.

    Raises:
        ValueError: it is not JSON, or its log_history is no list.
    """
    value = parse_json(text)
    if isinstance(value, dict) and "log_history" in value:
        value = value["log_history"]
        if not isinstance(value, list):
            raise ValueError(f"log_history is {type(value).__name__}, expected a list")
    if isinstance(value, dict):
        lists = {name: item for name, item in flatten(value).items() if isinstance(item, list)}
        of_records = [item for item in lists.values() if item and isinstance(item[0], dict)]
        value = max(of_records, key=len, default=None)
        if value is None:  # as Keras writes it
            value = [{} for _ in range(max(map(len, lists.values()), default=0))]
            for name, cells in lists.items():  # which may be of different lengths
                for record, cell in zip(value, cells, strict=False):
                    record[name] = cell
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and SUMMARY not in item:
            yield flatten(item)


def _first(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return the name that comes first in `known`, in a list; none if none is known."""
    lower = {name.lower(): name for name in reversed(list(names))}
    return [lower[name] for name in known if name in lower][:1]


def _place(cell: object) -> float | None:
    """Return a cell such as 7 or 7/200 as an epoch or a step, or None."""
    number = parse_number(cell.partition("/")[0] if isinstance(cell, str) else cell)
    return number if number is not None and abs(number) < MAX_PLACE else None
