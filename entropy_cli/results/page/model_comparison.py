"""The comparison of several evaluations: models of one tokenizer, paired on the same images."""

from collections.abc import Sequence
from functools import partial
from textwrap import fill

import numpy as np

from entropy_cli.core.figures import GREEN, ORANGE, Axes, legend_below
from entropy_cli.core.table import Table
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.checks import checks_of_losses
from entropy_cli.results.evaluations.comparable import not_comparable
from entropy_cli.results.evaluations.provenance import provenance
from entropy_cli.results.evaluations.summary import (
    SOURCES,
    few_digits,
    perplexity_text,
    share,
    size_text,
)
from entropy_cli.results.page.comparison import (
    MARGIN,
    Compared,
    compare,
    comparison_report,
    differences_table,
    finding,
    scales_table,
    styles,
)
from entropy_cli.results.page.differences import Difference, subtract
from entropy_cli.results.page.figures import label_scales, plot_with_errors
from entropy_cli.results.page.report import Report
from entropy_cli.results.tables import UNKNOWN, format_estimate

NOTES = (
    "Cross-entropies are compared between models of one tokenizer at one image size: the tokens of "
    "another one are others, and a lower loss of fewer tokens says nothing about the pictures.",
    "A difference on the same images is paired: what is hard about an image is hard for both models and "
    "cancels, so that its error is smaller than that of either cross-entropy.",
)


def loss_difference(reference: Evaluation, other: Evaluation) -> Difference:
    """Compute the cross-entropy of `other` minus that of `reference`."""
    return subtract(reference, other, "cross_entropy", not_comparable(reference, other))


def model_comparison(evaluations: Sequence[Evaluation], sources: Sequence[str]) -> Report:
    """Return the report that compares evaluations; `sources` are their files."""
    several = compare(evaluations, sources, "cross_entropy", loss_difference)
    sizes = [one.model.parameters for one in evaluations]
    cells = [size_text(size).partition(" ")[0] or UNKNOWN for size in sizes]
    tables = [
        differences_table(several, "model", 1, "M parameters", cells),
        _side_by_side(several),
        *scales_table(several),
    ]
    panels = {"Cross-entropy of each scale": partial(_scales, several=several)}
    if len({*sizes} - {None}) > 1:
        panels["Cross-entropy against parameters"] = partial(_sizes, several=several)
    checks = checks_of_losses
    return comparison_report(several, "Models compared", panels, tables, NOTES, checks, provenance)


def _side_by_side(several: Sequence[Compared[Evaluation]]) -> Table:
    """Return a table of the other numbers, with a row for each model."""
    rows = []
    for one in several:
        evaluation, losses = one.result, one.result.average.token_weighted
        per_pixel, check = evaluation.total.bits_per_pixel, evaluation.labels.check
        rows.append(
            [
                one.label,
                format_estimate(losses.gain),
                format_estimate(losses.kl),
                format_estimate(losses.predictive_entropy),
                share(losses.accuracy_top1),
                share(losses.accuracy_top5),
                perplexity_text(losses.perplexity),
                few_digits(evaluation.total.nats_per_image),
                UNKNOWN if per_pixel is None else f"{per_pixel:.4f}",
                UNKNOWN if check is None else format_estimate(check.gain, 1),
                SOURCES[evaluation.labels.source],
            ]
        )
    head = ["model", "gain", "KL(q||p)", "H(p)", "top-1", "top-5", "perplexity"]
    head += ["nats per image", "bits per pixel", "the class's worth", "labels"]
    caption = (
        "token-weighted averages in nats per token, value ± standard error; gain over the unigram "
        "entropy; the class's worth in nats per image"
    )
    return Table("models", "Side by side", head, rows, caption, sortable=True)


def _scales(axes: Axes, several: Sequence[Compared[Evaluation]]) -> None:
    """Draw the cross-entropy of each scale of each model, above A and below the unigram entropy."""
    first = several[0].result.estimate.scales
    for name, label, colour in (
        ("unigram_entropy", "unigram entropy", ORANGE),
        ("assignment_entropy", "A, no floor of hard tokens", GREEN),
    ):
        values = [np.nan if (v := getattr(s, name).value) is None else v for s in first]
        axes.plot(np.arange(len(first)), values, color=colour, linestyle=":", label=label)
    for one, style in styles(several):
        shown = one.scales()
        at = np.arange(len(shown), dtype=float)
        plot_with_errors(axes, at, shown, line="--" if one.reason else "-", **style)
    label_scales(axes, max((one.result.estimate.scales for one in several), key=len))
    axes.set(ylabel="nats per token")
    axes.set_ylim(0, MARGIN * axes.get_ylim()[1])
    axes.set_title(fill(finding("Cross-entropy", several), 50))
    legend_below(axes, 2)


def _sizes(axes: Axes, several: Sequence[Compared[Evaluation]]) -> None:
    """Draw the cross-entropy against the number of parameters."""
    sizes = {}
    for one, style in styles(several):
        parameters = one.result.model.parameters
        if parameters is not None and not one.reason:
            size = parameters / 1e6
            sizes[size] = size_text(parameters).partition(" ")[0]
            plot_with_errors(axes, np.array([size]), [one.average()], **style)
    axes.set(xlabel="million parameters (logarithmic)", ylabel="nats per token", xscale="log")
    axes.minorticks_off()
    axes.set_xticks(list(sizes), list(sizes.values()))
    axes.set_title("Token-weighted cross-entropy against size")
    legend_below(axes)
