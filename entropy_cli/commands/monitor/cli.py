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
from entropy_cli.options import AsJson, parse_output, print_result, tqdm_bar

if TYPE_CHECKING:
    from entropy_cli.commands.monitor.monitor import Seen

logger = logging.getLogger(__name__)

WRITTEN = (".png", ".svg", ".pdf", ".html", ".json")
CLEAR = "\x1b[2J\x1b[H"  # a terminal's screen


def monitor(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG",
            help="A training log, - for standard input, or a folder of TensorBoard's events.",
        ),
    ],
    format_name: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Of the log: auto goes by its content.")
    ] = "auto",
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss", metavar="COLUMN", help="The loss, if it isn't called one or is one of many."
        ),
    ] = None,
    log_units: Annotated[
        Literal["nats", "bits"], typer.Option(help="Of the log's cross-entropies.")
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
            help="Draw it: .png, .svg, .pdf or .html; .json: the result.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Read it again while it grows.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two reads with --follow.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Read a training log against the floor of its loss, and say what can be said of the run.

    Example: entropy-cli monitor log.txt --floor result.json -o run.html
    """
    parse_output(output, WRITTEN, "--output")
    import entropy_cli.commands.monitor.logs.read as logs
    from entropy_cli.commands.monitor.monitor import MonitorConfig, read
    from entropy_cli.core.files import check_different, check_writable

    if format_name not in ("auto", *logs.NAMES):
        raise typer.BadParameter(
            f"{format_name}: expected auto, {', '.join(logs.NAMES)}.", param_hint="--format"
        )
    if follow and logs.is_stream(log):
        raise typer.BadParameter(
            f"{log}: is a pipe, which can't be read again. Give a file.", param_hint="--follow"
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
            seen = read(config, bar.update)
        _warn(seen)
        _show(seen, output, as_json=as_json)
        return
    size = None
    while True:
        if size != (size := logs.size_of(log)):
            try:
                _show(read(config), output, as_json=as_json, again=True)
            except NoLossError as error:  # one that has yet to get a loss
                logger.info("%s", error)
        time.sleep(interval)


def _warn(seen: "Seen") -> None:
    """Say what was left out or is of no use."""
    found = seen.found
    if found.unreadable:
        logger.warning("%s: %d lines or cells are no values and left out", found.log, found.unreadable)
    if found.floor_source is not None and all(one.floor is None for one in found.series):
        logger.warning(
            "%s: the floor is of none of the series. Those of all tokens want --floor-mean, tails "
            "--floor-last; self-supervised and summed losses have none; name the cross-entropy with "
            "--loss",
            found.log,
        )


def _show(seen: "Seen", output: Path | None, *, as_json: bool, again: bool = False) -> None:
    """Print what was found, then draw it."""
    from entropy_cli.commands.monitor.monitor import draw
    from entropy_cli.commands.monitor.result import render

    text = seen.found.to_json(None if again else 1) if as_json else render(seen.found)
    print_result(f"{CLEAR if again and sys.stdout.isatty() and not as_json else ''}{text}")
    if output is not None:
        draw(seen, output)
