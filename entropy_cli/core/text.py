"""Text layout for a terminal: lists of terms, and tables."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

WIDTH = 100


def definitions(terms: Mapping[str, str]) -> str:
    """Format terms in one column and their definitions, wrapped, in another."""
    indent = max(map(len, terms)) + 2
    return "\n".join(wrapped(term.ljust(indent), text) for term, text in terms.items())


def wrapped(prefix: str, text: str) -> str:
    """Wrap text after a prefix, with a hanging indent; words are never broken."""
    lines = wrap(
        prefix + text,
        WIDTH,
        subsequent_indent=" " * len(prefix),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Format rows, the first of them the header, as a table; only `left` columns are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
