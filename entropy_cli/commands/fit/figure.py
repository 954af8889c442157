"""Figure of a scaling fit: points, curve, E with its interval, and the reducible loss."""

import math
from textwrap import fill

import numpy as np

from entropy_cli.commands.fit.points import Points
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


def draw(result: FitResult, points: Points) -> Figure:
    """Draw losses against sizes beside reducible losses, or the points alone if the fit is refused.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    with styled():
        fitted = result.parameters is not None
        figure = new_figure(WIDTH if fitted else 0.62 * WIDTH, HEIGHT)
        axes = figure.subplots(1, 2 if fitted else 1, squeeze=False)[0]
        colours = _size_colours(points.size_TP[1]) if len(points.size_TP) > 1 else None
        _draw_losses(axes[0], result, points, colours)
        if fitted:
            _draw_reducible(axes[1], result, points, colours)
        if colours is not None:
            bar = figure.colorbar(colours, ax=list(axes), pad=0.02, aspect=30)
            bar.set_label("data size D, tokens")
            bar.outline.set_visible(False)
            _si_ticks(bar.ax.yaxis)
        figure.align_labels()
    return figure


def _size_colours(data_size_P: np.ndarray) -> Colour:
    """Return a mapping of data sizes to colours, on a logarithmic scale."""
    matplotlib = import_extra("matplotlib", "plots", "an image")
    colors = import_extra("matplotlib.colors", "plots", "an image")
    cm = import_extra("matplotlib.cm", "plots", "an image")
    # The yellow end is too faint on paper.
    colour_ramp = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256))
    norm = colors.LogNorm(data_size_P.min(), data_size_P.max())
    return cm.ScalarMappable(norm, colors.ListedColormap(colour_ramp))


def _draw_losses(axes: Axes, result: FitResult, points: Points, colours: Colour | None) -> None:
    _draw_points(axes, result, points, colours, 0.0)
    title, known = FORMULAS[result.form], result.E_range95
    if result.parameters is not None:
        E, known = result.parameters["E"], (result.ci95 or {}).get("E")
        origin = "given" if result.fixed_E is not None else "extrapolated"
        axes.axhline(E, color=GREEN, label=f"E = {E:.3f}, {origin}")
    if known is not None and None not in known:
        axes.axhspan(*known, color=GREEN, alpha=0.16, lw=0, label="95 % interval of E")
    if result.floor is not None:
        floor = result.floor
        name = {"mean": "token-weighted", "last": "final scale"}[floor.average]
        axes.axhline(
            floor.value, color=VERMILION, ls="--", label=f"assignment entropy, {name}: {floor.value:.3f}"
        )
        if floor.half_width is not None:
            ends = floor.value - floor.half_width, floor.value + floor.half_width
            axes.axhspan(*ends, color=VERMILION, alpha=0.12, lw=0)
    axes.set_ylabel("loss, nats per token")
    axes.set_title(title if result.verdict == "ok" else f"{title}: {result.verdict}")
    if result.parameters is None:
        axes.set_title(fill(f"{title}: refused. {result.reason[0].upper()}{result.reason[1:]}.", 60))
        legend_below(axes)
    elif axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")


def _draw_reducible(axes: Axes, result: FitResult, points: Points, colours: Colour | None) -> None:
    """Draw loss - E on logarithmic axes, where the form with one term is a straight line."""
    assert result.parameters is not None
    E = result.parameters["E"]
    grid = _draw_points(axes, result, points, colours, E)
    if colours is not None:
        term = _terms(result.parameters, grid, math.inf)[0]
        axes.plot(grid, term, color=INK, ls=":", label="infinite data: A/N^alpha")
        axes.legend(loc="lower left")
    axes.set_yscale("log")
    _si_ticks(axes.yaxis)
    axes.set_ylabel("loss - E, nats per token")
    hidden = int((points.loss_P <= E).sum())
    left_out = f", {hidden} points below E not shown" if hidden else ""
    axes.set_title(f"Above E = {E:.3f}{left_out}")


def _draw_points(
    axes: Axes, result: FitResult, points: Points, colours: Colour | None, base: float
) -> np.ndarray:
    """Draw the losses less a base, and the curves if there are any; return the sizes of the curves."""
    above_P = points.loss_P > base
    size_TP, loss_P = points.size_TP[:, above_P], points.loss_P[above_P]
    colour = INK if colours is None else colours.to_rgba(size_TP[1])
    axes.scatter(
        size_TP[0],
        loss_P - base,
        s=30 if len(loss_P) <= 40 else 14,
        c=colour,
        edgecolors="white",
        linewidths=0.5,
        zorder=3,
    )
    size_P = points.size_TP[0]
    grid = np.geomspace(size_P.min() / 1.5, size_P.max() * 3, 200)
    if result.parameters is not None:
        for data_size, colour in _curves(points, colours):
            terms = _terms(result.parameters, grid, data_size).sum(0)
            axes.plot(grid, result.parameters["E"] - base + terms, color=colour, zorder=2)
    axes.set_xscale("log")
    _si_ticks(axes.xaxis)
    axes.set_xlabel("model size N, parameters")
    return grid


def _terms(parameters: dict[str, float], sizes: np.ndarray, data_size: float | None) -> np.ndarray:
    """Return the reducible terms of the loss, (T, sizes)."""
    logs = np.log(sizes)
    if data_size is None:
        return np.exp(parameters["alpha"] * (math.log(parameters["N0"]) - logs))[None]
    size_term = np.exp(math.log(parameters["A"]) - parameters["alpha"] * logs)
    data_term = parameters["B"] * data_size ** -parameters["beta"]
    return np.stack([size_term, np.full_like(size_term, data_term)])


def _curves(points: Points, colours: Colour | None) -> list[tuple[float | None, Colour]]:
    """Return the data size and colour of each curve."""
    if colours is None:
        return [(None, BLUE)]
    inner = np.quantile(np.log(points.size_TP[1]), np.linspace(0.05, 0.95, CURVES))
    return [(size, colours.to_rgba(size)) for size in np.exp(inner).tolist()]


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
