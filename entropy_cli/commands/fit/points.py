"""Read the points of a scaling law from a table. Imports no torch."""

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import JSON_BYTES, read_stream

WORDS = {1e3: "k thousand", 1e6: "m million mio", 1e9: "b bn billion g", 1e12: "t trillion"}
MULTIPLES = {word: factor for factor, words in WORDS.items() for word in words.split()}
NUMBER = re.compile(r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([kmbgt]?)", re.IGNORECASE | re.ASCII)
THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3}){2,}", re.ASCII)
# Names of the columns of each kind, in lower case without spaces, signs and units in brackets.
KNOWN_NAMES = {
    "size": ("n", "size", "modelsize", "params", "parameters", "nparams", "nparameters", "numparams"),
    "data size": ("d", "datasize", "tokens", "traintokens", "trainingtokens", "ntokens", "datasetsize"),
    "FLOP": ("c", "flop", "flops", "trainingflop", "trainingflops", "trainflops", "compute"),
    "loss": ("l", "loss", "valloss", "validationloss", "testloss", "finalloss", "crossentropy", "ce"),
}
MOST_POINTS = 5000  # whose fit takes ten seconds
SAME = 1e-9  # relative difference of data sizes that are the same but for rounding
MIN_VALUE, MAX_VALUE = 1e-12, 1e36  # beyond is a typo, and powers overflow
STEP_NAMES = re.compile(r"(global|train|training|num|n)?(steps?|iters?|iterations?|epochs?|updates?)")
DELIMITERS = ",;\t"
BRACKETS = re.compile(r"[(\[](.*?)[)\]]")
SHOWN = 12, 40  # names, and characters of a cell, in a message


@dataclass(frozen=True)
class Points:
    """Trained models.

    Attributes:
        size_TP: number of parameters and, if read, of training tokens, (T, P).
        loss_P: in nats per token, (P,).
        where: for each point the file, and the line in a table, P texts.
        columns: name of the column of each kind.
    """

    size_TP: np.ndarray
    loss_P: np.ndarray
    where: tuple[str, ...]
    columns: dict[str, str]

    def select(self, keep_P: np.ndarray) -> "Points":
        """Return some of the points, by index."""
        where = tuple(self.where[i] for i in keep_P.tolist())
        return Points(self.size_TP[:, keep_P], self.loss_P[keep_P], where, self.columns)

    @property
    def are_steps(self) -> bool:
        """Return whether the sizes are training steps, by the name of their column."""
        return _is_step_column(self.columns["size"])


def read_points(path: Path, columns: Mapping[str, str | None], *, with_data_size: bool | None) -> Points:
    """Read a table with a header, delimited by commas, semicolons or tabs; # starts a comment line.

    Args:
        path: of the table.
        columns: the column to read of each kind in KNOWN_NAMES; the others are detected by name.
        with_data_size: whether to read data sizes, from their column or as FLOP / (6 size); None reads
            them where the table has them, and they are not all the same.

    Raises:
        DatasetError: it can't be read, a column is missing or ambiguous, or a cell is not a positive
            number.
    """
    rows = _rows(path)
    if not rows:
        raise DatasetError(f"{path}: empty. Expected a header and a line for each model.")
    (_, header), *body = rows
    if not body:
        raise DatasetError(f"{path}: a header but no points. Expected a line for each model.")
    if len(body) > MOST_POINTS:
        raise DatasetError(
            f"{path}: {len(body):,} points, expected at most {MOST_POINTS:,}. Give one for each trained "
            "model, not for each step."
        )
    found = _columns(path, header, columns, with_data_size=with_data_size)
    values = []
    for line, row in body:
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, line {line}: {len(row)} cells, but the header has {len(header)}. "
                "Fix the line, or quote cells with commas."
            )
        cells, where = dict(zip(header, row, strict=True)), f"{path}, line {line}"
        values.append([_value(kind, name, cells[name], where) for kind, name in found.items()])
    value = dict(zip(found, np.array(values).T, strict=True))
    sizes = [value["size"]]
    if {"data size", "FLOP"} & set(found):
        sizes.append(value["data size"] if "data size" in value else value["FLOP"] / (6 * sizes[0]))
    if with_data_size is None and len(sizes) > 1 and np.ptp(sizes[1]) <= SAME * sizes[1].max():
        del sizes[1]
        found = {kind: name for kind, name in found.items() if kind in ("size", "loss")}
    lines = tuple(f"{path}, line {line}" for line, _ in body)
    return Points(np.stack(sizes), value["loss"], lines, found)


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


def _columns(
    path: Path,
    header: Sequence[str],
    requested: Mapping[str, str | None],
    *,
    with_data_size: bool | None,
) -> dict[str, str]:
    """Return the name of the column of each kind; either of data size and FLOP, if with_data_size.

    None of `with_data_size` takes them where they are.
    """
    repeated = [name for name, times in Counter(header).items() if times > 1]
    if repeated:
        raise DatasetError(f"{path}: the column {_quote(repeated[:1])} exists twice. Rename one.")
    groups: list[tuple[str, ...]] = [("size",), ("loss",)]
    if with_data_size is not False:
        groups.insert(1, ("FLOP",) if requested.get("FLOP") else ("data size", "FLOP"))
    found: dict[str, str] = {}
    for kinds in groups:
        pairs = ((kind, name) for kind in kinds for name in _named(path, header, kind, requested))
        pair = next(pairs, None)
        if pair is None and with_data_size is None and "FLOP" in kinds:
            continue
        if pair is None:
            raise DatasetError(
                f"{path}: no column is named as a {' or '.join(kinds)}; it has {_quote(header)}. "
                f"Give {' or '.join(map(_option, kinds))}."
            )
        found.update([pair])
    if len(set(found.values())) < len(found):
        raise DatasetError(
            f"{path}: one column can't be two of size, data, FLOP and loss: {list(found.values())}. "
            "Give another."
        )
    return found


def _named(
    path: Path, header: Sequence[str], kind: str, requested: Mapping[str, str | None]
) -> list[str]:
    """Return the column of a kind that is requested, or is known by its name; empty if there is none."""
    name = requested.get(kind)
    if name is not None:
        matches, wanted = [column for column in header if column == name], _normalize(name)
        matches = matches or [column for column in header if _normalize(column) == wanted]
        if len(matches) != 1:
            raise DatasetError(
                f"{path}: no column {name!r} for {_option(kind)}; it has {_quote(header)}."
            )
        return matches
    matches = [column for column in header if _normalize(column) in KNOWN_NAMES[kind]]
    if not matches and kind == "size":
        matches = [column for column in header if _is_step_column(column)]
    if len(matches) > 1:
        raise DatasetError(
            f"{path}: {_quote(matches)} could all be the {kind}. Give one of them with {_option(kind)}."
        )
    return matches


def _option(kind: str) -> str:
    return f"--{kind.lower().replace(' ', '-')}"


def _normalize(name: str) -> str:
    closed, rest = _split_at_last_bracket(name.lower())
    return re.sub(r"[^a-z0-9]", "", BRACKETS.sub("", closed) + rest)


def _split_at_last_bracket(name: str) -> tuple[str, str]:
    """Split a name after its last closing bracket: BRACKETS finds none beyond, and would take long."""
    end = 1 + max(map(name.rfind, ")]"))
    return name[:end], name[end:]


def _is_step_column(name: str) -> bool:
    return STEP_NAMES.fullmatch(_normalize(name)) is not None


def _quote(names: Sequence[str]) -> str:
    most, length = SHOWN
    shown = [repr(name if len(name) <= length else f"{name[:length]}...") for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most:,} more" if names[most:] else "")


def _value(kind: str, name: str, text: str, where: str) -> float:
    """Parse a cell; commas only in integers such as 310,000,000, because 0,5 and 5,123 are decimals."""
    suffixed = kind != "loss"
    plain = text.replace(",", "") if suffixed and THOUSANDS.fullmatch(text) else text
    match = NUMBER.fullmatch(plain)
    if match and (suffixed or not match[2]):
        value = float(match[1]) * MULTIPLES.get(match[2].lower(), 1.0)
        if MIN_VALUE <= value <= MAX_VALUE:
            return value * _unit_factor(kind, name)
    also = " with a point, or such as 310M or 2.0B" if suffixed else " with a point, such as 5.05"
    raise DatasetError(
        f"{where}, column {_quote([name])}: got {_quote([text or 'nothing'])}, expected a positive "
        f"number{also}."
    )


def _unit_factor(kind: str, name: str) -> float:
    """Return the factor of a column's unit, as in `params (M)`, `tokens [billions]` or `loss (bits)`."""
    found = BRACKETS.search(_split_at_last_bracket(name.lower())[0])
    unit = "" if found is None else found[1].strip()
    if kind != "loss":
        return MULTIPLES.get(unit.split(" ")[0].removesuffix("s"), 1.0)
    if "bit" not in unit:
        return 1.0
    if "per" in unit and "token" not in unit:
        raise DatasetError(
            f"column {_quote([name])}: got {_quote([unit])}, expected nats or bits per token. Convert "
            "it."
        )
    return math.log(2)
