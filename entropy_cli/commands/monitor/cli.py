"""`entropy-cli monitor`."""

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

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
    from entropy_cli.commands.monitor.dashboards import Dashboards
    from entropy_cli.commands.monitor.monitor import MonitorConfig, MonitorOutput
    from entropy_cli.commands.monitor.result import MonitorResult
    from entropy_cli.core.progress_bars import Bar

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".svg", ".pdf", ".html", ".json")


def parse_format(name: str) -> str:
    """Check that a format of logs is auto or a known one."""
    from entropy_cli.commands.monitor.logs.read import NAMES

    if name in ("auto", *NAMES):
        return name
    raise BadValue(f"{name}: expected auto, {', '.join(NAMES)}.")


def monitor(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG...",
            help="A training log, - for standard input, or a folder of TensorBoard event files; "
            "several are compared.",
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
            "--loss",
            metavar="NAME",
            help="Name of the loss to judge, where it isn't found or several could be meant; see "
            "--list.",
        ),
    ] = None,
    only_list: Annotated[
        bool,
        typer.Option(
            "--list", help="Only list the series of the log: points, first and last value, kind."
        ),
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
            metavar="EVALUATE.json",
            help="Result of evaluate for the model at the log's end, to compare losses with.",
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
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep reading the log as it grows, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, number(0.1, MOST_SECONDS, "Time between two reads with --follow.", "SECONDS")
    ] = 10,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard",
            metavar="DIR",
            help="Write floor, CE - A and findings as TensorBoard events to DIR/floor.",
        ),
    ] = None,
    wandb: Annotated[
        bool,
        typer.Option("--wandb", help="Write floor, CE - A and findings to a run of Weights & Biases."),
    ] = False,
    as_json: AsJson = False,
    table: WholeTable = False,
) -> None:
    """Read a training log against its floor, and report findings.

    Example: entropy-cli monitor log.txt --floor result.json -o run.html
    """
    from entropy_cli.commands.monitor.dashboards import open_dashboards
    from entropy_cli.commands.monitor.monitor import MonitorConfig, monitor_log
    from entropy_cli.commands.monitor.reference import read_reference
    from entropy_cli.core.files import check_files

    _check_logs(
        logs,
        follow=follow,
        one={"--list": only_list, "--tensorboard": tensorboard is not None, "--wandb": wandb},
    )
    check_files(
        [*(("LOG", log) for log in logs), ("--floor", floor), ("--reference", reference)],
        [("--output", output)],
        overwrite=overwrite,
    )
    if only_list:
        _list(logs[0], format_name, loss, as_json=as_json)
        return
    levels = parse_floor(floor, floor_mean, floor_last)
    nats = math.log(2) if log_units == "bits" else 1.0
    measured = None if reference is None else read_reference(reference)
    configs = [MonitorConfig(log, format_name, loss, levels, nats, follow, measured) for log in logs]
    with open_dashboards(logs[0], tensorboard, wandb=wandb) as dashboards:
        if follow:
            _follow(configs[0], interval, output, dashboards, as_json=as_json, whole=table)
            return
        outputs = []
        for config in configs:
            with _reading(config.path) as bar:
                outputs.append(monitor_log(config, bar.update))
        if dashboards is not None:
            dashboards.show(outputs[0].result, outputs[0].series)
    for done in outputs:
        _warn(done.result)
    _show(outputs, output, as_json=as_json, whole=table)


def _reading(log: Path) -> "AbstractContextManager[Bar]":
    """Return a bar over the bytes of a log."""
    return tqdm_bar("reading", log.stat().st_size if log.is_file() else None, "B")


def _list(log: Path, format_name: str, loss: str | None, *, as_json: bool) -> None:
    """Print the series of a log."""
    from entropy_cli.commands.monitor.listing import list_series

    with _reading(log) as bar:
        listing = list_series(log, format_name, loss, bar.update)
    print_result(listing.to_json() if as_json else listing.render())


def _check_logs(logs: Sequence[Path], *, follow: bool, one: Mapping[str, bool]) -> None:
    """Check that options fit the number and the kind of the logs."""
    from entropy_cli.commands.monitor.logs.read import is_stream

    if follow and is_stream(logs[0]):
        raise typer.BadParameter(
            f"{logs[0]}: a pipe, which can't be read again. Give a file.", param_hint="--follow"
        )
    for option, is_given in {"--follow": follow, **one}.items():
        if is_given and len(logs) > 1:
            raise typer.BadParameter(f"got {len(logs)} logs, expected one.", param_hint=option)
    repeated = [log for i, log in enumerate(logs) if log in logs[:i]]
    if repeated:
        raise typer.BadParameter(f"{repeated[0]}: is given twice.", param_hint="LOG")


def _follow(
    config: "MonitorConfig",
    interval: float,
    output: Path | None,
    dashboards: "Dashboards | None",
    *,
    as_json: bool,
    whole: bool,
) -> None:
    """Show a log again whenever it has changed, until Ctrl-C; then the report."""
    from entropy_cli.commands.monitor.follow import follow
    from entropy_cli.commands.monitor.monitor import write
    from entropy_cli.commands.monitor.screen import Lines, open_screen

    def print_json(done: "MonitorOutput") -> None:
        print_result(done.result.to_json(None))

    with ExitStack() as stack:
        if as_json:
            show: Callable[[MonitorOutput], object] = print_json
        elif sys.stdout is not None and sys.stdout.isatty():
            show = stack.enter_context(open_screen(interval))
        else:
            show = Lines().show

        def look(done: "MonitorOutput") -> None:
            show(done)
            if output is not None:
                write(done, output)
            if dashboards is not None:
                dashboards.show(done.result, done.series)

        last = follow(config, interval, look)
    if not as_json:
        _warn(last.result)
        _show([last], None, as_json=False, whole=whole)


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
    outputs: "Sequence[MonitorOutput]", output: Path | None, *, as_json: bool, whole: bool
) -> None:
    """Print the result of a log, or the comparison of several, and write the output file."""
    from entropy_cli.commands.monitor import compare, compare_figure, monitor, result

    if len(outputs) > 1:
        runs = compare.compare(outputs)
        text = runs.to_json() if as_json else compare.render(runs, whole=whole)
        write = partial(compare_figure.write_comparison, runs)
    else:
        (done,) = outputs
        text = done.result.to_json() if as_json else result.render(done.result, whole=whole)
        write = partial(monitor.write, done)
    writes = [] if output is None else [partial(write, output)]
    deliver(escape_stdout(text), *writes, is_escaped=True)
