"""The picture of a scaling fit: the points, the curve, E with its interval, and what lies above E."""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np

from entropy_cli.commands.fit.points import Point
from entropy_cli.commands.fit.result import FitResult
from entropy_cli.commands.fit.scaling_law import FORMULAS
from entropy_cli.core.extras import import_extra
from entropy_cli.core.figures import BLUE, GREEN, INK, VERMILION, legend_below, new_figure, styled

WIDTH, HEIGHT = 10.0, 4.6
CURVES = 4  # of the form chinchilla: one for each of so many data sizes
TOKENS, PARAMETERS_AXIS, LOSS_AXIS = "tokens", "model size N, parameters", "loss, nats per token"


def draw(result: FitResult, points: Sequence[Point]) -> Any:  # noqa: ANN401 - a figure of matplotlib
    """Losses against sizes, and beside it what lies above E, or the points alone where refused.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    with styled():
        fitted = result.parameters is not None
        figure = new_figure(WIDTH if fitted else 0.62 * WIDTH, HEIGHT)
        axes = figure.subplots(1, 2 if fitted else 1, squeeze=False)[0]
        shades = _Shades(points) if points[0].data_size is not None else None
        _losses(axes[0], result, points, shades)
        if fitted:
            _above(axes[1], result, points, shades)
        if shades is not None:
            bar = figure.colorbar(shades.mapping, ax=list(axes), pad=0.02, aspect=30)
            bar.set_label(f"data size D, {TOKENS}")
            bar.outline.set_visible(False)
            _short_ticks(bar.ax.yaxis)
        figure.align_labels()
    return figure


class _Shades:
    """Colours of data sizes, even in their logarithm."""

    def __init__(self, points: Sequence[Point]) -> None:
        matplotlib = import_extra("matplotlib", "plots", "a picture")
        colors = import_extra("matplotlib.colors", "plots", "a picture")
        cm = import_extra("matplotlib.cm", "plots", "a picture")
        self.sizes = np.array([point.data_size for point in points], dtype=np.float64)
        # Without its yellow end, which is too faint on paper.
        colour_ramp = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256))
        norm = colors.LogNorm(self.sizes.min(), self.sizes.max())
        self.mapping = cm.ScalarMappable(norm, colors.ListedColormap(colour_ramp))

    def of(self, sizes: Any) -> Any:  # noqa: ANN401 - a number or an array, and its colours
        return self.mapping.to_rgba(sizes)

    def picked(self) -> list[float]:
        """Data sizes to draw curves for."""
        inner = np.quantile(np.log(self.sizes), np.linspace(0.05, 0.95, CURVES))
        return [float(size) for size in np.exp(inner)]


def _arrays(points: Sequence[Point]) -> tuple[Any, Any]:
    sizes = np.array([point.size for point in points])
    return sizes, np.array([point.loss for point in points])


def _losses(axes: Any, result: FitResult, points: Sequence[Point], shades: _Shades | None) -> None:  # noqa: ANN401
    sizes, losses = _arrays(points)
    _scatter(axes, sizes, losses, shades)
    if result.parameters is not None:
        grid = np.geomspace(sizes.min() / 1.5, sizes.max() * 3, 200)
        for data_size, colour in _curves(shades):
            above = _terms(result.parameters, grid, data_size).sum(0)
            axes.plot(grid, result.parameters["E"] + above, color=colour, zorder=2)
        _level(axes, result)
    if result.floor is not None:
        floor = result.floor
        name = {"mean": "token-weighted", "last": "last scale"}[floor.average]
        axes.axhline(
            floor.value, color=VERMILION, ls="--", label=f"assignment entropy, {name}: {floor.value:.3f}"
        )
        if floor.half_width is not None:
            ends = floor.value - floor.half_width, floor.value + floor.half_width
            axes.axhspan(*ends, color=VERMILION, alpha=0.12, lw=0)
    axes.set_xscale("log")
    _short_ticks(axes.xaxis)
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


def _level(axes: Any, result: FitResult) -> None:  # noqa: ANN401
    assert result.parameters is not None
    floor, known = result.parameters["E"], (result.ci95 or {}).get("E")
    words = "given" if result.fixed_E is not None else "extrapolated"
    axes.axhline(floor, color=GREEN, label=f"E = {floor:.3f}, {words}")
    if known is not None and None not in known:
        axes.axhspan(*known, color=GREEN, alpha=0.16, lw=0, label="its 95 % interval")


def _above(axes: Any, result: FitResult, points: Sequence[Point], shades: _Shades | None) -> None:  # noqa: ANN401
    """What lies above E, both axes logarithmic: the form with one term is a straight line."""
    assert result.parameters is not None
    sizes, losses = _arrays(points)
    floor = result.parameters["E"]
    shown = losses > floor
    _scatter(axes, sizes[shown], losses[shown] - floor, shades, shown)
    grid = np.geomspace(sizes.min() / 1.5, sizes.max() * 3, 200)
    for data_size, colour in _curves(shades):
        terms = _terms(result.parameters, grid, data_size)
        axes.plot(grid, terms.sum(0), color=colour, zorder=2)
    if shades is not None:
        axes.plot(
            grid,
            _terms(result.parameters, grid, math.inf)[0],
            color=INK,
            ls=":",
            label="endless data: A/N^alpha",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _short_ticks(axes.xaxis)
    _short_ticks(axes.yaxis)
    axes.set_xlabel(PARAMETERS_AXIS)
    axes.set_ylabel("loss - E, nats per token")
    hidden = len(losses) - int(shown.sum())
    left_out = f", {hidden} points below E not shown" if hidden else ""
    axes.set_title(f"Above E = {floor:.3f}{left_out}")
    if shades is not None:
        axes.legend(loc="lower left")


def _terms(parameters: dict[str, float], sizes: Any, data_size: float | None) -> Any:  # noqa: ANN401
    """The reducible parts of the loss, (T, sizes)."""
    logs = np.log(sizes)
    if data_size is None:
        return np.exp(parameters["alpha"] * (math.log(parameters["N0"]) - logs))[None]
    of_size = np.exp(math.log(parameters["A"]) - parameters["alpha"] * logs)
    return np.stack([of_size, np.full_like(of_size, parameters["B"] * data_size ** -parameters["beta"])])


def _curves(shades: _Shades | None) -> list[tuple[float | None, Any]]:
    return [(None, BLUE)] if shades is None else [(size, shades.of(size)) for size in shades.picked()]


def _scatter(axes: Any, x: Any, y: Any, shades: _Shades | None, shown: Any = slice(None)) -> None:  # noqa: ANN401
    colour = INK if shades is None else shades.of(shades.sizes[shown])
    few = len(x) <= 40
    axes.scatter(x, y, s=30 if few else 14, c=colour, edgecolors="white", linewidths=0.5, zorder=3)


def _short_ticks(axis: Any) -> None:  # noqa: ANN401
    """Numbers such as 300M and 0.05, at 1 and 3 of a decade where there are few decades."""
    ticker = import_extra("matplotlib.ticker", "plots", "a picture")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    parts: tuple[float, ...] = (1.0, 3.0) if decades < 5 else (1.0,)
    if decades < 1.6:
        parts = (1.0, 2.0, 3.0, 5.0, 7.0) if decades > 0.6 else (1.0, 1.2, 1.5, *range(2, 10))
    axis.set_major_locator(ticker.LogLocator(subs=parts, numticks=20))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(_short))


def _short(value: float, _: object = None) -> str:
    for least, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.999 * least:
            return f"{value / least:.3g}{suffix}"
    return f"{value:.3g}"
