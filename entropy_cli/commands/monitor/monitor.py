"""Read a training log, compare it with the floor of its loss, and draw it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from entropy_cli import __version__
from entropy_cli.commands.monitor.figure import draw_run
from entropy_cli.commands.monitor.findings import collect_findings
from entropy_cli.commands.monitor.logs.read import read_log
from entropy_cli.commands.monitor.logs.series import Log
from entropy_cli.commands.monitor.page import write_run_page
from entropy_cli.commands.monitor.result import MonitorResult
from entropy_cli.commands.monitor.series_with_floor import (
    SeriesWithFloor,
    attach_floors,
    find_repeated_training,
    summarize,
)
from entropy_cli.core.files import write_text
from entropy_cli.results.floors import Floor


@dataclass(frozen=True)
class MonitorConfig:
    """Options of `monitor`.

    Attributes:
        path: the log.
        format: its format, or auto.
        loss: name of the loss; None for all columns named as a loss.
        floor: to compare the loss with.
        nats: nats per unit of its cross-entropies.
        growing: whether the log is still being written.
    """

    path: Path
    format: str
    loss: str | None
    floor: Floor | None
    nats: float = 1.0
    growing: bool = False


@dataclass(frozen=True)
class MonitorOutput:
    """The result, and the series to draw it from."""

    result: MonitorResult
    curves: Sequence[SeriesWithFloor]


def monitor_log(
    config: MonitorConfig, progress: Callable[[int], object] = lambda _: None
) -> MonitorOutput:
    """Read a log, compare it with its floors and collect the findings.

    Args:
        config: the options.
        progress: called with 1 for each row.

    Raises:
        EntropyCliError: the log can't be read, or holds no loss.
    """
    log = read_log(config.path, config.format, config.loss, progress, growing=config.growing)
    log = to_nats(log, config.nats)
    repeated = find_repeated_training(log)
    kept = [series for series in log.series if series.metric.split == "train" or not repeated]
    curves = attach_floors(replace(log, series=kept), config.floor, config.loss)
    return MonitorOutput(
        MonitorResult(
            log=str(config.path),
            format=log.format,
            segments=log.segments,
            unreadable=log.unreadable,
            series=[summarize(curve) for curve in curves if curve.metric.kind != "gradient_norm"],
            findings=collect_findings(log, curves, repeated, config.floor),
            floor_source=None if config.floor is None else config.floor.source,
            tool_version=__version__,
        ),
        curves,
    )


def to_nats(log: Log, nats: float) -> Log:
    """Convert the cross-entropies of a log to nats, given the nats per unit."""
    if nats == 1:
        return log
    series = [
        replace(
            one,
            value_n=one.value_n * nats,
            untrained_value=None if one.untrained_value is None else one.untrained_value * nats,
        )
        if one.metric.is_loss and one.metric.has_floor and not one.metric.is_proxy
        else one
        for one in log.series
    ]
    return replace(log, series=series)


def write(output: MonitorOutput, path: Path) -> None:
    """Write a run as an image, a page or JSON, by the suffix of the path.

    Raises:
        ResultError: it can't be written, or the suffix is unknown.
        EntropyCliError: matplotlib is not installed.
    """
    curves = [(curve.finite, curve.level) for curve in output.curves if len(curve.finite)]
    kind = path.suffix.lower()
    if kind == ".json":
        write_text(path, output.result.to_json() + "\n")
    elif kind == ".html":
        write_run_page(path, output.result, curves)
    else:
        draw_run(path, output.result, curves)
