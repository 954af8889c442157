"""Writing a report: what it becomes goes by the file's name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from entropy_cli.core.errors import ResultError
from entropy_cli.core.figures import FORMATS as PICTURES
from entropy_cli.core.figures import styled, write_figure
from entropy_cli.core.files import write_atomically
from entropy_cli.results.page import comparison_output, markdown_and_csv
from entropy_cli.results.page.comparison import NamedResult, short_names
from entropy_cli.results.page.figures import sheet
from entropy_cli.results.page.html_report import write_html_report
from entropy_cli.results.schema import Result

TEXT = (".md", ".csv")
FORMATS = (".html", *PICTURES, *TEXT)


def check_report(path: Path) -> None:
    """Find out before the work whether a report can be made after it.

    Raises:
        ResultError: it can't be of the kind that the file's name ends in.
        EntropyCliError: matplotlib is not installed.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ResultError(f"{path}: expected a name that ends in {', '.join(FORMATS)}.")
    if kind not in TEXT:
        styled()


def write_report(path: Path, results: Sequence[Result], sources: Sequence[str]) -> None:
    """Write the report of a result, or the comparison of several.

    Args:
        path: ends in one of FORMATS.
        results: at least one.
        sources: their files, which several are named by.

    Raises:
        ResultError: it can't be written.
        EntropyCliError: matplotlib is not installed.
    """
    kind = path.suffix.lower()
    if len(results) == 1:
        _write(
            path,
            kind,
            results[0],
            write_html_report,
            sheet,
            markdown_and_csv.markdown,
            markdown_and_csv.comma_separated,
        )
        return
    several = [
        NamedResult(name, result) for name, result in zip(short_names(sources), results, strict=True)
    ]
    _write(
        path,
        kind,
        several,
        comparison_output.comparison_page,
        comparison_output.comparison_sheet,
        comparison_output.comparison_markdown,
        comparison_output.comparison_csv,
    )


def _write(
    path: Path,
    kind: str,
    what: Any,  # noqa: ANN401 - a result, or several
    page: Callable[[Path, Any], None],
    picture: Callable[[Any], Any],
    markdown: Callable[[Any], str],
    table: Callable[[Any], str],
) -> None:
    if kind == ".html":
        page(path, what)
    elif kind in PICTURES:
        with styled():
            write_figure(picture(what), path)
    else:
        text = markdown(what) if kind == ".md" else table(what)
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
