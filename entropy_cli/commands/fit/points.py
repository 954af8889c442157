"""Read the points of a scaling law from a table. Imports no torch."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import JSON_BYTES, read_stream

SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
MULTIPLES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "mio": 1e6, "b": 1e9, "g": 1e9}
MULTIPLES |= {"bn": 1e9, "billion": 1e9, "t": 1e12, "trillion": 1e12}
NUMBER = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmbgt]?)", re.IGNORECASE | re.ASCII)
THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3}){2,}", re.ASCII)
# Names in lower case without spaces, signs and units in brackets.
KNOWN_NAMES = {
    "size": ("n", "size", "modelsize", "params", "parameters", "nparams", "nparameters", "numparams"),
    "data size": ("d", "datasize", "tokens", "traintokens", "trainingtokens", "ntokens", "datasetsize"),
    "flop": ("c", "flop", "flops", "trainingflop", "trainingflops", "trainflops", "compute"),
    "loss": ("l", "loss", "valloss", "validationloss", "testloss", "finalloss", "crossentropy", "ce"),
}
MIN_VALUE, MAX_VALUE = 1e-12, 1e36  # beyond is a typo, and powers overflow
STEP_NAMES = re.compile(r"(global|train|training|num|n)?(steps?|iters?|iterations?|epochs?|updates?)")
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Columns:
    """Names of columns; None if detected by name, or not used."""

    size: str | None = None
    data_size: str | None = None
    flop: str | None = None
    loss: str | None = None


@dataclass(frozen=True)
class Point:
    """A trained model.

    Attributes:
        size: number of parameters.
        data_size: training tokens; None if the form does not use them.
        loss: in nats per token.
        line: line in the table, from 1.
    """

    size: float
    data_size: float | None
    loss: float
    line: int


@dataclass(frozen=True)
class PointTable:
    """The points of a table, and the columns they are from.

    Attributes:
        steps: whether the sizes are training steps by the name of their column.
    """

    points: list[Point]
    columns: Columns
    steps: bool


def read_points(path: Path, columns: Columns, *, with_data_size: bool) -> PointTable:
    """Read a table with a header, delimited by commas, semicolons or tabs; # starts a comment line.

    Args:
        path: of the table.
        columns: columns to read; the others are detected by name.
        with_data_size: whether to read data sizes, from their column or as FLOP / (6 size).

    Raises:
        DatasetError: it can't be read, a column is missing or ambiguous, or a cell is not a positive
            number.
    """
    rows = _rows(path)
    if not rows:
        raise DatasetError(f"{path}: empty. Expected a header and a line for each model.")
    (_, header), *body = rows
    found = _columns(path, header, columns, with_data_size=with_data_size)
    place = {name: header.index(name) for name in header}
    points = []
    for line, row in body:
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, line {line}: {len(row)} cells, but the header has {len(header)}. "
                "Fix the line, or quote cells with commas."
            )
        cells = {name: (row[at], f"{path}, line {line}, column {name!r}") for name, at in place.items()}
        points.append(_point(cells, found, line))
    if not points:
        raise DatasetError(f"{path}: a header but no points. Expected a line for each model.")
    return PointTable(points, found, _is_step_column(found.size))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the stripped cells of each row, with the line number it ends in."""
    try:
        text = read_stream(path, JSON_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text. Save the table as CSV in UTF-8.") from error
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}.") from error
    lines = text.splitlines()
    # Comments and blank lines become empty, which keeps the line numbers.
    kept = ["" if not line.strip() or line.lstrip().startswith("#") else line for line in lines]
    header = next((line for line in kept if line), "")
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(kept, delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: not CSV: {error}. Fix the line.") from error
    return rows


def _columns(path: Path, header: Sequence[str], requested: Columns, *, with_data_size: bool) -> Columns:
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        raise DatasetError(f"{path}: the column {duplicates[0]!r} exists twice. Rename one.")
    size = _column(path, header, "size", requested.size, "--size")
    loss = _column(path, header, "loss", requested.loss, "--loss")
    data_size, flop = requested.data_size, requested.flop
    if with_data_size:
        if data_size is not None or flop is None:
            data_size = _column(path, header, "data size", data_size, "--data-size", needed=False)
        if data_size is None:
            flop = _column(path, header, "flop", flop, "--flop", needed=False)
        if data_size is None and flop is None:
            raise DatasetError(
                f"{path}: no column is named as a data size or training FLOP; it has "
                f"{_quote_names(header)}. Give --data-size or --flop."
            )
    else:
        data_size = flop = None
    found = Columns(size, data_size, flop, loss)
    named = [name for name in (size, data_size, flop, loss) if name is not None]
    if len(set(named)) < len(named):
        raise DatasetError(
            f"{path}: one column can't be two of size, data, FLOP and loss: {named}. Give another."
        )
    return found


def _column(
    path: Path,
    header: Sequence[str],
    kind: str,
    requested: str | None,
    option: str,
    *,
    needed: bool = True,
) -> str | None:
    if requested is not None:
        exact = [name for name in header if name == requested]
        similar = exact or [name for name in header if _normalize(name) == _normalize(requested)]
        if len(similar) != 1:
            raise DatasetError(
                f"{path}: no column {requested!r} for {option}; it has {_quote_names(header)}."
            )
        return similar[0]
    matches = [name for name in header if _normalize(name) in KNOWN_NAMES[kind]]
    if not matches and kind == "size":
        matches = [name for name in header if _is_step_column(name)]
    if len(matches) > 1:
        raise DatasetError(
            f"{path}: {_quote_names(matches)} could all be the {kind}. Give one of them with {option}."
        )
    if not matches and needed:
        raise DatasetError(
            f"{path}: no column is named as a {kind}; it has {_quote_names(header)}. Give {option}."
        )
    return matches[0] if matches else None


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[(\[].*?[)\]]", "", name.lower()))


def _is_step_column(name: str | None) -> bool:
    return name is not None and STEP_NAMES.fullmatch(_normalize(name)) is not None


def _quote_names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _point(cells: dict[str, tuple[str, str]], columns: Columns, line: int) -> Point:
    assert columns.size is not None and columns.loss is not None
    size = _number(*cells[columns.size]) * _unit_factor(columns.size)
    loss = _number(*cells[columns.loss], suffixed=False) * _nats_per_unit(columns.loss)
    data_size = None
    if columns.data_size is not None:
        data_size = _number(*cells[columns.data_size]) * _unit_factor(columns.data_size)
    elif columns.flop is not None:
        data_size = _number(*cells[columns.flop]) * _unit_factor(columns.flop) / (6 * size)
    return Point(size, data_size, loss, line)


def _unit(name: str) -> str:
    """Return the unit in brackets in a column's name, or an empty string."""
    found = re.search(r"[(\[](.*?)[)\]]", name.lower())
    return "" if found is None else found[1].strip()


def _unit_factor(name: str) -> float:
    """Return the factor of a column's unit, as in `params (M)` or `tokens [billions]`."""
    word = _unit(name).split(" ")[0].removesuffix("s")
    return MULTIPLES.get(word, 1.0)


def _nats_per_unit(name: str) -> float:
    """Return the nats per unit of a loss column.

    Raises:
        DatasetError: the unit is bits, but not bits per token.
    """
    unit = _unit(name)
    if "bit" not in unit:
        return 1.0
    if "per" in unit and "token" not in unit:
        raise DatasetError(f"column {name!r}: got {unit}, expected nats or bits per token. Convert it.")
    return math.log(2)


def _number(text: str, where: str, *, suffixed: bool = True) -> float:
    """Parse a cell; commas only in integers such as 310,000,000, because 0,5 and 5,123 are decimals."""
    plain = text.replace(",", "") if suffixed and THOUSANDS.fullmatch(text) else text
    match = NUMBER.fullmatch(plain)
    if match and (suffixed or not match[2]):
        value = float(match[1]) * SUFFIXES[match[2].upper()]
        if MIN_VALUE <= value <= MAX_VALUE:
            return value
    also = " with a point, or such as 310M or 2.0B" if suffixed else " with a point, such as 5.05"
    raise DatasetError(f"{where}: got {text or 'nothing'!r}, expected a positive number{also}.")
