"""`entropy-cli monitor`."""

import logging
import math
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from entropy_cli.core.errors import LogError
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.floor_options import FloorFile, FloorLast, FloorMean, parse_floor
from entropy_cli.options import (
    MOST_SECONDS,
    AsJson,
    BadValue,
    Overwrite,
    WholeTable,
    number,
    suffix_parser,
)
from entropy_cli.terminal import deliver, escape_stdout, print_result, tqdm_bar

if TYPE_CHECKING:
    from entropy_cli.commands.monitor.monitor import MonitorConfig, MonitorOutput
    from entropy_cli.commands.monitor.result import MonitorResult
    from entropy_cli.core.progress_bars import Bar

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
            "--loss", metavar="NAME", help="Name of the loss, if it is not obvious or one of many."
        ),
    ] = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="Show the series of the log, with points, first and last.")
    ] = False,
    log_units: Annotated[
        Literal["nats", "bits"], typer.Option(help="Unit of the log's cross-entropies.")
    ] = "nats",
    floor: FloorFile = None,
    floor_mean: FloorMean = None,
    floor_last: FloorLast = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="EVALUATE.json", help="What evaluate measured of the model at the log's end."
        ),
    ] = None,
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
    overwrite: Overwrite = False,
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
    from entropy_cli.commands.monitor.reference import read_reference
    from entropy_cli.core.files import check_files

    if follow and logs.is_stream(log):
        raise typer.BadParameter(
            f"{log}: a pipe, which can't be read again. Give a file.", param_hint="--follow"
        )
    check_files(
        [("LOG", log), ("--floor", floor), ("--reference", reference)],
        [("--output", output)],
        overwrite=overwrite,
    )
    if only_list:
        _list(log, format_name, loss, as_json=as_json)
        return
    levels = parse_floor(floor, floor_mean, floor_last)
    config = MonitorConfig(
        log,
        format_name,
        loss,
        levels,
        math.log(2) if log_units == "bits" else 1.0,
        follow,
        None if reference is None else read_reference(reference),
    )
    if not follow:
        with _reading(log) as bar:
            done = monitor_log(config, bar.update)
        _warn(done.result)
        _show(done, output, as_json, whole=table)
        return
    _follow(config, interval, lambda done: _show(done, output, as_json, whole=table, again=True))


def _reading(log: Path) -> "AbstractContextManager[Bar]":
    """Return a bar over the bytes of a log."""
    return tqdm_bar("reading", log.stat().st_size if log.is_file() else None, "B")


def _list(log: Path, format_name: str, loss: str | None, *, as_json: bool) -> None:
    """Print the series of a log."""
    from entropy_cli.commands.monitor.listing import list_series

    with _reading(log) as bar:
        listing = list_series(log, format_name, loss, bar.update)
    print_result(listing.to_json() if as_json else listing.render())


def _follow(config: "MonitorConfig", interval: float, show: Callable[["MonitorOutput"], object]) -> None:
    """Show a log again whenever it has changed, until Ctrl-C; raise LogError if nothing was shown."""
    look = _Look(config, show)
    try:
        with Signals():
            while True:
                look()
                time.sleep(interval)
    except Interrupted as error:
        if error.args[0] != signal.SIGINT:
            raise
    look()
    if not look.shown:
        raise LogError(look.problem)


class _Look:
    """A look at a growing log; one that can't be read, as while it is rewritten, is waited for."""

    def __init__(self, config: "MonitorConfig", show: Callable[["MonitorOutput"], object]) -> None:
        self.config, self.show = config, show
        self.seen: object = None  # of the log, when it was read last
        self.shown, self.problem = False, ""

    def __call__(self) -> None:
        """Show the log if it has changed; say once why it can't be read."""
        from entropy_cli.commands.monitor.logs.read import log_stamps
        from entropy_cli.commands.monitor.monitor import monitor_log

        known, path = self.problem, self.config.path
        try:
            if self.seen == (now := log_stamps(path)):
                return
            self.seen = now
            done = monitor_log(self.config)
        except (LogError, OSError) as error:
            reason = f"{path}: {error.strerror}." if isinstance(error, OSError) else error
            self.problem = str(reason)
            if not known:
                logger.warning("%s Waiting for its next change.", self.problem)
            return
        self.shown, self.problem = True, ""
        self.show(done)


def _warn(result: "MonitorResult") -> None:
    """Warn about what had to be guessed, unreadable values, and a floor without a loss."""
    for note in result.notes:
        logger.warning("%s: %s", result.log, note)
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
    done: "MonitorOutput", output: Path | None, as_json: bool, *, whole: bool, again: bool = False
) -> None:
    """Print the result, and write the output file."""
    from entropy_cli.commands.monitor.monitor import write
    from entropy_cli.commands.monitor.result import render

    text = done.result.to_json(None if again else 1) if as_json else render(done.result, whole=whole)
    clear = CLEAR if again and sys.stdout.isatty() and not as_json else ""
    writes = [] if output is None else [partial(write, done, output)]
    deliver(clear + escape_stdout(text), *writes, is_escaped=True)
