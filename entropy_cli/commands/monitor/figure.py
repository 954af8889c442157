"""Figures of a training run: losses, reducible losses, accuracies and findings."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

import numpy as np

from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.result import MonitorResult, RunFinding
from entropy_cli.core.figures import (
    INK,
    PAPER,
    SERIES,
    Axes,
    Colour,
    Figure,
    arrow_marker,
    colour_ramp,
    inline_svg,
    legend_below,
    new_figure,
    plain_log_ticks,
    styled,
    write_figure,
)
from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.findings import by_severity
from entropy_cli.results.floors import Level

MAX_POINTS, BLOCKS = 400, 200  # longer series are drawn as block medians over their points
COLOURS = (*SERIES, INK)
MAX_CURVES, MAX_LINES = len(COLOURS), 24
LOG_RATIO = 8  # ratio of losses above which their axis is logarithmic
WIDTH, PANEL_HEIGHT, LINE_HEIGHT = 11.2, 4.1, 0.17  # inches
COLUMNS = 128  # characters
MARKS = {"error": "X", "warning": "^", "info": "o"}
Curve = tuple[Series, Level | None]  # finite values, and the floor if one applies
Panel = Callable[[Axes, Sequence[Curve], Sequence[RunFinding]], None]


def draw_run(path: Path, result: MonitorResult, curves: Sequence[Curve]) -> None:
    """Draw a run with its findings below, as PNG, SVG or PDF by the suffix of the path."""
    metrics = [series.metric for series, _ in curves]
    losses = sum(metric.is_loss and not isinstance(metric.scope, int) for metric in metrics)
    notes = [f"the first {MAX_CURVES} of {losses} losses are drawn"] if losses > MAX_CURVES else []
    with styled():
        write_figure(_figure(result, curves, [*notes, *_finding_lines(result)]), path)


def inline_run(result: MonitorResult, curves: Sequence[Curve]) -> list[str]:
    """Draw the panels as inline SVG, without the findings in words."""
    panels = []
    with styled():
        for draw, shown in _panels(curves):
            if shown:
                figure = new_figure(WIDTH / 2, PANEL_HEIGHT)
                axis = figure.add_subplot()
                _draw_panel(axis, draw, shown, result.findings)
                title = axis.get_title(loc="left")
                panels.append(inline_svg(figure, f"{title}, {result.log}, over training"))
    return panels


def _figure(result: MonitorResult, curves: Sequence[Curve], lines: Sequence[str]) -> Figure:
    """Draw a matplotlib figure: two panels per row, and lines of text below."""
    panels = [panel for panel in _panels(curves) if panel[1]]
    wide = max(1, min(2, len(panels)))
    rows = -(-len(panels) // wide)
    below = LINE_HEIGHT * len(lines)
    figure = new_figure(WIDTH, PANEL_HEIGHT * rows + below)
    grid = figure.add_gridspec(rows + 1, wide, height_ratios=[PANEL_HEIGHT] * rows + [max(below, 1e-3)])
    for i, (draw, shown) in enumerate(panels):
        alone = i == len(panels) - 1 and i % wide == 0
        place = grid[i // wide, :] if alone else grid[i // wide, i % wide]
        _draw_panel(figure.add_subplot(place), draw, shown, result.findings)
    text = figure.add_subplot(grid[rows, :])
    text.axis("off")
    for i, line in enumerate(lines):
        y = 1 - (i + 0.5) / len(lines)
        text.text(0, y, line, fontsize=8.5, family="monospace", va="center", transform=text.transAxes)
    return figure


def _finding_lines(result: MonitorResult) -> list[str]:
    """Return the findings without advice and rules of thumb, wrapped to the width of the figure."""
    lines = []
    for finding in by_severity(result.findings):
        if finding.id != "rule_of_thumb":
            series = f"{finding.series}: " if finding.series else ""
            lead = f"{finding.severity:8}{finding.id:14}"
            evidence = finding.message.partition(". ")[0].removesuffix(".")
            lines += wrap(lead + series + evidence, COLUMNS, subsequent_indent=" " * len(lead))
    return lines[:MAX_LINES]


def _panels(curves: Sequence[Curve]) -> list[tuple[Panel, list[Curve]]]:
    """Return each panel with the curves to draw in it."""
    overall = [curve for curve in curves if not isinstance(curve[0].metric.scope, int)]
    losses = [curve for curve in overall if curve[0].metric.is_loss]
    losses.sort(key=lambda curve: curve[0].metric.split == "val")  # training first
    return [
        (_draw_losses, losses[:MAX_CURVES]),
        (_draw_reducible, [curve for curve in losses if _is_above_floor(curve)][:MAX_CURVES]),
        (_draw_scales, [curve for curve in curves if curve not in overall and curve[0].metric.is_loss]),
        (_draw_accuracies, [one for one in overall if one[0].metric.kind == "accuracy"][:MAX_CURVES]),
    ]


def _draw_panel(
    axis: Axes, draw: Panel, curves: Sequence[Curve], findings: Sequence[RunFinding]
) -> None:
    draw(axis, curves, findings)
    axis.set_xlabel(f"training, {curves[0][0].position_unit}s")
    legend_below(axis)


def _is_above_floor(curve: Curve) -> bool:
    """Return whether any point of a curve is above its floor."""
    series, level = curve
    return level is not None and bool((series.value_n > level.floor).any())


def _draw_losses(axis: Axes, curves: Sequence[Curve], findings: Sequence[RunFinding]) -> None:
    """Draw losses with their floors, unigram entropies and findings."""
    axis.set_title("Loss")
    axis.set_ylabel(_unit([series for series, _ in curves]))
    colours = _colours(curves)
    first_proxy = next((series for series, _ in curves if series.metric.is_proxy), None)
    for (series, level), colour in zip(curves, colours, strict=True):
        _plot_curve(axis, series, colour)
        short = series.metric.name.rpartition("/")[2]
        if level is not None and series.metric.split == "train":
            _level(axis, level.floor, f"floor of {short}, {level.floor:.3f}", colour, "--")
            if level.unigram is not None:
                _draw_unigram(axis, level.unigram, colour)
        elif series.metric.is_proxy and series.metric.kind == "loss":
            lowest_n = np.minimum.accumulate(series.value_n)
            axis.plot(
                series.position_n,
                lowest_n,
                "--",
                color=INK,
                linewidth=1,
                label="running minimum, no floor" if series is first_proxy else None,
            )
    _mark_findings(axis, curves, colours, findings)
    lowest, highest = (pick(pick(series.value_n) for series, _ in curves) for pick in (min, max))
    if 0 < lowest < highest / LOG_RATIO:
        axis.set_yscale("log")
        plain_log_ticks(axis.yaxis, (1, 2, 5))


def _draw_reducible(axis: Axes, curves: Sequence[Curve], _: Sequence[RunFinding]) -> None:
    """Draw losses minus their floors on logarithmic axes, where a power law is a straight line."""
    axis.set_title("Reducible loss: above the floor")
    axis.set_ylabel("nats per token")
    for (series, level), colour in zip(curves, _colours(curves), strict=True):
        assert level is not None
        _plot_curve(axis, series, colour, level.floor)
    axis.set(xscale="log", yscale="log")
    plain_log_ticks(axis.xaxis, (1,))
    plain_log_ticks(axis.yaxis, (1, 1.5, 2, 3, 5, 7))


def _draw_scales(axis: Axes, curves: Sequence[Curve], _: Sequence[RunFinding]) -> None:
    """Draw the loss of each scale, from blue for the first to orange for the final one."""
    axis.set_title("Loss by scale")
    axis.set_ylabel("nats per token")
    curves = sorted(curves, key=lambda curve: int(curve[0].metric.scope or 0))
    for (series, level), shade in zip(curves, colour_ramp(len(curves)), strict=True):
        side = series.metric.scope
        _plot_curve(axis, series, shade, label=f"{side} x {side}")
        if level is not None:
            axis.axhline(level.floor, color=shade, linestyle="--", linewidth=0.8)


def _draw_accuracies(axis: Axes, curves: Sequence[Curve], _: Sequence[RunFinding]) -> None:
    """Draw accuracies in the unit of the log."""
    axis.set_title("Accuracy")
    largest = max(series.value_n.max() for series, _ in curves)
    axis.set_ylabel("fraction" if largest <= 1 else "%")
    for (series, _level), colour in zip(curves, _colours(curves), strict=True):
        _plot_curve(axis, series, colour)
    axis.set_ylim(bottom=0)


def _plot_curve(
    axis: Axes, series: Series, colour: Colour, floor: float = 0.0, label: str | None = None
) -> None:
    """Plot a series minus a floor; a long one as block medians over its points."""
    is_val = series.metric.split == "val"
    if label is None:
        label = f"{series.metric.name}{', val' if is_val else ''}"
    if len(series) > MAX_POINTS:
        axis.plot(
            series.position_n, series.value_n - floor, ",", color=colour, alpha=0.25, rasterized=True
        )
    position_n, value_n = _smoothed(series)
    marker = "o" if is_val or len(series) < 3 else None
    axis.plot(
        position_n,
        value_n - floor,
        color=colour,
        linestyle="--" if is_val else "-",
        marker=marker,
        markersize=3,
        label=label,
    )


def _level(axis: Axes, value: float, label: str, colour: str, style: str) -> None:
    """Draw a labelled horizontal line."""
    axis.axhline(value, color=colour, linestyle=style, linewidth=1.1, label=label)


def _draw_unigram(axis: Axes, unigram: Estimate, colour: str) -> None:
    """Draw the unigram entropy, with an arrow if only a lower bound of it is known."""
    label = f"unigram entropy{f' {unigram.sign}' if unigram.bound else ', '}{unigram.known:.3f}"
    _level(axis, unigram.known, label, colour, ":")
    if unigram.bound:
        axis.plot(
            0.98,
            unigram.known,
            marker=arrow_marker("", unigram.bound),
            markersize=12,
            color=colour,
            transform=axis.get_yaxis_transform(),
        )


def _mark_findings(
    axis: Axes, curves: Sequence[Curve], colours: Sequence[str], findings: Sequence[RunFinding]
) -> None:
    """Mark findings that have a position on their series."""
    by_name: dict[tuple[str | None, str], tuple[Series, str]] = {
        (series.metric.name, series.metric.split): (series, colour)
        for (series, _), colour in zip(curves, colours, strict=True)
    }
    labelled: set[str] = set()
    for finding in findings:
        position = finding.evidence.get("position")
        for split in ("train", "val"):
            if position is None or (finding.series, split) not in by_name:
                continue
            series, colour = by_name[finding.series, split]
            axis.plot(
                position,
                np.interp(position, *_smoothed(series)),
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
            break


def _smoothed(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and values; block medians of a long series, with short blocks at its start."""
    if len(series) <= MAX_POINTS:
        return series.position_n, series.value_n
    edges = np.linspace(0, len(series), BLOCKS + 1)
    edges = np.unique(np.concatenate([[0], np.geomspace(1, edges[1], 8), edges[1:]]).astype(np.int64))
    blocks = [slice(*pair) for pair in pairwise(edges.tolist())]
    position_n, value_n = series.position_n, series.value_n
    medians = [[np.median(values_n[block]) for block in blocks] for values_n in (position_n, value_n)]
    return np.array(medians[0]), np.array(medians[1])


def _colours(curves: Sequence[Curve]) -> list[str]:
    """Return a colour per curve, the same for training and validation of one subject."""
    subjects = [subject(series.metric) for series, _ in curves]
    distinct = list(dict.fromkeys(subjects))
    return [COLOURS[distinct.index(one) % len(COLOURS)] for one in subjects]


def _unit(series: Sequence[Series]) -> str:
    is_known = all(one.metric.kind == "cross_entropy" for one in series)
    return "nats per token" if is_known else "loss, in the log's unit"
