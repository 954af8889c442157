"""`entropy-cli monitor`."""

import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from entropy_cli.core.errors import NoLossError
from entropy_cli.floor_options import FloorFile, FloorLast, FloorMean, parse_floor
from entropy_cli.options import MOST_SECONDS, AsJson, BadValue, WholeTable, number, suffix_parser
from entropy_cli.terminal import escape_stdout, print_result, tqdm_bar

if TYPE_CHECKING:
    from entropy_cli.commands.monitor.monitor import MonitorOutput
    from entropy_cli.commands.monitor.result import MonitorResult

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".svg", ".pdf", ".html", ".json")
CLEAR = "\x1b[2J\x1b[H"  # clears the screen of a terminal


def parse_format(name: str) -> str:
    """Check that a format of logs is auto or a known one."""
    from entropy_cli.commands.monitor.logs.read import NAMES

    if name in ("auto", *NAMES):
        return name
    raise BadValue(f"{name}: expected auto, {', '.join(NAMES)}.")


def monitor(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG",
            help="A training log, - for standard input, or a folder of TensorBoard event files.",
        ),
    ],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            parser=parse_format,
            help="Format of the log; auto detects it from the content.",
        ),
    ] = "auto",
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss", metavar="COLUMN", help="Name of the loss, if it is not obvious or one of many."
        ),
    ] = None,
    log_units: Annotated[
        Literal["nats", "bits"], typer.Option(help="Unit of the log's cross-entropies.")
    ] = "nats",
    floor: FloorFile = None,
    floor_mean: FloorMean = None,
    floor_last: FloorLast = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=suffix_parser(*SUFFIXES),
            help="Write an image (.png, .svg, .pdf), a page (.html) or the result (.json).",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Read the log again while it grows.")] = False,
    interval: Annotated[
        float, number(0.1, MOST_SECONDS, "Time between two reads with --follow.", "SECONDS")
    ] = 10,
    as_json: AsJson = False,
    table: WholeTable = False,
) -> None:
    """Read a training log against its floor, and report findings.

    Example: entropy-cli monitor log.txt --floor result.json -o run.html
    """
    import entropy_cli.commands.monitor.logs.read as logs
    from entropy_cli.commands.monitor.monitor import MonitorConfig, monitor_log
    from entropy_cli.core.files import check_different, check_writable

    if follow and logs.is_stream(log):
        raise typer.BadParameter(
            f"{log}: a pipe, which can't be read again. Give a file.", param_hint="--follow"
        )
    if output is not None:
        check_writable(output, "--output")
        check_different(("LOG", log), ("--floor", floor), ("--output", output))
    levels = parse_floor(floor, floor_mean, floor_last)
    config = MonitorConfig(
        log, format_name, loss, levels, math.log(2) if log_units == "bits" else 1.0, follow
    )
    if not follow:
        with tqdm_bar("reading", None, "row") as bar:
            done = monitor_log(config, bar.update)
        _warn(done.result)
        _show(done, output, as_json=as_json, whole=table)
        return
    size = None
    while True:
        if size != (size := logs.log_size(log)):
            try:
                _show(monitor_log(config), output, as_json=as_json, whole=table, again=True)
            except NoLossError as error:  # it may get a loss later
                logger.info("%s", error)
        time.sleep(interval)


def _warn(result: "MonitorResult") -> None:
    """Warn about unreadable values, and about a floor without a loss."""
    if result.unreadable:
        logger.warning("%s: %d unreadable lines or cells are ignored", result.log, result.unreadable)
    if result.floor_source is not None and all(series.floor is None for series in result.series):
        logger.warning(
            "%s: the floor applies to none of the series. Means over all tokens need --floor-mean, "
            "those of the final scale --floor-last; self-supervised and summed losses have no floor. "
            "Name the cross-entropy with --loss.",
            result.log,
        )


def _show(
    done: "MonitorOutput", output: Path | None, *, as_json: bool, whole: bool, again: bool = False
) -> None:
    """Print the result, then write the output file."""
    from entropy_cli.commands.monitor.monitor import write
    from entropy_cli.commands.monitor.result import render

    text = done.result.to_json(None if again else 1) if as_json else render(done.result, whole=whole)
    clear = CLEAR if again and sys.stdout.isatty() and not as_json else ""
    print_result(clear + escape_stdout(text), is_escaped=True)
    if output is not None:
        write(done, output)
