"""Read tables: delimited values below a head that names the columns."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from entropy_cli.commands.monitor.logs.names import Namer
from entropy_cli.commands.monitor.logs.records import RecordReader
from entropy_cli.commands.monitor.logs.rows import Rows
from entropy_cli.commands.monitor.logs.run_names import OF_TABLES, RunNames
from entropy_cli.commands.monitor.logs.text import count_decimals, parse_number

DELIMITERS = ",;\t|"
RULE = re.compile(r"[|:+\s-]+")  # below the head of a Markdown table
ENDING_NUMBER = re.compile(r"^(.*?)(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)$")


class TableReader:
    """Reads the lines of a table into rows; every repeated head starts a new segment.

    Args:
        namer: says what names stand for.
        growing: whether it is still being written, so that its last line may be incomplete.

    Attributes:
        names: all names, in their order.
        notes: what had to be mended.
        arguments: none.
    """

    arguments: Mapping[str, str] = {}

    def __init__(self, namer: Namer, *, growing: bool = False) -> None:
        self.growing = growing
        self.records = RecordReader(namer, run_names=OF_TABLES)
        self.names = self.records.names
        self.notes: list[str] = []
        self.header: list[str] = []
        self.delimiter = ","
        self._before: list[list[str]] = []  # rows above the first head: the beginning was cut off
        self._last: deque[str] = deque(maxlen=6)

    def read(self, pieces: Iterable[str]) -> Rows:
        """Read a table, but for a last line that was cut off, or has no end and may grow."""
        lines = self._lines(pieces)
        first, *second = [*islice(lines, 2)] or [""]
        lines = chain(second, lines)
        self.delimiter = max(DELIMITERS, key=first.count)
        widths = [len(line.split()) for line in (first, *second)]
        if self.delimiter not in first and widths == [widths[0]] * 2:
            self.delimiter = " "  # columns of a fixed width
            first, lines = " ".join(first.split()), (" ".join(line.split()) for line in lines)
        for cells in csv.reader(self._whole(first, lines), delimiter=self.delimiter):
            self._row([cell.strip() for cell in cells])
        return self.records.rows

    @property
    def runs(self) -> RunNames:
        """Whose rows they are."""
        return self.records.runs

    def _lines(self, pieces: Iterable[str]) -> Iterator[str]:
        self._is_ended = True
        for piece in pieces:
            lines = piece.split("\n")
            self._is_ended = not lines[-1]
            for line in lines:
                if line.startswith(("|", "+")):  # of a table as Markdown has it, or with a frame
                    line = "" if RULE.fullmatch(line) else line.strip().strip("|")
                if line.strip() and not line.startswith("#"):
                    yield line

    def _whole(self, first: str, lines: Iterator[str]) -> Iterator[str]:
        """Yield all lines but a last one that was cut off."""
        line = first
        for following in lines:
            self._last.append(line)
            yield line
            line = following
        self._last.append(line)
        is_cut = not self._is_ended and (self.growing or _is_cut([*self._last], self.delimiter))
        if not is_cut:
            yield line
        self.records.rows.unreadable += is_cut and not self.growing

    def _row(self, cells: list[str]) -> None:
        if self.header:
            if parse_number(cells[0]) is None and set(cells) & set(self.header) and _is_text(cells):
                self._head(cells)
            else:
                self._record(cells)
        elif _is_text(cells):
            self._head(cells)
        else:
            self._before.append(cells)
            if len(self._before) == 2:
                self._cut_head(*self._before)

    def _cut_head(self, first: list[str], second: list[str]) -> None:
        """Cut a head that has lost its line feed from the first row, which the second one follows."""
        names = first[: len(second)]
        found = ENDING_NUMBER.match(names[-1])
        if len(first) != 2 * len(second) - 1 or not _is_text(names) or found is None:
            return
        name, cell = found.groups()
        following = parse_number(second[0])
        if following is not None and names[-1].endswith(f"{following - 1:.0f}"):
            cell = f"{following - 1:.0f}"
            name = names[-1].removesuffix(cell)
        self.notes.append(f"the head and the first row share a line: cut between {name} and {cell}")
        self._before = [[cell, *first[len(second) :]], second]
        self._head([*names[:-1], name])

    def _head(self, cells: list[str]) -> None:
        """Begin a segment below a head."""
        before, self._before = self._before, []
        self.records.begin(cells)
        self.records.rows.restart()
        self.header = cells
        for row in before:
            self._record(row)

    def _record(self, cells: list[str]) -> None:
        if len(cells) != len(self.header):
            self.records.rows.unreadable += 1
            return
        if self.delimiter == ";":
            cells = [cell.replace(",", ".") for cell in cells]
        self.records.take(dict(zip(self.header, cells, strict=True)))


def _is_text(cells: Sequence[str]) -> bool:
    return all(parse_number(cell) is None for cell in cells)


def _is_cut(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether the last line has fewer cells than the others, or fewer digits at its end."""
    if len(lines) < 3:
        return False
    *before, last = (line.split(delimiter) for line in lines)
    digits = {count_decimals(cells[-1]) for cells in before if parse_number(cells[-1]) is not None}
    is_shorter = len(digits) == 1 and count_decimals(last[-1]) < min(digits)
    return len(last) < len(before[-1]) or (is_shorter and "e" not in before[-1][-1].lower())
