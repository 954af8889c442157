"""The comparison of several estimates: their assignment entropies, and numbers in common units."""

import math
from collections.abc import Sequence
from functools import partial
from textwrap import fill

import numpy as np

from entropy_cli.core.figures import Axes, legend_below, plain_log_ticks
from entropy_cli.core.table import Table
from entropy_cli.results.ladder import ladders_tables
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
from entropy_cli.results.page.figures import ENTROPIES, plot_with_errors
from entropy_cli.results.page.report import Report
from entropy_cli.results.path import is_drawn
from entropy_cli.results.provenance import provenance
from entropy_cli.results.schema import Result
from entropy_cli.results.summary import checks_of
from entropy_cli.results.tables import UNKNOWN, caption_with_bounds, format_estimate

NOTES = (
    "Even at the same temperature, assignment entropies are comparable only between tokenizers "
    "whose latents have the same magnitude: multiplying latents and codes by c is like dividing the "
    "temperature by c squared.",
    "Nats per image and bits per pixel count all tokens of an image, so they compare tokenizers "
    "with different numbers of tokens.",
)


def difference(reference: Result, other: Result) -> Difference:
    """Compute the assignment entropy of `other` minus that of `reference`."""
    return subtract(reference, other, "assignment_entropy", _not_comparable(reference, other))


def _not_comparable(reference: Result, other: Result) -> str:
    """Return why the assignment entropies of two results can't be compared, or ""."""
    rules = [result.tokenizer.rule for result in (reference, other)]
    if rules[0] != rules[1]:
        return f"different rules ({rules[1]}, {rules[0]})"
    temperatures = [{scale.temperature for scale in result.scales} for result in (reference, other)]
    return "different temperatures" if temperatures[0] != temperatures[1] else ""


def estimate_comparison(results: Sequence[Result], sources: Sequence[str]) -> Report:
    """Return the report that compares results; `sources` are their files."""
    several = compare(results, sources, "assignment_entropy", difference)
    temperatures = list(map(_temperature, results))
    tables = [
        differences_table(several, "result", 5, "T", temperatures),
        _side_by_side(several),
        *scales_table(several),
        *ladders_tables({one.label: one.result.ladder for one in several}),
    ]
    panels = {
        "Token-weighted averages": partial(_averages, several=several),
        "Assignment entropy of each scale": partial(_scales, several=several),
    }
    title = "Assignment entropies compared"
    return comparison_report(several, title, panels, tables, NOTES, checks_of, provenance)


def _temperature(result: Result) -> str:
    """Return the temperature, and whether tokens were drawn at it."""
    temperatures = {scale.temperature for scale in result.scales}
    at = f"{temperatures.pop():g}" if len(temperatures) == 1 else "by scale"
    return f"{at}, drawn" if is_drawn(result) else at


def _side_by_side(several: Sequence[Compared[Result]]) -> Table:
    """Return a table of the other quantities, with a row for each result."""
    rows = []
    for one in several:
        result, average = one.result, one.result.average.token_weighted
        tokenizer, size = result.tokenizer, result.settings.image_size
        entropy, tokens = average.assignment_entropy, sum(scale.tokens for scale in result.scales)
        per_pixel = None if size is None else tokens / math.log(2) / size**2  # bits per nat per token
        rows.append(
            [
                one.label,
                format_estimate(entropy, 2, tokens),
                UNKNOWN if per_pixel is None else format_estimate(entropy, 4, per_pixel),
                format_estimate(average.unigram_entropy),
                format_estimate(average.mutual_information),
                format_estimate(average.usage_estimate, 1, 100, " %"),
                tokenizer.family,
                str(tokenizer.vocab_size),
                str(tokens),
            ]
        )
    head = ["result", "nats per image", "bits per pixel", "unigram entropy", "mutual information"]
    head += ["codebook usage", "family", "codes", "tokens"]
    caption = caption_with_bounds(
        "assignment entropy per image and per pixel, then token-weighted averages in nats per token; "
        "value ± standard error",
        rows,
    )
    return Table("results", "Side by side", head, rows, caption, sortable=True)


def _averages(axes: Axes, several: Sequence[Compared[Result]]) -> None:
    """Draw the token-weighted averages, a row for each result."""
    y = np.arange(len(several), dtype=float)[::-1]
    for name, label, colour, marker, dodge in ENTROPIES:
        estimates = [getattr(one.result.average.token_weighted, name) for one in several]
        plot_with_errors(
            axes, y + dodge, estimates, sideways=True, label=label, color=colour, marker=marker
        )
    names = [fill(one.name, 20) + ("\nNOT COMPARABLE" if one.reason else "") for one in several]
    axes.set_yticks(y, names, fontsize=min(9, 54 / len(several)))
    axes.set(xlabel="nats per token", ylim=(-0.6, len(several) - 0.4))
    axes.set_xlim(0, MARGIN * axes.get_xlim()[1])
    axes.set_title(fill(finding("Token-weighted", several), 42))
    legend_below(axes)


def _scales(axes: Axes, several: Sequence[Compared[Result]]) -> None:
    """Draw the assignment entropy of each scale against its number of tokens."""
    for one, style in styles(several):
        tokens_S = np.array([scale.tokens for scale in one.result.scales], float)
        plot_with_errors(axes, tokens_S, one.scales(), line="--" if one.reason else "-", **style)
    axes.set(xlabel="tokens of the scale (logarithmic)", ylabel="nats per token", xscale="log")
    plain_log_ticks(axes.xaxis)
    axes.set_ylim(0, MARGIN * axes.get_ylim()[1])
    axes.set_title(fill(finding("Final scale", several, "last_scale"), 50))
    legend_below(axes)
