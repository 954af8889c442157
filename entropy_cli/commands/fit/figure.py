"""Figure of a scaling fit: points, curve, E with its interval, and the reducible loss."""

import math
from collections.abc import Sequence
from textwrap import fill

import numpy as np

from entropy_cli.commands.fit.points import Point
from entropy_cli.commands.fit.result import FitResult
from entropy_cli.commands.fit.scaling_law import FORMULAS
from entropy_cli.core.extras import import_extra
from entropy_cli.core.figures import (
    BLUE,
    GREEN,
    INK,
    VERMILION,
    Axes,
    Colour,
    Figure,
    legend_below,
    new_figure,
    styled,
)

WIDTH, HEIGHT = 10.0, 4.6
CURVES = 4  # of the form chinchilla, each for one data size
TOKENS, PARAMETERS_AXIS, LOSS_AXIS = "tokens", "model size N, parameters", "loss, nats per token"


def draw(result: FitResult, points: Sequence[Point]) -> Figure:
    """Draw losses against sizes beside reducible losses, or the points alone if the fit is refused.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    with styled():
        fitted = result.parameters is not None
        figure = new_figure(WIDTH if fitted else 0.62 * WIDTH, HEIGHT)
        axes = figure.subplots(1, 2 if fitted else 1, squeeze=False)[0]
        colours = _SizeColours(points) if points[0].data_size is not None else None
        _draw_losses(axes[0], result, points, colours)
        if fitted:
            _draw_reducible(axes[1], result, points, colours)
        if colours is not None:
            bar = figure.colorbar(colours.mapping, ax=list(axes), pad=0.02, aspect=30)
            bar.set_label(f"data size D, {TOKENS}")
            bar.outline.set_visible(False)
            _si_ticks(bar.ax.yaxis)
        figure.align_labels()
    return figure


class _SizeColours:
    """Colours of data sizes on a logarithmic scale."""

    def __init__(self, points: Sequence[Point]) -> None:
        matplotlib = import_extra("matplotlib", "plots", "an image")
        colors = import_extra("matplotlib.colors", "plots", "an image")
        cm = import_extra("matplotlib.cm", "plots", "an image")
        self.sizes = np.array([point.data_size for point in points], dtype=np.float64)
        # The yellow end is too faint on paper.
        colour_ramp = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256))
        norm = colors.LogNorm(self.sizes.min(), self.sizes.max())
        self.mapping = cm.ScalarMappable(norm, colors.ListedColormap(colour_ramp))

    def colour_of(self, sizes: float | np.ndarray) -> Colour:
        return self.mapping.to_rgba(sizes)

    def curve_sizes(self) -> list[float]:
        """Return the data sizes to draw curves for."""
        inner = np.quantile(np.log(self.sizes), np.linspace(0.05, 0.95, CURVES))
        return [float(size) for size in np.exp(inner)]


def _arrays(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.array([point.size for point in points])
    return sizes, np.array([point.loss for point in points])


def _draw_losses(
    axes: Axes, result: FitResult, points: Sequence[Point], colours: _SizeColours | None
) -> None:
    sizes, losses = _arrays(points)
    _scatter(axes, sizes, losses, colours)
    if result.parameters is not None:
        grid = np.geomspace(sizes.min() / 1.5, sizes.max() * 3, 200)
        for data_size, colour in _curves(colours):
            above = _terms(result.parameters, grid, data_size).sum(0)
            axes.plot(grid, result.parameters["E"] + above, color=colour, zorder=2)
        _draw_E(axes, result)
    if result.floor is not None:
        floor = result.floor
        name = {"mean": "token-weighted", "last": "final scale"}[floor.average]
        axes.axhline(
            floor.value, color=VERMILION, ls="--", label=f"assignment entropy, {name}: {floor.value:.3f}"
        )
        if floor.half_width is not None:
            ends = floor.value - floor.half_width, floor.value + floor.half_width
            axes.axhspan(*ends, color=VERMILION, alpha=0.12, lw=0)
    axes.set_xscale("log")
    _si_ticks(axes.xaxis)
    axes.set_xlabel(PARAMETERS_AXIS)
    axes.set_ylabel(LOSS_AXIS)
    title = f"{FORMULAS[result.form]}"
    axes.set_title(title if result.verdict == "ok" else f"{title}: {result.verdict}")
    if result.parameters is None:
        axes.set_title(fill(f"{title}: refused. {result.reason[0].upper()}{result.reason[1:]}.", 60))
        known = result.E_range95
        if known is not None and None not in known:
            axes.axhspan(*known, color=GREEN, alpha=0.16, lw=0, label="95 % interval of E")
        legend_below(axes)
    elif axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")


def _draw_E(axes: Axes, result: FitResult) -> None:
    assert result.parameters is not None
    floor, known = result.parameters["E"], (result.ci95 or {}).get("E")
    origin = "given" if result.fixed_E is not None else "extrapolated"
    axes.axhline(floor, color=GREEN, label=f"E = {floor:.3f}, {origin}")
    if known is not None and None not in known:
        axes.axhspan(*known, color=GREEN, alpha=0.16, lw=0, label="95 % interval of E")


def _draw_reducible(
    axes: Axes, result: FitResult, points: Sequence[Point], colours: _SizeColours | None
) -> None:
    """Draw loss - E on logarithmic axes, where the form with one term is a straight line."""
    assert result.parameters is not None
    sizes, losses = _arrays(points)
    floor = result.parameters["E"]
    shown = losses > floor
    _scatter(axes, sizes[shown], losses[shown] - floor, colours, shown)
    grid = np.geomspace(sizes.min() / 1.5, sizes.max() * 3, 200)
    for data_size, colour in _curves(colours):
        terms = _terms(result.parameters, grid, data_size)
        axes.plot(grid, terms.sum(0), color=colour, zorder=2)
    if colours is not None:
        axes.plot(
            grid,
            _terms(result.parameters, grid, math.inf)[0],
            color=INK,
            ls=":",
            label="infinite data: A/N^alpha",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _si_ticks(axes.xaxis)
    _si_ticks(axes.yaxis)
    axes.set_xlabel(PARAMETERS_AXIS)
    axes.set_ylabel("loss - E, nats per token")
    hidden = len(losses) - int(shown.sum())
    left_out = f", {hidden} points below E not shown" if hidden else ""
    axes.set_title(f"Above E = {floor:.3f}{left_out}")
    if colours is not None:
        axes.legend(loc="lower left")


def _terms(parameters: dict[str, float], sizes: np.ndarray, data_size: float | None) -> np.ndarray:
    """Return the reducible terms of the loss, (T, sizes)."""
    logs = np.log(sizes)
    if data_size is None:
        return np.exp(parameters["alpha"] * (math.log(parameters["N0"]) - logs))[None]
    size_term = np.exp(math.log(parameters["A"]) - parameters["alpha"] * logs)
    data_term = parameters["B"] * data_size ** -parameters["beta"]
    return np.stack([size_term, np.full_like(size_term, data_term)])


def _curves(colours: _SizeColours | None) -> list[tuple[float | None, Colour]]:
    if colours is None:
        return [(None, BLUE)]
    return [(size, colours.colour_of(size)) for size in colours.curve_sizes()]


def _scatter(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    colours: _SizeColours | None,
    shown: np.ndarray | slice = slice(None),
) -> None:
    colour = INK if colours is None else colours.colour_of(colours.sizes[shown])
    few = len(x) <= 40
    axes.scatter(x, y, s=30 if few else 14, c=colour, edgecolors="white", linewidths=0.5, zorder=3)


def _si_ticks(axis: Axes) -> None:
    """Label ticks as 300M or 0.05, at 1 and 3 of each decade, or more if there are few decades."""
    ticker = import_extra("matplotlib.ticker", "plots", "an image")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    parts: tuple[float, ...] = (1.0, 3.0) if decades < 5 else (1.0,)
    if decades < 1.6:
        parts = (1.0, 2.0, 3.0, 5.0, 7.0) if decades > 0.6 else (1.0, 1.2, 1.5, *range(2, 10))
    axis.set_major_locator(ticker.LogLocator(subs=parts, numticks=20))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(_format_si))


def _format_si(value: float, _: object = None) -> str:
    for least, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.999 * least:
            return f"{value / least:.3g}{suffix}"
    return f"{value:.3g}"
