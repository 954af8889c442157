"""Points of a scaling law from a table: which column is what, and cells as numbers. Imports no torch."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.files import read_once

SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
MULTIPLES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "mio": 1e6, "b": 1e9, "g": 1e9}
MULTIPLES |= {"bn": 1e9, "billion": 1e9, "t": 1e12, "trillion": 1e12}
NUMBER = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmbgt]?)", re.IGNORECASE | re.ASCII)
THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3}){2,}", re.ASCII)
# Names without case, spaces and signs; a unit in brackets is no part of them.
KNOWN = {
    "size": ("n", "size", "modelsize", "params", "parameters", "nparams", "nparameters", "numparams"),
    "data size": ("d", "datasize", "tokens", "traintokens", "trainingtokens", "ntokens", "datasetsize"),
    "flop": ("c", "flop", "flops", "trainingflop", "trainingflops", "trainflops", "compute"),
    "loss": ("l", "loss", "valloss", "validationloss", "testloss", "finalloss", "crossentropy", "ce"),
}
LEAST, MOST = 1e-12, 1e36  # of any number: beyond it is a slip, and powers leave the range of floats
STEPS = re.compile(r"(global|train|training|num|n)?(steps?|iters?|iterations?|epochs?|updates?)")
SNIFFED = ",;\t"


@dataclass(frozen=True)
class Columns:
    """Names of columns, None for those to be found by name or not to be read."""

    size: str | None = None
    data_size: str | None = None
    flop: str | None = None
    loss: str | None = None


@dataclass(frozen=True)
class Point:
    """A model that was trained.

    Attributes:
        size: its parameters.
        data_size: tokens that it saw; None where the form does not ask.
        loss: in nats per token.
        line: of the table, from 1.
    """

    size: float
    data_size: float | None
    loss: float
    line: int


@dataclass(frozen=True)
class PointTable:
    """What a table holds, and from which columns.

    Attributes:
        steps: whether the sizes are steps of a training by their column's name.
    """

    points: list[Point]
    columns: Columns
    steps: bool


def read_points(path: Path, columns: Columns, *, with_data_size: bool) -> PointTable:
    """Read a table with a head; commas, semicolons or tabs between, lines with # are comments.

    Args:
        path: of the table.
        columns: which to read; the others are found by name.
        with_data_size: whether the data sizes are wanted, from their column or as FLOP / (6 size).

    Raises:
        DatasetError: it can't be read, a column is missing or ambiguous, or a cell is no such number.
    """
    rows = _rows(path)
    if not rows:
        raise DatasetError(f"{path}: is empty. Expected a head and a line for each model.")
    (_, head), *body = rows
    found = _columns(path, head, columns, with_data_size=with_data_size)
    place = {name: head.index(name) for name in head}
    points = []
    for line, row in body:
        if len(row) != len(head):
            raise DatasetError(
                f"{path}, line {line}: {len(row)} cells, but the head has {len(head)}. "
                "Mend the line, or quote cells with commas."
            )
        cells = {name: (row[at], f"{path}, line {line}, column {name!r}") for name, at in place.items()}
        points.append(_point(cells, found, line))
    if not points:
        raise DatasetError(f"{path}: has a head but no points. Expected a line for each model.")
    return PointTable(points, found, _names_steps(found.size))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Cells without spaces around, with the line that each row ends in."""
    try:
        text = read_once(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is no text in UTF-8. Save the table as CSV in UTF-8.") from error
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}.") from error
    lines = text.splitlines()
    # Comments and blank lines become empty, so that the numbers of lines stay.
    kept = ["" if not line.strip() or line.lstrip().startswith("#") else line for line in lines]
    head = next((line for line in kept if line), "")
    delimiter = max(SNIFFED, key=head.count)
    reader = csv.reader(kept, delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: is no CSV: {error}.") from error
    return rows


def _columns(path: Path, head: Sequence[str], given: Columns, *, with_data_size: bool) -> Columns:
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice:
        raise DatasetError(f"{path}: the column {twice[0]!r} is there twice. Rename one.")
    size = _column(path, head, "size", given.size, "--size")
    loss = _column(path, head, "loss", given.loss, "--loss")
    data_size, flop = given.data_size, given.flop
    if with_data_size:
        if data_size is not None or flop is None:
            data_size = _column(path, head, "data size", data_size, "--data-size", needed=False)
        if data_size is None:
            flop = _column(path, head, "flop", flop, "--flop", needed=False)
        if data_size is None and flop is None:
            raise DatasetError(
                f"{path}: no column is a data size or training FLOP by its name; there are "
                f"{_listed(head)}. Give --data-size or --flop."
            )
    else:
        data_size = flop = None
    found = Columns(size, data_size, flop, loss)
    named = [name for name in (size, data_size, flop, loss) if name is not None]
    if len(set(named)) < len(named):
        raise DatasetError(f"{path}: one column can't be two of size, data, FLOP and loss: {named}.")
    return found


def _column(
    path: Path, head: Sequence[str], what: str, given: str | None, option: str, *, needed: bool = True
) -> str | None:
    if given is not None:
        exact = [name for name in head if name == given]
        alike = exact or [name for name in head if _bare(name) == _bare(given)]
        if len(alike) != 1:
            raise DatasetError(f"{path}: has no column {given!r} for {option}, but {_listed(head)}.")
        return alike[0]
    matching = [name for name in head if _bare(name) in KNOWN[what]]
    if not matching and what == "size":
        matching = [name for name in head if _names_steps(name)]
    if len(matching) > 1:
        raise DatasetError(
            f"{path}: {_listed(matching)} could all be the {what}. Give {option} with one of them."
        )
    if not matching and needed:
        raise DatasetError(
            f"{path}: no column is a {what} by its name; there are {_listed(head)}. Give {option}."
        )
    return matching[0] if matching else None


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[(\[].*?[)\]]", "", name.lower()))


def _names_steps(name: str | None) -> bool:
    return name is not None and STEPS.fullmatch(_bare(name)) is not None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _point(cells: dict[str, tuple[str, str]], columns: Columns, line: int) -> Point:
    assert columns.size is not None and columns.loss is not None
    size = _number(*cells[columns.size]) * _multiple(columns.size)
    loss = _number(*cells[columns.loss], suffixed=False) * _nats(columns.loss)
    data_size = None
    if columns.data_size is not None:
        data_size = _number(*cells[columns.data_size]) * _multiple(columns.data_size)
    elif columns.flop is not None:
        data_size = _number(*cells[columns.flop]) * _multiple(columns.flop) / (6 * size)
    return Point(size, data_size, loss, line)


def _unit(name: str) -> str:
    """What a column's name has in brackets."""
    found = re.search(r"[(\[](.*?)[)\]]", name.lower())
    return "" if found is None else found[1].strip()


def _multiple(name: str) -> float:
    """How many a one in this column is: `params (M)`, `tokens [billions]`."""
    word = _unit(name).split(" ")[0].removesuffix("s")
    return MULTIPLES.get(word, 1.0)


def _nats(name: str) -> float:
    """How many nats a unit of a loss is.

    Raises:
        DatasetError: it is of bits, but not of bits per token.
    """
    unit = _unit(name)
    if "bit" not in unit:
        return 1.0
    if "per" in unit and "token" not in unit:
        raise DatasetError(f"column {name!r}: {unit} are no nats per token. Convert them.")
    return math.log(2)


def _number(text: str, where: str, *, suffixed: bool = True) -> float:
    """A cell's value; commas only in whole numbers such as 310,000,000: 0,5 or 5,123 are decimals."""
    plain = text.replace(",", "") if suffixed and THOUSANDS.fullmatch(text) else text
    match = NUMBER.fullmatch(plain)
    if match and (suffixed or not match[2]):
        value = float(match[1]) * SUFFIXES[match[2].upper()]
        if LEAST <= value <= MOST:
            return value
    also = " with a point, or such as 310M or 2.0B" if suffixed else " with a point, such as 5.05"
    raise DatasetError(f"{where}: got {text or 'nothing'!r}, expected a positive number{also}.")
