"""The figures of an evaluation; every number in them is one of the result's."""

import math
from collections.abc import Callable
from functools import partial
from textwrap import fill

import numpy as np

from entropy_cli.core.figures import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Axes,
    legend_below,
)
from entropy_cli.results.checks import temperature_text
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.page.figures import (
    DODGE,
    Draw,
    draw_history,
    label_scales,
    plot_with_errors,
    short_name,
)

HEADROOM = 1.12  # of the tallest line, for the legend's markers
LINES = (
    ("cross_entropy_null", "null class", PURPLE, "v", DODGE),
    ("predictive_entropy", "entropy H(p)", SKY, "^", -DODGE),
    ("cross_entropy", "cross-entropy", VERMILION, "o", 0.0),
)


def figure_panels(evaluation: Evaluation) -> dict[str, Draw]:
    """Return the panels of an evaluation's figure: what each shows, and a function that draws it."""
    panels: dict[str, Callable[..., None]] = {"Cross-entropy of each scale": losses_by_scale}
    if evaluation.average.token_weighted.kl.value is not None:
        panels["Soft loss of each scale"] = soft_losses
    panels["Accuracy of each scale"] = accuracies
    if len(evaluation.cross_entropy_history) > 1:
        panels["Convergence with the number of images"] = convergence
    return {shown: partial(draw, evaluation=evaluation) for shown, draw in panels.items()}


def losses_by_scale(axes: Axes, evaluation: Evaluation) -> None:
    """Draw the cross-entropy of each scale between ln V, the unigram entropy, the ladder and A."""
    estimate, scales = evaluation.estimate, evaluation.estimate.scales
    x_S = np.arange(len(scales), dtype=float)
    log_vocab = math.log(estimate.tokenizer.vocab_size)
    axes.axhline(log_vocab, color=INK, linewidth=1, label=f"uniform guess: {log_vocab:.3f}")
    for name, label, colour, marker in (
        ("unigram_entropy", "unigram entropy", ORANGE, "D"),
        ("assignment_entropy", "H(q) = A", GREEN, "s"),
    ):
        shown = [getattr(scale, name) for scale in scales]
        plot_with_errors(axes, x_S, shown, line=":", label=label, color=colour, marker=marker)
    if estimate.ladder is not None:
        lowest = next(r for r in estimate.ladder.rungs if r.id == estimate.ladder.lowest.rung)
        edge_S = np.arange(len(scales) + 1) - 0.5
        limits = [bound.upper95 for bound in lowest.scales]
        label = f"≤ {lowest.id} rung"
        axes.stairs(limits, edge_S, color=FAINT, linewidth=1.6, baseline=None, label=label)
    for name, label, colour, marker, dodge in LINES:
        shown = [getattr(losses, name) for losses in evaluation.scales]
        if any(one.value is not None for one in shown):
            plot_with_errors(
                axes, x_S + dodge, shown, line="-", label=label, color=colour, marker=marker
            )
    label_scales(axes, scales)
    shown = [getattr(losses, name).value or 0.0 for losses in evaluation.scales for name, *_ in LINES]
    axes.set(ylabel="nats per token", ylim=(0, HEADROOM * max([log_vocab, *shown])))
    axes.set_title(fill(f"Cross-entropy: {_ends(evaluation)}", 53))
    legend_below(axes, 2)


def soft_losses(axes: Axes, evaluation: Evaluation) -> None:
    """Draw the soft loss of each scale as a stack of its floor H(q) and KL(q||p)."""
    first, scales = evaluation.estimate.temperatures[0], evaluation.estimate.scales
    x_S = np.arange(len(scales), dtype=float)
    floor_S = np.array([scale.assignment_entropy.known for scale in first.scales])
    kl_S = np.array([losses.kl.value for losses in evaluation.scales], float)
    axes.bar(x_S, floor_S, 0.7, color=GREEN, label="H(q): the floor")
    axes.bar(x_S, kl_S, 0.7, bottom=floor_S, color=BLUE, label="KL(q||p): above it")
    errors = [losses.target_cross_entropy for losses in evaluation.scales]
    plot_with_errors(axes, x_S, errors, label="soft loss", color=INK, marker="_")
    label_scales(axes, scales)
    axes.set(ylabel="nats per token", ylim=(0, HEADROOM * np.nanmax(floor_S + kl_S)))
    kl, at = evaluation.average.token_weighted.kl.known, temperature_text(first.temperature)
    axes.set_title(f"KL(q||p) = {kl:.3f} nats per token at {at}")
    legend_below(axes, 2)


def accuracies(axes: Axes, evaluation: Evaluation) -> None:
    """Draw the share of tokens that are the likeliest code, or one of the five likeliest."""
    scales = evaluation.estimate.scales
    x_S = np.arange(len(scales), dtype=float)
    for name, label, colour, marker in (
        ("accuracy_top5", "top-5", BLUE, "s"),
        ("accuracy_top1", "top-1", VERMILION, "o"),
    ):
        shown = [getattr(losses, name) for losses in evaluation.scales]
        plot_with_errors(axes, x_S, shown, line="-", label=label, color=colour, marker=marker)
    label_scales(axes, scales)
    axes.set(ylabel="share of the tokens", ylim=(0, None))
    losses = evaluation.average.token_weighted
    top1, top5 = (100 * one.known for one in (losses.accuracy_top1, losses.accuracy_top5))
    axes.set_title(f"Accuracy: top-1 {top1:.1f} %, top-5 {top5:.1f} % of all tokens")
    legend_below(axes, 2)


def convergence(axes: Axes, evaluation: Evaluation) -> None:
    """Draw the token-weighted cross-entropy and its interval against the number of images."""
    history = evaluation.cross_entropy_history
    draw_history(axes, history, "cross-entropy, token-weighted", math.inf)


def _ends(evaluation: Evaluation) -> str:
    """Say between which values the cross-entropies of the scales lie."""
    pairs = zip(evaluation.estimate.scales, evaluation.scales, strict=True)
    found = sorted((losses.cross_entropy.known, short_name(scale)) for scale, losses in pairs)
    return " to ".join(dict.fromkeys(f"{value:.2f} ({scale})" for value, scale in (found[0], found[-1])))
