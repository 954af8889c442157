"""From a training log to what can be said of the run, and to a picture of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from entropy_cli import __version__
from entropy_cli.commands.monitor.figure import draw_run
from entropy_cli.commands.monitor.findings import findings_of
from entropy_cli.commands.monitor.logs.read import read_log
from entropy_cli.commands.monitor.logs.series import Log
from entropy_cli.commands.monitor.page import write_run_page
from entropy_cli.commands.monitor.result import Monitor
from entropy_cli.commands.monitor.series_with_floor import (
    SeriesWithFloor,
    repeated_training,
    summary,
    watched,
)
from entropy_cli.core.files import write_atomically
from entropy_cli.results.floors import Floor


@dataclass(frozen=True)
class MonitorConfig:
    """What to look at.

    Attributes:
        format: of the log, or auto.
        loss: the name of the loss, or None: all that are called one.
        nats: that a unit of its cross-entropies has.
        growing: whether somebody is writing the log.
    """

    path: Path
    format: str
    loss: str | None
    floor: Floor | None
    nats: float = 1.0
    growing: bool = False


@dataclass(frozen=True)
class Seen:
    """What was found, and the series that it was found in."""

    found: Monitor
    watched: Sequence[SeriesWithFloor]


def read(config: MonitorConfig, progress: Callable[[int], object] = lambda _: None) -> Seen:
    """Read a log, set it against the floors, and look for what there is to say.

    Args:
        config: for what.
        progress: is told of each row that is read.

    Raises:
        EntropyCliError: it can't be read, or holds no loss.
    """
    found = read_log(config.path, config.format, config.loss, progress, growing=config.growing)
    log = in_nats(found, config.nats)
    repeated = repeated_training(log)
    kept = [one for one in log.series if one.metric.split == "train" or not repeated]
    series = watched(replace(log, series=kept), config.floor, config.loss)
    return Seen(
        Monitor(
            log=str(config.path),
            format=log.format,
            segments=log.segments,
            unreadable=log.unreadable,
            series=[summary(one) for one in series if one.metric.kind != "gradient_norm"],
            findings=findings_of(log, series, repeated, config.floor),
            floor_source=None if config.floor is None else config.floor.source,
            tool_version=__version__,
        ),
        series,
    )


def in_nats(log: Log, nats: float) -> Log:
    """A log with its cross-entropies in nats, of which a unit of it has so many."""
    if nats == 1:
        return log
    series = [
        replace(
            one,
            value_n=one.value_n * nats,
            before=None if one.before is None else one.before * nats,
        )
        if one.metric.is_loss and one.metric.has_floor and not one.metric.is_proxy
        else one
        for one in log.series
    ]
    return replace(log, series=series)


def draw(seen: Seen, path: Path) -> None:
    """Draw a run, or write what was found of it: the file's name tells.

    Raises:
        ResultError: it can't be written, or ends in nothing that is known.
        EntropyCliError: matplotlib is not installed.
    """
    curves = [(one.finite, one.level) for one in seen.watched if len(one.finite)]
    kind = path.suffix.lower()
    if kind == ".json":
        text = seen.found.to_json() + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    elif kind == ".html":
        write_run_page(path, seen.found, curves)
    else:
        draw_run(path, seen.found, curves)
