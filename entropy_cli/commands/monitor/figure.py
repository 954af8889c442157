"""Figures of a training run: losses, reducible losses, accuracies and findings."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np

from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.series import TOKEN_UNITS, Series
from entropy_cli.commands.monitor.panels import draw_panels, inline_panels
from entropy_cli.commands.monitor.result import MonitorResult, RunFinding, finding_lines
from entropy_cli.commands.monitor.titles import listed, loss_title
from entropy_cli.core.figures import (
    INK,
    PAPER,
    SERIES,
    Axes,
    Colour,
    arrow_marker,
    colour_ramp,
    legend_below,
    legend_name,
    plain_log_ticks,
)
from entropy_cli.results.floors import Level

MAX_POINTS, BLOCKS = 400, 200  # longer series are drawn as block medians over their points
MAX_MARKERS = 50  # of the points of a validation curve
COLOURS = (*SERIES, INK)
MAX_CURVES = len(COLOURS)
LOG_RATIO = 8  # ratio of losses above which their axis is logarithmic
TITLE_COLUMNS = 54  # characters
MARKS = {"error": "X", "warning": "^", "info": "o"}


class Panel(NamedTuple):
    """A panel: the function that draws it, and the finite values of its series."""

    draw: Callable[[Axes, Sequence[Series], MonitorResult], None]
    series: Sequence[Series]
    left_out: int = 0  # series that are too many

    def add_to(self, axis: Axes, result: MonitorResult) -> str:
        """Draw the panel on axes; return its title."""
        self.draw(axis, self.series, result)
        title = axis.get_title(loc="left")
        axis.set_title(fill(title, TITLE_COLUMNS))
        axis.set_xlabel(f"training time ({self.series[0].position_unit}s)")
        legend_below(axis)
        return str(title)


def draw_run(path: Path, result: MonitorResult, series: Sequence[Series]) -> None:
    """Draw a run with its findings below, as PNG, SVG or PDF by the suffix of the path."""
    panels = _panels(series)
    lines = [*_left_out(panels, series), *finding_lines(result)]
    draw_panels(path, [partial(panel.add_to, result=result) for panel in panels], lines)


def inline_run(result: MonitorResult, series: Sequence[Series]) -> tuple[list[str], list[str]]:
    """Return the panels as inline SVG, without the findings in words, and notes on what is left out."""
    panels = _panels(series)
    draws = [partial(panel.add_to, result=result) for panel in panels]
    return inline_panels(draws, f"; {result.log}, over training"), _left_out(panels, series)


def excess_axes(axis: Axes) -> None:
    """Make both axes logarithmic: there a power law is a straight line."""
    axis.set_xscale("log", nonpositive="mask")  # a step 0 has no place on it
    axis.set_yscale("log")
    plain_log_ticks(axis.xaxis)
    plain_log_ticks(axis.yaxis, (1, 1.5, 2, 3, 5, 7))


def _left_out(panels: Sequence[Panel], series: Sequence[Series]) -> list[str]:
    drawn = [(panel.series[0].metric.is_loss, len(panel.series), panel.left_out) for panel in panels]
    single = [one.metric.name for one in series if len(one) == 1 and one.metric.is_shown]
    return [
        *(
            f"Of {count + more} {'losses' if is_loss else 'accuracies'} the first {count} are drawn."
            for is_loss, count, more in dict.fromkeys(drawn)
            if more
        ),
        *([f"Not drawn, a single point: {listed(single, most=5)}."] if single else []),
    ]


def _panels(series: Sequence[Series]) -> list[Panel]:
    """Return the panels that have something to show."""
    series = [one for one in series if len(one) > 1]  # a point is no curve
    overall = [one for one in series if not isinstance(one.metric.scope, int)]
    scales = [one for one in series if one not in overall and one.metric.is_loss]
    losses = [one for one in overall if one.metric.is_loss]
    losses.sort(key=lambda one: one.metric.split == "val")  # training first
    reducible = [one for one in losses if one.level and (one.value_n > one.level.floor).any()]
    accuracies = [one for one in overall if one.metric.kind == "accuracy"]
    return [
        Panel(draw, shown[:most], len(shown[most:]))
        for draw, shown, most in (
            (_draw_losses, losses, MAX_CURVES),
            (_draw_reducible, reducible, MAX_CURVES),
            (_draw_scales, sorted(scales, key=lambda one: int(one.metric.scope or 0)), len(scales)),
            (_draw_accuracies, accuracies, MAX_CURVES),
        )
        if shown
    ]


def _draw_losses(axis: Axes, series: Sequence[Series], result: MonitorResult) -> None:
    """Draw losses with their floors, unigram entropies and findings."""
    axis.set_title(loss_title(series, result.findings))
    axis.set_ylabel(loss_label(series))
    colours = _colours(series)
    minimum: str | None = "lowest so far (not a floor)"
    for one, colour in zip(series, colours, strict=True):
        plot_curve(axis, one, colour)
        if one.level is not None and one.metric.split == "train":
            draw_level(axis, one, one.level, colour, is_hard=result.is_hard)
        elif one.metric.is_proxy and one.metric.kind == "loss":
            lowest_n = np.minimum.accumulate(one.value_n)
            axis.plot(one.position_n, lowest_n, "--", color=INK, linewidth=1, label=minimum)
            minimum = None  # labelled once
    _mark_findings(axis, series, colours, result.findings)
    lowest, highest = (pick(pick(one.value_n) for one in series) for pick in (min, max))
    if 0 < lowest < highest / LOG_RATIO:
        axis.set_yscale("log")
        plain_log_ticks(axis.yaxis, (1, 2, 5))


def loss_label(series: Sequence[Series]) -> str:
    """Return the label of an axis of losses, with their unit."""
    is_known = all(
        one.level or (one.metric.kind == "cross_entropy" and one.metric.unit in TOKEN_UNITS)
        for one in series
    )
    return f"loss ({'nats per token' if is_known else 'in the unit of the log'})"


def _draw_reducible(axis: Axes, series: Sequence[Series], result: MonitorResult) -> None:
    """Draw losses minus their floors on logarithmic axes, where a power law is a straight line."""
    shares = {(one.name, one.split): one.share_left for one in result.series}
    known = [(one.metric.name, shares[one.metric.name, one.metric.split]) for one in series]
    left = [f"{share:.1%} of {name}" for name, share in known if share is not None and share >= 0]
    what = "CE - A, may be negative" if result.is_hard else "loss above the floor"
    is_share = bool(left) and not result.is_hard
    axis.set_title(f"Reducible loss left: {listed(left)}" if is_share else what)
    axis.set_ylabel(f"{what.partition(',')[0]} (nats per token)")
    for one, colour in zip(series, _colours(series), strict=True):
        assert one.level is not None
        plot_curve(axis, one, colour, one.level.floor)
    excess_axes(axis)


def _draw_scales(axis: Axes, series: Sequence[Series], _: MonitorResult) -> None:
    """Draw the loss of each scale, from blue for the first to orange for the final one."""
    names = [f"{one.metric.scope} x {one.metric.scope}" for one in series]
    ends = [f"{one.value_n[-1]:.4g} at {name}" for one, name in zip(series, names, strict=True)]
    axis.set_title(f"Loss at the end: {listed(ends[:: max(1, len(ends) - 1)])}")
    axis.set_ylabel("loss (nats per token)")
    for one, name, shade in zip(series, names, colour_ramp(len(series)), strict=True):
        plot_curve(axis, one, shade, label=name)
        if one.level is not None:
            axis.axhline(one.level.floor, color=shade, linestyle="--", linewidth=0.8)


def _draw_accuracies(axis: Axes, series: Sequence[Series], _: MonitorResult) -> None:
    """Draw accuracies in the unit of the log."""
    is_share = max(one.value_n.max() for one in series) <= 1
    unit = "" if is_share else " %"
    ends = [f"{one.metric.name} {one.value_n[-1]:.3g}{unit}" for one in series]
    axis.set_title(f"Accuracy at the end: {listed(ends)}")
    axis.set_ylabel("accuracy (fraction)" if is_share else "accuracy (%)")
    for one, colour in zip(series, _colours(series), strict=True):
        plot_curve(axis, one, colour)
    axis.set_ylim(bottom=0)


def plot_curve(
    axis: Axes, series: Series, colour: Colour, floor: float = 0.0, label: str | None = None
) -> None:
    """Plot a series minus a floor; a long one as block medians over its points."""
    metric, is_val = series.metric, series.metric.split == "val"
    if label is None:
        kind = metric.description.partition(":")[0] if metric.kind == "accuracy" else ""
        label = ", ".join(filter(None, (metric.name, "val" if is_val else "", kind)))
    if len(series) > MAX_POINTS:
        points_n = series.value_n - floor
        axis.plot(series.position_n, points_n, ",", color=colour, alpha=0.25, rasterized=True)
    position_n, value_n = _smoothed(series)
    axis.plot(
        position_n,
        value_n - floor,
        color=colour,
        linestyle="--" if is_val else "-",
        marker="o" if is_val or len(series) < 3 else None,
        markevery=-(-len(position_n) // MAX_MARKERS),
        markersize=3,
        label=legend_name(label),
    )


def draw_level(axis: Axes, series: Series, level: Level, colour: str, *, is_hard: bool) -> None:
    """Draw the floor and ceilings of a series, with an arrow if the unigram entropy is only a bound."""
    name = series.metric.name.rpartition("/")[2]
    label = f"{'A' if is_hard else 'floor'} of {name}, {level.floor:.3f}"
    axis.axhline(level.floor, color=colour, linestyle="--", linewidth=1.1, label=label)
    if level.rungs:
        rung = min(level.rungs, key=lambda one: one.upper95)
        label = f"{rung.id} rung, at most {rung.upper95:.3f}"
        axis.axhline(rung.upper95, color=colour, linestyle="-.", linewidth=1.1, label=label)
    if (unigram := level.unigram) is None:
        return
    label = f"unigram entropy{f' {unigram.sign}' if unigram.bound else ', '}{unigram.known:.3f}"
    axis.axhline(unigram.known, color=colour, linestyle=":", linewidth=1.1, label=label)
    if unigram.bound:
        arrow, at = arrow_marker("", unigram.bound), axis.get_yaxis_transform()
        axis.plot(0.98, unigram.known, marker=arrow, markersize=12, color=colour, transform=at)


def _mark_findings(
    axis: Axes, series: Sequence[Series], colours: Sequence[str], findings: Sequence[RunFinding]
) -> None:
    """Mark findings that have a position on their series, training first."""
    curves: dict[str | None, tuple[Series, str]] = {}
    for one, colour in zip(series, colours, strict=True):
        curves.setdefault(one.metric.name, (one, colour))
    labelled: set[str] = set()
    for finding in findings:
        position = finding.evidence.get("position")
        if position is None or finding.series not in curves:
            continue
        one, colour = curves[finding.series]
        axis.plot(
            position,
            np.interp(position, *_smoothed(one)),
            MARKS[finding.severity],
            markersize=8,
            markerfacecolor=PAPER,
            markeredgecolor=colour,
            markeredgewidth=1.8,
            zorder=5,
            linestyle="none",
            label=None if finding.id in labelled else finding.id.replace("_", " "),
        )
        labelled.add(finding.id)


def _smoothed(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and values; block medians of a long series, with short blocks at its start."""
    position_n, value_n = series.position_n, series.value_n
    if len(series) <= MAX_POINTS:
        return position_n, value_n
    edges = np.linspace(0, len(series), BLOCKS + 1)
    edges = np.unique(np.concatenate([[0], np.geomspace(1, edges[1], 8), edges[1:]]).astype(np.int64))
    blocks = [slice(*pair) for pair in pairwise(edges.tolist())]
    position_B, median_B = (
        np.array([np.median(x_n[block]) for block in blocks]) for x_n in (position_n, value_n)
    )
    return position_B, median_B


def _colours(series: Sequence[Series]) -> list[str]:
    """Return a colour per curve, the same for training and validation of one subject."""
    subjects = [subject(one.metric) for one in series]
    distinct = list(dict.fromkeys(subjects))
    return [COLOURS[distinct.index(one) % len(COLOURS)] for one in subjects]
