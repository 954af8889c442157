"""Writing a report to a file, in the format of the file's suffix."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from entropy_cli.core.errors import ResultError
from entropy_cli.core.figures import FORMATS as FIGURES
from entropy_cli.core.figures import styled, write_figure
from entropy_cli.core.files import write_text
from entropy_cli.results.page.comparison import NamedResult, short_names
from entropy_cli.results.page.comparison_output import (
    comparison_csv,
    comparison_figure,
    comparison_markdown,
    comparison_page,
)
from entropy_cli.results.page.figures import report_figure
from entropy_cli.results.page.report_output import report_csv, report_markdown, write_html_report
from entropy_cli.results.schema import Result

TEXT = (".md", ".csv")
FORMATS = (".html", *FIGURES, *TEXT)


def check_report(path: Path) -> None:
    """Check before a run that a report can be written after it.

    Raises:
        ResultError: the file's suffix is not one of FORMATS.
        EntropyCliError: matplotlib is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ResultError(f"{path}: expected a name that ends in {', '.join(FORMATS)}.")
    if suffix not in TEXT:
        styled()


def write_report(path: Path, results: Sequence[Result], sources: Sequence[str]) -> None:
    """Write the report of a result, or the comparison of several.

    Args:
        path: a path that ends in one of FORMATS.
        results: at least one result.
        sources: the files of the results, after which a comparison names them.

    Raises:
        ResultError: it can't be written.
        EntropyCliError: matplotlib is not installed.
    """
    if len(results) == 1:
        _write(path, results[0], write_html_report, report_figure, report_markdown, report_csv)
        return
    names = short_names(sources)
    several = [NamedResult(name, result) for name, result in zip(names, results, strict=True)]
    writers = (comparison_page, comparison_figure, comparison_markdown, comparison_csv)
    _write(path, several, *writers)


def _write(
    path: Path,
    content: Any,  # noqa: ANN401 - a result, or several
    write_html: Callable[[Path, Any], None],
    draw: Callable[[Any], Any],
    markdown: Callable[[Any], str],
    csv: Callable[[Any], str],
) -> None:
    suffix = path.suffix.lower()
    if suffix == ".html":
        write_html(path, content)
    elif suffix in FIGURES:
        with styled():
            write_figure(draw(content), path)
    else:
        text = markdown(content) if suffix == ".md" else csv(content)
        write_text(path, text)
