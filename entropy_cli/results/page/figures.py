"""The figures of one result; every number in them is one of the result's."""

import math
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from entropy_cli.core.figures import (
    ARROW_SCALE,
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    VERMILION,
    Axes,
    Figure,
    arrow_marker,
    colour_ramp,
    legend_below,
    new_figure,
    plain_log_ticks,
)
from entropy_cli.entropy.quantity import Bound, Estimate
from entropy_cli.results.legend import averages
from entropy_cli.results.published import is_published_var
from entropy_cli.results.schema import Result
from entropy_cli.results.tables import dead_codes, headline, result_name, temperature_text

WIDTH, HEIGHT = 5.6, 4.1  # inches
PUBLISHED = {"last_scale": (4.5, 4.5), "token_weighted": (5.0, 5.1)}
SOURCE = "VAR issue 23"
ENTROPIES = (
    ("marginal", "marginal entropy", GREEN, "s"),
    ("unigram_entropy", "unigram entropy", ORANGE, "D"),
    ("assignment_entropy", "assignment entropy", BLUE, "o"),
)
Draw = Callable[[Axes, Result], None]


def figure_panels(result: Result) -> dict[str, Draw]:
    """Return the panels of a result's figure: titles, and functions that draw onto matplotlib axes."""
    panels: dict[str, Draw] = {"Entropies of each scale": scale_entropies}
    if len(result.temperatures) > 1:
        panels["Assignment entropy against temperature"] = temperatures
    if len(result.history) > 1:
        panels["Convergence with the number of images"] = convergence
    if any(scale.code_counts for scale in result.scales):
        panels["Codebook usage by rank"] = usage_by_rank
    return panels


def scale_entropies(axes: Axes, result: Result) -> None:
    """Draw ln V and the marginal, unigram and assignment entropy of each scale."""
    scales = result.scales
    x_S = np.arange(len(scales))
    log_vocab = math.log(result.tokenizer.vocab_size)
    axes.axhline(log_vocab, color=INK, linewidth=1, label=f"ln V = {log_vocab:.3f}")
    soft, marginal = (
        [getattr(scale, name).value for scale in scales]
        for name in ("assignment_entropy", "marginal_entropy")
    )
    if None not in marginal:
        at_least = ", at least" if any(scale.mutual_information.bound for scale in scales) else ""
        label = f"mutual information{at_least}"
        axes.fill_between(x_S, soft, marginal, color=BLUE, alpha=0.12, label=label)
        if len(scales) == 1:
            axes.bar(0, marginal[0] - soft[0], 0.3, soft[0], color=BLUE, alpha=0.12)
    for name, label, colour, marker in ENTROPIES:
        estimates = [getattr(scale, name) for scale in scales]
        plot_with_errors(axes, x_S, estimates, label=label, color=colour, marker=marker)
    tokens = sum(scale.tokens for scale in scales)
    names = [f"{scale.name.replace(' x ', 'x')}\n{scale.tokens / tokens:.1%}" for scale in scales]
    axes.set_xticks(x_S, names, fontsize=9 if len(scales) < 8 else 8)
    axes.set(xlabel="scale, and its share of the tokens", ylabel="nats per token")
    axes.set(xlim=(-0.5, len(scales) - 0.5), ylim=(0, 1.06 * log_vocab))
    legend_below(axes, 2)


def temperatures(axes: Axes, result: Result) -> None:
    """Draw the averages of the assignment entropy against T, with slopes and VAR's published values."""
    fixed = [one for one in result.temperatures if not isinstance(one.temperature, str)]
    fixed.sort(key=lambda one: float(one.temperature))
    t_T = np.array([float(one.temperature) for one in fixed])
    kinds = averages(result) or {"token_weighted": "assignment entropy"}
    colours = {"token_weighted": BLUE, "over_scales": GREEN, "last_scale": VERMILION}
    for kind, label in kinds.items():
        estimates_T = [getattr(one.average, kind) for one in fixed]
        curve_T, slope_T = (
            np.array([getattr(estimates, name).known for estimates in estimates_T])
            for name in ("assignment_entropy", "varentropy")
        )
        fine_t, fine = _hermite(np.log(t_T), curve_T, slope_T)
        axes.plot(np.exp(fine_t), fine, color=colours[kind], linewidth=1, alpha=0.6)
        plot_with_errors(
            axes,
            t_T,
            [estimates.assignment_entropy for estimates in estimates_T],
            label=label,
            color=colours[kind],
            marker="o",
            linestyle="none",
        )
        for t, value, slope in zip(t_T, curve_T, slope_T, strict=True):
            reach = np.exp(np.array([-0.25, 0.25]))
            axes.plot(t * reach, value + slope * np.log(reach), color=colours[kind], linewidth=2.2)
        if kind in PUBLISHED and is_published_var(result.tokenizer):
            low, high = PUBLISHED[kind]
            published = f"{low:g}" if low == high else f"{low:.1f} to {high:.1f}"
            axes.axhspan(
                low,
                high,
                color=colours[kind],
                alpha=0.35,
                linewidth=1.5 * (low == high),
                label=f"{published}: {label}, {SOURCE}",
            )
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis, (1, 2, 5))
    axes.set(
        xlabel="temperature T (logarithmic; dashes: the slope, varentropy)", ylabel="nats per token"
    )
    legend_below(axes)


def _hermite(x_n: np.ndarray, y_n: np.ndarray, slope_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate points and slopes by cubic Hermite splines; return the x and y of the curve."""
    fine_x, fine_y = [x_n[:1]], [y_n[:1]]
    u = np.linspace(0, 1, 25)[1:]
    for i in range(len(x_n) - 1):
        h = x_n[i + 1] - x_n[i]
        fine_x.append(x_n[i] + u * h)
        fine_y.append(
            (1 + 2 * u) * (1 - u) ** 2 * y_n[i]
            + u * (1 - u) ** 2 * h * slope_n[i]
            + u**2 * (3 - 2 * u) * y_n[i + 1]
            - u**2 * (1 - u) * h * slope_n[i + 1]
        )
    return np.concatenate(fine_x), np.concatenate(fine_y)


def convergence(axes: Axes, result: Result) -> None:
    """Draw the token-weighted assignment entropy and its interval against the number of images."""
    images_n = np.array([point.images for point in result.history])
    value_n = np.array([point.value for point in result.history])
    half_n = np.array(
        [math.nan if point.half_width is None else point.half_width for point in result.history]
    )
    axes.fill_between(
        images_n, value_n - half_n, value_n + half_n, color=BLUE, alpha=0.18, label="95 % interval"
    )
    axes.plot(images_n, value_n, color=BLUE, label="assignment entropy, token-weighted")
    axes.axhline(
        value_n[-1], color=INK, linewidth=0.8, linestyle="--", label=f"at the end: {value_n[-1]:.4f}"
    )
    later = value_n[len(value_n) // 8 :]
    spread = max(np.nanmax(half_n[len(half_n) // 8 :], initial=0), float(np.ptp(later)), 1e-9)
    axes.set(
        xlabel="images",
        ylabel="nats per token",
        ylim=(value_n[-1] - 2 * spread, value_n[-1] + 2 * spread),
    )
    legend_below(axes)


def usage_by_rank(axes: Axes, result: Result) -> None:
    """Draw how often each code is nearest, the most used first, at every scale."""
    for scale, colour in zip(result.scales, colour_ramp(len(result.scales)), strict=True):
        if scale.code_counts is None or scale.coverage is None:
            continue
        counts_V = np.sort(np.array(scale.code_counts))[::-1]
        used = counts_V > 0
        axes.plot(
            np.arange(1, used.sum() + 1),
            100 * counts_V[used] / counts_V.sum(),
            color=colour,
            label=f"{scale.name.replace(' x ', 'x')}: {dead_codes(scale)} dead, {scale.coverage:.3f}",
        )
    vocab_size = result.tokenizer.vocab_size
    axes.axhline(
        100 / vocab_size, color=INK, linewidth=0.8, linestyle="--", label=f"uniform, 1/{vocab_size}"
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="rank of the code; below: dead codes and coverage of each scale",
        ylabel="share of the tokens, %",
    )
    plain_log_ticks(axes.xaxis)
    plain_log_ticks(axes.yaxis)
    legend_below(axes)


def plot_with_errors(
    axes: Axes,
    at: np.ndarray,
    estimates: Sequence[Estimate],
    *,
    sideways: bool = False,
    **style: Any,  # noqa: ANN401 - of its errorbar
) -> None:
    """Draw estimates with their 95 % intervals; bounds have hollow markers and an arrow.

    Args:
        axes: axes of matplotlib.
        at: the positions on the axis of the categories.
        estimates: the estimates; those without a value are left out.
        sideways: whether the categories are on the y axis.
        style: the style of the markers and lines, and the label.
    """
    known = [i for i, estimate in enumerate(estimates) if estimate.value is not None]
    if not known:
        return
    value = np.array([estimates[i].known for i in known])
    ends = [estimates[i].ci95 or (math.nan, math.nan) for i in known]
    error = np.abs(np.array(ends).T - value)
    filled = [n for n, i in enumerate(known) if not estimates[i].bound]
    style = {"linewidth": 1.2, "markersize": 5, "capsize": 2.5, "markevery": filled, **style}
    label = style["label"]
    style["label"] = label if filled else None
    if sideways:
        axes.errorbar(value, at[known], xerr=error, **{**style, "linestyle": "none"})
    else:
        axes.errorbar(at[known], value, yerr=error, **style)
    sides: dict[Bound, str] = {"lower": "least", "upper": "most"}
    for bound, side in sides.items():
        bounds = [i for i in known if estimates[i].bound == bound]
        if bounds:
            x, y = at[bounds], np.array([estimates[i].known for i in bounds])
            axes.plot(
                *((y, x) if sideways else (x, y)),
                marker=arrow_marker(style["marker"], bound, sideways=sideways),
                markersize=ARROW_SCALE * style["markersize"],
                markerfacecolor=PAPER,
                markeredgecolor=style["color"],
                linestyle="none",
                zorder=4,
                label=f"{label}, at {side}",
            )


def report_figure(result: Result) -> Figure:
    """Draw all panels in one figure, below the headline."""
    panels = figure_panels(result)
    rows, columns = -(-len(panels) // 2), min(2, len(panels))
    figure = new_figure(WIDTH * columns, HEIGHT * rows + 0.7)
    subject, value, details = headline(result)
    title = "\n".join([f"{result_name(result)}: {value}", *wrap(f"{subject}; {details}", 62 * columns)])
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    grid = figure.add_gridspec(rows, columns)
    for i, (title, draw) in enumerate(panels.items()):
        row, column = divmod(i, columns)
        alone = i == len(panels) - 1 and column == 0
        axes = figure.add_subplot(grid[row, :] if alone else grid[row, column])
        axes.set_title(title)
        draw(axes, result)
    return figure


def alt_text(title: str, result: Result) -> str:
    """Describe a panel for readers who can't see it."""
    return f"{title}, of {result_name(result)} at {temperature_text(result)}"
