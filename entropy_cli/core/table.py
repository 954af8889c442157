"""Tables, rendered for a terminal, as Markdown, HTML or CSV."""

import csv
import io
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

from entropy_cli.core.escaping import (
    escape_csv,
    escape_html,
    escape_markdown,
    escape_terminal,
    one_line,
)

WIDTH = 80
UNLIMITED = 1_000_000  # columns of a terminal
GAP = 2  # columns between two cells

Cell = str | int | float | None


class Lines(str):
    """A cell of several lines. In other cells a line end comes from outside, and is escaped."""

    __slots__ = ()


def lines(*texts: str) -> Lines:
    r"""Return a cell with a line for each text.

    >>> lines("a\nb", "c")
    'a\\nb\nc'
    """
    return Lines("\n".join(text.replace("\n", "\\n") for text in texts))


@dataclass(frozen=True)
class Table:
    r"""A table whose first column names the rows. Its texts are not yet escaped.

    Attributes:
        name: a short identifier for links.
        title: the heading above the table; may be empty.
        head: names of the columns.
        rows: the cells; a text with several lines is one of `Lines`, None is an empty cell.
        caption: units and explanations.
        notes: sentences below the table.
        sortable: whether a reader of the HTML may sort the rows.
        left: indices of the left-aligned columns.
        rules: numbers of rows after which a horizontal rule goes.

    >>> print(Table("t", "", ["code", "share"], [["a|b", "<1"]]).markdown())
    | code | share |
    | --- | ---: |
    | a\|b | &lt;1 |
    """

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    notes: Sequence[str] = ()
    sortable: bool = False
    left: Collection[int] = (0,)
    rules: Collection[int] = ()

    @property
    def _head(self) -> list[Lines]:
        """The names of the columns, which are the program's own words."""
        return list(map(Lines, self.head))

    def select(self, columns: Sequence[int]) -> "Table":
        """Return the table with these columns alone, by index."""
        return replace(
            self,
            head=[self.head[i] for i in columns],
            rows=[[row[i] for i in columns] for row in self.rows],
            left=[new for new, old in enumerate(columns) if old in self.left],
        )

    def without(self, *heads: str) -> "Table":
        """Return the table without the columns of these names."""
        return self.select([i for i, name in enumerate(self.head) if name not in heads])

    def without_empty_columns(self) -> "Table":
        """Return the table without the columns that have no cell in any row."""
        return self.select(
            [i for i in range(len(self.head)) if any(filled(row[i]) for row in self.rows)]
        )

    def fitted(self, *heads: str, width: int = WIDTH) -> "Table":
        """Return the table that fits a width, without the first of these columns as far as needed."""
        if not heads or len(list(_parts(self, width))) == 1:
            return self
        return self.without(heads[0]).fitted(*heads[1:], width=width)

    def text(self, width: int = WIDTH) -> str:
        """Return the table as text for a terminal, with a bold head if stdout is one.

        Cells are never broken: columns that don't fit the width follow in a further table, after the
        first column again.
        """
        heading = ", ".join(filter(None, (self.title, self.caption)))
        parts = [_terminal_table(self.select(part)) for part in _parts(self, width)]
        notes = [wrapped("", note, width) for note in self.notes]
        body = "\n".join(filter(None, (wrapped("", heading, width), "\n\n".join(parts))))
        return "\n\n".join(filter(None, (body, "\n".join(notes))))

    def markdown(self) -> str:
        """Return the title, caption, table and notes as Markdown."""
        marks = ["---" if i in self.left else "---:" for i in range(len(self.head))]
        rows = [map(escape_markdown, map(plain, row)) for row in (self._head, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        lines.insert(1, f"| {' | '.join(marks)} |")
        title = f"## {escape_markdown(self.title)}" if self.title else ""
        texts = [escape_markdown(text) for text in (self.caption, *self.notes)]
        return "\n\n".join(filter(None, (title, texts[0], "\n".join(lines), *texts[1:])))

    def html(self) -> str:
        """Return the HTML of the table below its title; a sortable one has buttons in its header."""
        button = "<button>{}</button>" if self.sortable else "{}"
        sides = [' class="left"' if i in self.left else "" for i in range(len(self.head))]
        names = [button.format(_html_cell(name)) for name in self._head]
        head = "".join(
            f'<th scope="col"{side}>{name}</th>' for side, name in zip(sides, names, strict=True)
        )
        lines = []
        for i, row in enumerate(self.rows):
            first, *rest = map(_html_cell, row)
            cells = "".join(f"<td{s}>{cell}</td>" for s, cell in zip(sides[1:], rest, strict=True))
            rule = ' class="below-rule"' if i in self.rules else ""
            lines.append(f'<tr{rule}><th scope="row">{first}</th>{cells}</tr>')
        body = "\n".join(lines)
        css_class = ' class="sortable"' if self.sortable else ""
        return (
            f'<h2 id="{self.name}">{escape_html(self.title)}</h2>\n'
            f'<div class="wide" tabindex="0" role="region" aria-labelledby="{self.name}">'
            f"<table{css_class}><caption>{escape_html(self.caption)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
            + "".join(f"\n<p>{escape_html(note)}</p>" for note in self.notes)
        )

    def csv(self) -> str:
        """Return head and rows as CSV; numbers in full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in (self._head, *self.rows):
            writer.writerow([escape_csv(plain(cell)) if isinstance(cell, str) else cell for cell in row])
        return text.getvalue()


def plain(cell: Cell) -> str:
    """Return a cell as text, None as an empty one; only `Lines` have several lines."""
    if cell is None:
        return ""
    return cell if isinstance(cell, Lines) else one_line(str(cell))


def filled(cell: Cell) -> bool:
    """Return whether a cell shows anything."""
    return plain(cell) != ""


def wrapped(prefix: str, text: str, width: int = WIDTH) -> str:
    """Wrap text for a terminal after a prefix, with a hanging indent; words are never broken."""
    lines = wrap(
        one_line(prefix + text),
        width,
        subsequent_indent=" " * len(prefix),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def definitions(terms: Mapping[str, str]) -> str:
    """Format terms for a terminal in one column and their definitions, wrapped, in another."""
    indent = max(map(len, terms)) + 2
    return "\n".join(wrapped(term.ljust(indent), text) for term, text in terms.items())


def _terminal_cell(cell: Cell) -> str:
    return escape_terminal(plain(cell))


def _html_cell(cell: Cell) -> str:
    return escape_html(plain(cell)).replace("\n", "<br>")


def _parts(table: Table, width: int) -> Iterator[list[int]]:
    """Iterate over the columns of the parts into which a table is split to fit a width."""
    from rich.cells import cell_len

    widths = [
        max(cell_len(line) for cell in column for line in _terminal_cell(cell).split("\n"))
        for column in zip(table._head, *table.rows, strict=True)
    ]
    part, used = [0], widths[0]
    for i, size in enumerate(widths[1:], 1):
        if len(part) > 1 and used + GAP + size > width:
            yield part
            part, used = [0], widths[0]
        part.append(i)
        used += GAP + size
    yield part


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None where the caller closed it


def _terminal_table(table: Table) -> str:
    """Return the lines of head and rows, with rules of hyphens."""
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    def cells(row: Sequence[Cell]) -> list[Text]:
        return [Text(_terminal_cell(cell), no_wrap=True) for cell in row]

    no_edge, rule = "    \n", " -- \n"
    box = Box(no_edge * 2 + rule + no_edge + rule + no_edge * 3, ascii=True)
    grid = Grid(box=box, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for i, name in enumerate(cells(table._head)):
        grid.add_column(name, justify="left" if i in table.left else "right", no_wrap=True)
    for i, row in enumerate(table.rows):
        if i in table.rules and i:
            grid.add_section()
        grid.add_row(*cells(row))
    text = io.StringIO()
    Console(file=text, width=UNLIMITED, force_terminal=_is_terminal(), legacy_windows=False).print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
