"""A log while it grows: one screen that is redrawn, or a line for each look."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.monitor import MonitorOutput
from entropy_cli.commands.monitor.result import (
    MAX_SERIES,
    MonitorResult,
    SeriesSummary,
    finding_lines,
    format_number,
    format_place,
    render_finding,
)
from entropy_cli.commands.monitor.watch import News
from entropy_cli.core.escaping import one_line
from entropy_cli.core.table import Table, wrapped
from entropy_cli.terminal import print_result

BLOCKS = "▁▂▃▄▅▆▇█"
SPARKS = 20  # of a sparkline
FEWEST_LINES = 6  # of a screen, for findings


@contextmanager
def open_screen(interval: float) -> Iterator[Callable[[MonitorOutput], None]]:
    """Yield a function that draws one screen on the terminal anew; the terminal is left as it was.

    Args:
        interval: between two looks, in seconds.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(done: MonitorOutput) -> None:
            text = screen(done.result, done.series, console.size.width, console.size.height - 2)
            until = f"{time.strftime('%H:%M:%S')}, every {interval:g} s; Ctrl-C ends with the report"
            live.update(Text.from_ansi(f"{text}\n\n{until}"), refresh=True)

        yield show


class Lines:
    """A line of last values for each look, and the findings as they appear, for what is no terminal."""

    def __init__(self) -> None:
        self._news = News()

    def show(self, done: MonitorOutput) -> None:
        """Print a line, and the findings that are new."""
        new = self._news.among(done.result.findings)
        print_result("\n".join([last_values(done.result), *map(render_finding, new)]))


def last_values(result: MonitorResult) -> str:
    """Return the last values of the losses on a line, with their excess where they have a floor."""
    losses = [one for one in result.series if one.last is not None and one.kind != "accuracy"]
    place = format_place(losses[0].last_at) if losses else ""
    parts = [
        f"{one.name} {format_number(one.last)}{_excess(one, result)}" for one in losses[:MAX_SERIES]
    ]
    return one_line("  ".join([time.strftime("%H:%M:%S"), place, *parts]))


def _excess(one: SeriesSummary, result: MonitorResult) -> str:
    above = one.reducible_last
    return "" if above is None else f" ({result.excess_name} {format_number(above)})"


def screen(result: MonitorResult, series: Sequence[Series], width: int, height: int) -> str:
    """Return what fits a screen: last values, their excess over the run, and the findings so far."""
    curves: dict[tuple[str, str], Series] = {(one.metric.name, one.metric.split): one for one in series}
    rows = []
    for one in result.series[: max(1, min(MAX_SERIES, height - FEWEST_LINES))]:
        curve = curves.get((one.name, one.split))
        row = [one.name, one.split, format_place(one.last_at), format_number(one.last)]
        rows.append([*row, format_number(one.reducible_last), "" if curve is None else _trend(curve)])
    head = ["series", "split", "at", "last", result.excess_name, "over the run"]
    left_out = len(result.series) - len(rows)
    more = f"{left_out} more series at the end" if left_out > 0 else ""
    table = Table("now", "", head, rows, more, left=(0, 1, 5)).without_empty_columns()
    shown = [wrapped("", result.headline, width), table.fitted("split", "at", width=width).text(width)]
    used = sum(part.count("\n") + 2 for part in shown)
    findings = finding_lines(result, width, max(1, height - used - 1)) or ["none so far"]
    return "\n\n".join([*shown, "\n".join(["Findings", *map(one_line, findings)])])


def _trend(series: Series) -> str:
    """Return a sparkline of a loss above its floor, on a logarithmic scale while it is above it."""
    value_n = series.value_n - (0.0 if series.level is None else series.level.floor)
    return sparkline(np.log(value_n) if (value_n > 0).all() else value_n)


def sparkline(value_n: np.ndarray, most: int = SPARKS) -> str:
    """Return blocks as high as the medians of equal parts of a series.

    >>> sparkline(np.array([3.0, 2.0, 1.0, 1.0]))
    '█▅▁▁'
    """
    parts = np.array_split(value_n, min(most, len(value_n)))
    median_B = np.array([np.median(part) for part in parts])
    span = float(np.ptp(median_B))
    height_B = (median_B - median_B.min()) / span if span else np.zeros_like(median_B)
    return "".join(BLOCKS[round(h)] for h in (height_B * (len(BLOCKS) - 1)).tolist())
