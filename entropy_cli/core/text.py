"""Columns of text for a terminal."""

from collections.abc import Sequence

from entropy_cli.core.table import Table, definitions, wrapped

__all__ = ["columns", "definitions", "wrapped"]


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Format rows, the first of them the header, as a table; only `left` columns are left-aligned."""
    return Table("", "", rows[0], rows[1:], left=range(left)).text()
