"""Text for a terminal: lists of terms, and columns."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

WIDTH = 100


def definitions(terms: Mapping[str, str]) -> str:
    """A line or more for each term, with what is said of it in a column."""
    indent = max(map(len, terms)) + 2
    return "\n".join(wrapped(term.ljust(indent), words) for term, words in terms.items())


def wrapped(lead: str, words: str) -> str:
    """Words after a lead, in lines of the width, that go on below the words; names stay whole."""
    lines = wrap(
        lead + words,
        WIDTH,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows, the first of them the head, with a rule below it; after `left` cells are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
