"""The figures of one result; every number in them is one of the result's."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from textwrap import fill, wrap
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
    inline_svg,
    legend_below,
    new_figure,
    plain_log_ticks,
    styled,
)
from entropy_cli.entropy.quantity import SIGNS, Estimate, HistoryPoint
from entropy_cli.results.ladder import at_most
from entropy_cli.results.legend import averages
from entropy_cli.results.published import is_published_var
from entropy_cli.results.schema import Result, ScaleResult
from entropy_cli.results.tables import dead_codes

WIDTH, HEIGHT = 5.6, 4.1  # inches
PUBLISHED = {"last_scale": (4.5, 4.5), "token_weighted": (5.0, 5.1)}
SOURCE = "VAR issue 23"
DODGE = 0.1  # between the markers of one scale, so that none covers another
ENTROPIES = (
    ("marginal", "marginal entropy", GREEN, "s", DODGE),
    ("unigram_entropy", "unigram entropy", ORANGE, "D", 0.0),
    ("assignment_entropy", "assignment entropy", BLUE, "o", -DODGE),
)
AVERAGES = {"token_weighted": (BLUE, "o"), "over_scales": (GREEN, "s"), "last_scale": (VERMILION, "D")}
LINE_STYLES = ("-", "--", "-.", ":")
Draw = Callable[[Axes], None]


def figure_panels(result: Result) -> dict[str, Draw]:
    """Return the panels of a result's figure: what each shows, and a function that draws it."""
    panels = {"Entropies of each scale": scale_entropies}
    if sum(at.temperature != "auto" for at in result.temperatures) > 1:
        panels["Assignment entropy against temperature"] = temperatures
    if result.ladder is not None:
        panels["Rungs of the hard tokens at each scale"] = ladder_rungs
    if len(result.history) > 1:
        panels["Convergence with the number of images"] = convergence
    if any(scale.code_counts for scale in result.scales):
        panels["Codebook usage by rank"] = usage_by_rank
    return {shown: partial(draw, result=result) for shown, draw in panels.items()}


def ladder_rungs(axes: Axes, result: Result) -> None:
    """Draw the rungs of the ladder of hard tokens as steps over the scales."""
    ladder = result.ladder
    assert ladder is not None
    edge_S = np.arange(len(ladder.scale_tokens) + 1) - 0.5
    colours = colour_ramp(len(ladder.rungs))
    for rung, colour in zip(ladder.rungs, colours, strict=True):
        label = f"{rung.id}: {rung.average.token_weighted.value:.3f}, sees {rung.sees}"
        axes.stairs(
            [bound.value for bound in rung.scales],
            edge_S,
            color=colour,
            linewidth=1.6,
            baseline=None,
            label=label,
        )
    names = [short_name(scale) for scale in result.scales]
    axes.set_xticks(np.arange(len(names)), names, fontsize=9 if len(names) < 8 else 8)
    axes.set(xlabel="scale", ylabel="nats per token", xlim=(edge_S[0], edge_S[-1]))
    axes.set_title(fill(f"Hard tokens: {at_most(ladder)}", 53))
    legend_below(axes, 1)


def panels_html(panels: Mapping[str, Draw], subject: str) -> str:
    """Return the HTML of every panel as a figure of its own, so that a small screen stacks them."""
    figures = []
    with styled():
        for shown, draw in panels.items():
            figure = new_figure(WIDTH, HEIGHT)
            axes = figure.add_subplot()
            draw(axes)
            finding = " ".join(axes.get_title(loc="left").split())
            svg = inline_svg(figure, f"{finding}. {shown}, {subject}")
            figures.append(f"<figure>{svg}</figure>")
    return f'<div class="panels">{"".join(figures)}</div>'


def panels_figure(panels: Mapping[str, Draw], heading: Sequence[str]) -> Figure:
    """Draw all panels in one figure, two in a row, below the lines of a heading."""
    last, columns = len(panels) - 1, min(2, len(panels))
    rows = [[i, min(i + 1, last)] for i in range(0, last + 1, 2)]
    lines = [part for line in heading for part in wrap(line, 60 * columns)]
    figure = new_figure(WIDTH * columns, HEIGHT * len(rows) + 0.2 + 0.18 * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11)
    axes = figure.subplot_mosaic(rows)
    for i, draw in enumerate(panels.values()):
        draw(axes[i])
    return figure


def scale_entropies(axes: Axes, result: Result) -> None:
    """Draw ln V and the marginal, unigram and assignment entropy of each scale."""
    scales = result.scales
    x_S = np.arange(len(scales), dtype=float)
    log_vocab = math.log(result.tokenizer.vocab_size)
    axes.axhline(log_vocab, color=INK, linewidth=1, label=f"ln V = {log_vocab:.3f}")
    marginal = [scale.marginal_entropy.value for scale in scales]
    if None not in marginal and len(scales) > 1:
        edge = [scale.assignment_entropy.known for scale in scales] + marginal[::-1]
        x = np.concatenate([x_S - DODGE, x_S[::-1] + DODGE])
        is_bound = any(scale.mutual_information.bound for scale in scales)
        label = f"{SIGNS['lower' if is_bound else '']}mutual information"
        axes.fill(x, edge, facecolor=(BLUE, 0.12), edgecolor=BLUE, linewidth=0.6, label=label)
    for name, label, colour, marker, dodge in ENTROPIES:
        estimates = [getattr(scale, name) for scale in scales]
        plot_with_errors(
            axes, x_S + dodge, estimates, line="-", label=label, color=colour, marker=marker
        )
    label_scales(axes, scales)
    axes.set(ylabel="nats per token", ylim=(0, 1.12 * log_vocab))
    low, *_, high = sorted(2 * scales, key=lambda scale: scale.assignment_entropy.known)
    least, most = low.assignment_entropy.known, high.assignment_entropy.known
    title = f"{least:.2f} ({short_name(low)}) to {most:.2f} ({short_name(high)})"
    if low is high:
        title = f"{least:.2f} nats, {least / log_vocab:.0%} of ln V"
    axes.set_title(fill(f"Assignment entropy: {title}", 53))
    legend_below(axes, 2)


def label_scales(axes: Axes, scales: Sequence[ScaleResult]) -> None:
    """Label the x axis with the names of scales, at 0, 1, ..., and their shares of the tokens."""
    tokens = sum(scale.tokens for scale in scales)
    names = [f"{short_name(scale)}\n{scale.tokens / tokens:.1%}" for scale in scales]
    axes.set_xticks(np.arange(len(scales)), names, fontsize=9 if len(scales) < 8 else 8)
    axes.set(xlabel="scale, and its share of the tokens", xlim=(-0.5, len(scales) - 0.5))


def temperatures(axes: Axes, result: Result) -> None:
    """Draw the averages of the assignment entropy against T, with slopes and VAR's published values."""
    fixed = [one for one in result.temperatures if not isinstance(one.temperature, str)]
    fixed.sort(key=lambda one: float(one.temperature))
    t_T = np.array([float(one.temperature) for one in fixed])
    kinds = averages(result) or {"token_weighted": "assignment entropy"}
    for kind, label in kinds.items():
        colour, marker = AVERAGES[kind]
        estimates_T = [getattr(one.average, kind) for one in fixed]
        curve_T, slope_T = (
            np.array([getattr(estimates, name).known for estimates in estimates_T])
            for name in ("assignment_entropy", "varentropy")
        )
        fine_t, fine = _hermite(np.log(t_T), curve_T, slope_T)
        axes.plot(np.exp(fine_t), fine, color=colour, linewidth=1)
        shown = [estimates.assignment_entropy for estimates in estimates_T]
        plot_with_errors(axes, t_T, shown, label=label, color=colour, marker=marker)
        for t, value, slope in zip(t_T, curve_T, slope_T, strict=True):
            reach = np.exp(np.array([-0.25, 0.25]))
            axes.plot(t * reach, value + slope * np.log(reach), color=colour, linewidth=2.2)
        if kind in PUBLISHED and is_published_var(result.tokenizer):
            low, high = PUBLISHED[kind]
            published = f"{low:g}" if low == high else f"{low:.1f} to {high:.1f}"
            label = f"{published}: {label}, {SOURCE}"
            axes.axhspan(low, high, facecolor=(colour, 0.2), edgecolor=colour, label=label)
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis, (1, 2, 5))
    axes.set(
        xlabel="temperature T (logarithmic; dashes: the slope, varentropy)", ylabel="nats per token"
    )
    ends = dict.fromkeys(
        f"{one.average.token_weighted.assignment_entropy.known:.2f} at T = {one.temperature:g}"
        for one in (fixed[0], fixed[-1])
    )
    axes.set_title(f"Assignment entropy: {' to '.join(ends)}")
    legend_below(axes)


def _hermite(x_n: np.ndarray, y_n: np.ndarray, slope_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate points and slopes by cubic Hermite splines; return the x and y of the curve."""
    u, h_n = np.linspace(0, 1, 25)[:, None], np.diff(x_n)
    fine_y = (
        (1 + 2 * u) * (1 - u) ** 2 * y_n[:-1]
        + u * (1 - u) ** 2 * h_n * slope_n[:-1]
        + u**2 * (3 - 2 * u) * y_n[1:]
        - u**2 * (1 - u) * h_n * slope_n[1:]
    )
    return (x_n[:-1] + u * h_n).T.ravel(), fine_y.T.ravel()


def convergence(axes: Axes, result: Result) -> None:
    """Draw the token-weighted assignment entropy and its interval against the number of images."""
    most = math.log(result.tokenizer.vocab_size)
    draw_history(axes, result.history, "assignment entropy, token-weighted", most)


def draw_history(axes: Axes, history: Sequence[HistoryPoint], name: str, most: float) -> None:
    """Draw a mean and its interval, which is cut at 0 and at `most`, against the number of images."""
    points = [(one.images, one.value, one.half_width) for one in history]
    images_n, value_n, half_n = np.array(points, float).T
    last, half = value_n[-1], history[-1].half_width
    band = {"facecolor": (BLUE, 0.18), "edgecolor": BLUE, "linewidth": 0.8}
    low_n, high_n = np.maximum(0, value_n - half_n), np.minimum(most, value_n + half_n)
    axes.fill_between(images_n, low_n, high_n, label="95 % interval", **band)
    axes.plot(images_n, value_n, color=BLUE, label=name)
    axes.axhline(last, color=INK, linewidth=0.8, linestyle="--", label=f"at the end: {last:.4f}")
    later = value_n[len(value_n) // 8 :]
    spread = max(np.nanmax(half_n[len(half_n) // 8 :], initial=0), float(np.ptp(later)), 1e-9)
    axes.set(xlabel="number of images", ylabel="nats per token")
    axes.set_ylim(last - 2 * spread, last + 2 * spread)
    error = "" if half is None else f" ± {half:.4f} nats (95 %)"
    axes.set_title(f"After {images_n[-1]:,.0f} images: {last:.4f}{error}")
    legend_below(axes)


def usage_by_rank(axes: Axes, result: Result) -> None:
    """Draw how often each code is nearest, the most used first, at every scale."""
    scales, vocab_size = result.scales, result.tokenizer.vocab_size
    styles = zip(scales, colour_ramp(len(scales)), cycle(LINE_STYLES), strict=False)
    for i, (scale, colour, line) in enumerate(styles, 1):
        if scale.code_counts is None or scale.coverage is None:
            continue
        counts_V = np.sort(np.array(scale.code_counts))[::-1]
        share_V = 100 * counts_V[counts_V > 0] / counts_V.sum()
        rank_V = np.arange(1, len(share_V) + 1)
        dead, name = dead_codes(scale), short_name(scale)
        label = f"{name}: {dead} dead, {scale.coverage:.3f}"
        axes.plot(rank_V, share_V, color=colour, linestyle=line, label=label)
        axes.set_title(f"{dead} of {vocab_size} codes were never nearest at {name}")
        # Each label lies on its curve, further to the right than the one before.
        at = int(len(share_V) ** (i / (len(scales) + 1))) - 1
        frame = {"facecolor": PAPER, "edgecolor": colour, "pad": 1.5, "linewidth": 0.8}
        axes.text(rank_V[at], share_V[at], name, fontsize=7, ha="center", va="center", bbox=frame)
    uniform = f"uniform, 1/{vocab_size}"
    axes.axhline(100 / vocab_size, color=INK, linewidth=0.8, linestyle="--", label=uniform)
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
    line: str = "",
    sideways: bool = False,
    **style: Any,  # noqa: ANN401 - of matplotlib's plot
) -> None:
    """Draw estimates with their 95 % intervals; bounds have hollow markers and an arrow.

    Args:
        axes: axes of matplotlib.
        at: the positions on the axis of the categories, which is the y axis if `sideways`.
        estimates: the estimates; those without a value are left out.
        line: the style of a line through all of them, if there is one.
        sideways: whether values grow to the right.
        style: color, marker and label; the sign of bounds precedes the label.
    """
    value = np.array([estimate.value for estimate in estimates], float)
    if line:
        known = ~np.isnan(value)
        axes.plot(at[known], value[known], color=style["color"], linestyle=line, linewidth=1.2)
    for bound, sign in SIGNS.items():
        chosen = [i for i, one in enumerate(estimates) if one.value is not None and one.bound == bound]
        if not chosen:
            continue
        xy = (value[chosen], at[chosen]) if sideways else (at[chosen], value[chosen])
        drawn = {**style, "label": f"{sign}{style['label']}", "linestyle": "none", "markersize": 5}
        if bound:
            drawn["marker"] = arrow_marker(style["marker"], bound, sideways=sideways)
            drawn["markersize"] *= ARROW_SCALE
            axes.plot(*xy, markerfacecolor=PAPER, zorder=4, **drawn)
        else:
            ends = np.array([estimates[i].ci95 or (math.nan, math.nan) for i in chosen])
            error = {"xerr" if sideways else "yerr": np.abs(ends.T - value[chosen])}
            axes.errorbar(*xy, **error, capsize=2.5, **drawn)


def short_name(scale: ScaleResult) -> str:
    """Return the name of a scale without spaces around the x."""
    return scale.name.replace(" x ", "x")
