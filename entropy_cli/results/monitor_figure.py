"""The picture of a training run: its losses, what is reducible of them, accuracies, and the findings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropy_cli.data.logs.names import stem
from entropy_cli.data.logs.series import Series
from entropy_cli.results.figures import (
    FAINT,
    INK,
    PAPER,
    SERIES,
    inline_svg,
    new_figure,
    styled,
    write_figure,
)
from entropy_cli.results.floor import Level
from entropy_cli.results.monitor import Finding, Monitor

MOST_POINTS, BLOCKS = 400, 200  # a longer series is drawn as medians of blocks over its points
MOST_CURVES = 6
MARKS = {"error": "X", "warning": "^", "info": "o"}
Curve = tuple[Series, Level | None]  # finite values, and the floor if there is one
Panel = Callable[[Any, Sequence[Curve], Sequence[Finding]], None]


def draw_run(path: Path, found: Monitor, curves: Sequence[Curve]) -> None:
    """Draw a run as PNG, SVG or PDF; the file's name tells."""
    with styled():
        write_figure(_figure(found, curves), path)


def inline_run(found: Monitor, curves: Sequence[Curve]) -> str:
    """The same as a part of a page."""
    words = f"Losses of {found.log} over training, with floors, accuracies and findings"
    with styled():
        return inline_svg(_figure(found, curves), words)


def _figure(found: Monitor, curves: Sequence[Curve]) -> Any:  # noqa: ANN401 - a figure of matplotlib
    of_scale = [isinstance(series.metric.of, int) for series, _ in curves]
    losses = [
        curve
        for curve, single in zip(curves, of_scale, strict=True)
        if curve[0].metric.is_loss and not single
    ]
    scales = [
        curve
        for curve, single in zip(curves, of_scale, strict=True)
        if curve[0].metric.kind == "cross_entropy" and single
    ]
    accuracies = [
        curve
        for curve, single in zip(curves, of_scale, strict=True)
        if curve[0].metric.kind == "accuracy" and not single
    ]
    panels: list[tuple[Panel, Sequence[Curve]]] = [
        (_losses, losses[:MOST_CURVES]),
        (_reducible, [curve for curve in losses if curve[1] is not None]),
        (_scales, scales),
        (_accuracies, accuracies[:MOST_CURVES]),
    ]
    panels = [panel for panel in panels if panel[1]]
    wide = min(2, len(panels))
    figure = new_figure(5.6 * wide if wide > 1 else 8, 3.8 * -(-len(panels) // wide))
    axes = figure.subplots(-(-len(panels) // wide), wide, squeeze=False).flatten()
    for axis, (draw, shown) in zip(axes, panels, strict=False):
        draw(axis, shown, found.findings)
    for axis in axes[len(panels) :]:
        axis.remove()
    return figure


def _losses(axis: Any, curves: Sequence[Curve], findings: Sequence[Finding]) -> None:  # noqa: ANN401
    """Losses, their floors and what a constant prediction reaches, and where findings are."""
    axis.set_title("Loss")
    axis.set_ylabel(_unit([series for series, _ in curves]))
    colours = _colours(curves)
    for (series, level), colour in zip(curves, colours, strict=True):
        _curve(axis, series, colour)
        if level is not None and series.metric.split == "train":
            _level(axis, level.floor, f"floor of {series.metric.name}, {level.floor:.3f}", colour, "--")
            if level.unigram is not None:
                label = f"unigram entropy, {level.unigram:.3f}"
                _level(axis, level.unigram, label, colour, ":")
        elif series.metric.is_proxy and series.metric.kind == "loss":
            lowest_n = np.minimum.accumulate(series.value_n)
            axis.plot(
                series.position_n,
                lowest_n,
                "--",
                color=INK,
                linewidth=1,
                label="running minimum, no floor",
            )
    _time(axis, curves)
    _mark(axis, curves, colours, findings)
    axis.legend()


def _reducible(axis: Any, curves: Sequence[Curve], _: Sequence[Finding]) -> None:  # noqa: ANN401
    """Losses above their floors, both axes logarithmic: a power law is a straight line."""
    axis.set_title("Reducible loss: above the floor")
    axis.set_ylabel("nats per token")
    for (series, level), colour in zip(curves, _colours(curves), strict=True):
        assert level is not None
        _curve(axis, series, colour, level.floor)
    axis.set(xscale="log", yscale="log")
    _plain_ticks(axis)
    _time(axis, curves)
    axis.legend()


def _scales(axis: Any, curves: Sequence[Curve], _: Sequence[Finding]) -> None:  # noqa: ANN401
    """The loss of each scale, from dark for the first to light for the last."""
    from matplotlib import colormaps

    axis.set_title("Loss by scale")
    axis.set_ylabel("nats per token")
    curves = sorted(curves, key=lambda curve: int(curve[0].metric.of or 0))
    shades = colormaps["cividis"](np.linspace(0, 0.85, len(curves)))
    for (series, level), shade in zip(curves, shades, strict=True):
        side = series.metric.of
        _curve(axis, series, shade, label=f"{side} x {side}")
        if level is not None:
            axis.axhline(level.floor, color=shade, linestyle="--", linewidth=0.8)
    _time(axis, curves)
    axis.legend(ncols=2, fontsize=8)


def _accuracies(axis: Any, curves: Sequence[Curve], _: Sequence[Finding]) -> None:  # noqa: ANN401
    """Accuracies, in what the log gives them in."""
    axis.set_title("Accuracy")
    largest = max(series.value_n.max() for series, _ in curves)
    axis.set_ylabel("share" if largest <= 1 else "%")
    for (series, _level), colour in zip(curves, _colours(curves), strict=True):
        _curve(axis, series, colour)
    _time(axis, curves)
    axis.set_ylim(bottom=0)
    axis.legend()


def _curve(
    axis: Any,  # noqa: ANN401
    series: Series,
    colour: Any,  # noqa: ANN401
    floor: float = 0.0,
    label: str | None = None,
) -> None:
    """A series, above a floor; a long one as medians of blocks over its points."""
    position_n, value_n = series.position_n, series.value_n - floor
    is_val = series.metric.split == "val"
    if label is None:
        label = f"{series.metric.name}{', val' if is_val else ''}"
    if len(series) > MOST_POINTS:
        axis.plot(position_n, value_n, ",", color=colour, alpha=0.25, rasterized=True)
        blocks = np.array_split(np.arange(len(series)), BLOCKS)
        position_n = np.array([np.median(position_n[block]) for block in blocks])
        value_n = np.array([np.median(value_n[block]) for block in blocks])
    marker = "o" if is_val or len(series) < 3 else None
    axis.plot(
        position_n,
        value_n,
        color=colour,
        linestyle="--" if is_val else "-",
        marker=marker,
        markersize=3,
        label=label,
    )


def _level(axis: Any, value: float, words: str, colour: str, style: str) -> None:  # noqa: ANN401
    """A horizontal line with its name."""
    axis.axhline(value, color=colour, linestyle=style, linewidth=1.1, label=words)


def _mark(
    axis: Any,  # noqa: ANN401
    curves: Sequence[Curve],
    colours: Sequence[str],
    findings: Sequence[Finding],
) -> None:
    """Findings that have a place, as numbers on their series."""
    by_name = {
        series.metric.name: (series, colour) for (series, _), colour in zip(curves, colours, strict=True)
    }
    named: dict[str, str] = {}
    for finding in findings:
        position = finding.evidence.get("position")
        if position is None or finding.series not in by_name:
            continue
        series, colour = by_name[finding.series]
        index = int(np.searchsorted(series.position_n, position).clip(0, len(series) - 1))
        label = named.setdefault(finding.id, finding.id.replace("_", " "))
        axis.plot(
            position,
            series.value_n[index],
            MARKS[finding.severity],
            markersize=8,
            markerfacecolor=PAPER,
            markeredgecolor=colour,
            markeredgewidth=1.8,
            zorder=5,
        )
        axis.annotate(
            label,
            (position, series.value_n[index]),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )


def _colours(curves: Sequence[Curve]) -> list[str]:
    """A colour for each thing that is measured, the same for its training and validation."""
    stems = list(dict.fromkeys(stem(series.metric.name) for series, _ in curves))
    return [SERIES[stems.index(stem(series.metric.name)) % len(SERIES)] for series, _ in curves]


def _time(axis: Any, curves: Sequence[Curve]) -> None:  # noqa: ANN401
    axis.set_xlabel(f"training, {curves[0][0].position_unit}s")


def _unit(series: Sequence[Series]) -> str:
    is_known = all(one.metric.kind == "cross_entropy" for one in series)
    return "nats per token" if is_known else "loss, in the log's unit"


def _plain_ticks(axis: Any) -> None:  # noqa: ANN401
    """Numbers as they are spoken, not as powers of ten, on a short logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
