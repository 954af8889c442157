"""The command line of `entropy-cli report`."""

from pathlib import Path
from typing import Annotated

import typer

from entropy_cli.core.escaping import one_line
from entropy_cli.options import Overwrite
from entropy_cli.terminal import print_result


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT.json...", help="Results of estimate or evaluate; several are compared."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A page (.html), a figure (.png, .svg, .pdf) or text (.md, .csv); default: "
            "RESULT.html in the working folder.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a page, figure or table of a result, or compare several.

    Example: entropy-cli report result.json -o report.html
    """
    from entropy_cli.core.files import check_files
    from entropy_cli.results.evaluation import read_any
    from entropy_cli.results.page.report_file import check_report, write_report

    path = output or Path(f"{results[0].stem if len(results) == 1 else 'comparison'}.html")
    check_files([("RESULT.json", file) for file in results], [("--output", path)], overwrite=overwrite)
    check_report(path)
    write_report(path, [read_any(file) for file in results], [str(file) for file in results])
    print_result(one_line(str(path)))
