"""The comparison of several results: their numbers in common units, and differences with errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from textwrap import fill

import numpy as np

from entropy_cli.core.figures import SERIES, Axes, legend_below, legend_name, plain_log_ticks
from entropy_cli.core.table import Cell, Table, lines
from entropy_cli.results.ladder import ladders_tables
from entropy_cli.results.page.differences import Difference, Measured, subtract
from entropy_cli.results.page.figures import ENTROPIES, plot_with_errors
from entropy_cli.results.page.report import NUMBERS, Report, estimates_of, origin
from entropy_cli.results.path import is_drawn
from entropy_cli.results.provenance import provenance
from entropy_cli.results.schema import Estimates, Result, Severity
from entropy_cli.results.summary import checks_of
from entropy_cli.results.tables import UNKNOWN, caption_with_bounds, format_estimate

TITLE = "Assignment entropies compared"
MARGIN = 1.04  # beyond the largest value, for its marker
NOTES = (
    "Even at the same temperature, assignment entropies are comparable only between tokenizers "
    "whose latents have the same magnitude: multiplying latents and codes by c is like dividing the "
    "temperature by c squared.",
    "Nats per image and bits per pixel count all tokens of an image, so they compare tokenizers "
    "with different numbers of tokens.",
)
UNPAIRED = "Differences are unpaired where the images are not those of the first result."


def difference(reference: Result, other: Result) -> Difference:
    """Compute the assignment entropy of `other` minus that of `reference`."""
    name = "assignment_entropy"
    before, after = (
        Measured(result, result.average.token_weighted.assignment_entropy, name)
        for result in (reference, other)
    )
    return subtract(before, after, _not_comparable(reference, other))


def _not_comparable(reference: Result, other: Result) -> str:
    """Return why the assignment entropies of two results can't be compared, or ""."""
    rules = [result.tokenizer.rule for result in (reference, other)]
    if rules[0] != rules[1]:
        return f"different rules ({rules[1]}, {rules[0]})"
    temperatures = [{scale.temperature for scale in result.scales} for result in (reference, other)]
    if temperatures[0] != temperatures[1]:
        return "different temperatures"
    return ""


@dataclass(frozen=True)
class Compared:
    """A result in a comparison: its name, and its difference from the first; None for the first."""

    name: str
    result: Result
    difference: Difference | None

    @property
    def caveat(self) -> str:
        """Why the result's assignment entropy can't be compared with the first result's, or ""."""
        reason = self.difference.not_comparable if self.difference else ""
        return f"NOT COMPARABLE: {reason}" if reason else ""

    @property
    def label(self) -> str:
        """The name with the caveat on a second line, for tables and figures."""
        return lines(*filter(None, (self.name, self.caveat)))

    @property
    def average(self) -> Estimates:
        """The token-weighted average."""
        return self.result.average.token_weighted


def comparison_report(results: Sequence[Result], sources: Sequence[str]) -> Report:
    """Return the report that compares results; `sources` are their files."""
    names, changes = short_names(sources), [difference(results[0], other) for other in results[1:]]
    several = list(map(Compared, names, results, [None, *changes]))
    ladders = ladders_tables({one.label: one.result.ladder for one in several})
    unpaired = [] if all(change.paired for change in changes) else [UNPAIRED]
    return Report(
        title=f"{TITLE}: {', '.join(names)}",
        heading=TITLE,
        headline=f"{_finding('Assignment entropy', several, 'token_weighted')} nats per token",
        warnings=[
            f"{one.name} is NOT COMPARABLE with {names[0]}: {one.difference.not_comparable}."
            for one in several
            if one.difference and one.caveat
        ]
        + _checks(several, "wrong"),
        details=f"Token-weighted averages. Differences are from {names[0]}.",
        subject=f"of {', '.join(one.label for one in several)}".replace("\n", " "),
        panels={
            "Token-weighted averages": partial(_averages, several=several),
            "Assignment entropy of each scale": partial(_scales, several=several),
        },
        tables=[_differences(several), _side_by_side(several), *_by_scale(several), *ladders],
        terms={},
        notes=[*NOTES, *_checks(several, "care"), *unpaired],
        origins={one.name: origin(one.result, provenance(one.result)) for one in several},
        estimates=_estimates(several),
    )


def _finding(where: str, several: Sequence[Compared], kind: str) -> str:
    """Say between which values the results lie that can be compared with the first."""
    ends = sorted(
        (getattr(one.result.average, kind).assignment_entropy.known, one.name)
        for one in several
        if not one.caveat
    )
    return f"{where}: " + " to ".join(
        f"{value:.3f} ({name})" for value, name in ends[:: len(ends) - 1 or 1]
    )


def _differences(several: Sequence[Compared]) -> Table:
    """Return a table of the assignment entropies and their differences from the first."""
    first, rows = several[0].name, []
    for one in several:
        row = [one.label, format_estimate(one.average.assignment_entropy)]
        change = one.difference
        if change is None:
            row += ["reference", UNKNOWN, UNKNOWN]
        else:
            row += [change.text, change.interval, change.kind]
        temperatures = {scale.temperature for scale in one.result.scales}
        at = f"{temperatures.pop():g}" if len(temperatures) == 1 else "by scale"
        row.append(f"{at}, drawn" if is_drawn(one.result) else at)
        rows.append([*row, str(one.result.data.images_used)])
    head = ["result", "assignment entropy", "difference", "95 % interval", "error", "T", "images"]
    caption = (
        "token-weighted averages ± standard error, nats per token; "
        "difference from the first result with its 95 % interval and error"
    )
    return Table("differences", f"Differences from {first}", head, rows, caption, sortable=True)


def _side_by_side(several: Sequence[Compared]) -> Table:
    """Return a table of the other quantities, with a row for each result."""
    rows = []
    for one in several:
        average, tokenizer, size = one.average, one.result.tokenizer, one.result.settings.image_size
        entropy, tokens = average.assignment_entropy, sum(scale.tokens for scale in one.result.scales)
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


def _by_scale(several: Sequence[Compared]) -> list[Table]:
    """Return a table of the assignment entropy by scale, if all results have the same scales."""
    names, *others = ([scale.name for scale in one.result.scales] for one in several)
    if any(other != names for other in others):
        return []
    scales = zip(*(one.result.scales for one in several), strict=True)
    rows = [
        [name, *(format_estimate(scale.assignment_entropy) for scale in same)]
        for name, same in zip(names, scales, strict=True)
    ]
    head = ["scale", *(one.label for one in several)]
    return [Table("scales", "Assignment entropy by scale", head, rows, "nats per token")]


def short_names(paths: Sequence[str]) -> list[str]:
    """Return names for results: the names of their files, with folders if those are not unique.

    >>> short_names(["a/result.json", "b/result.json"])
    ['a/result', 'b/result']
    """
    stems = [path.removesuffix(".json") for path in paths]
    short = [stem.rpartition("/")[2] for stem in stems]
    return short if len(set(short)) == len(short) else stems


def _estimates(several: Sequence[Compared]) -> Table:
    """Return all token-weighted estimates, and the differences from the first result."""
    rows: list[list[Cell]] = [[one.name, *row] for one in several for row in estimates_of(one.average)]
    quantity = f"assignment_entropy minus that of {several[0].name}"
    for one in several:
        if (change := one.difference) is not None:
            rows.append([one.name, quantity, *change.row()])
    return Table("comparison", "", ["result", "quantity", *NUMBERS], rows)


def _averages(axes: Axes, several: Sequence[Compared]) -> None:
    """Draw the token-weighted averages, a row for each result."""
    y = np.arange(len(several), dtype=float)[::-1]
    for name, label, colour, marker, dodge in ENTROPIES:
        estimates = [getattr(one.average, name) for one in several]
        plot_with_errors(
            axes, y + dodge, estimates, sideways=True, label=label, color=colour, marker=marker
        )
    names = [fill(one.name, 20) + ("\nNOT COMPARABLE" if one.caveat else "") for one in several]
    axes.set_yticks(y, names, fontsize=min(9, 54 / len(several)))
    axes.set(xlabel="nats per token", ylim=(-0.6, len(several) - 0.4))
    axes.set_xlim(0, MARGIN * axes.get_xlim()[1])
    axes.set_title(fill(_finding("Token-weighted", several, "token_weighted"), 42))
    legend_below(axes)


def _scales(axes: Axes, several: Sequence[Compared]) -> None:
    """Draw the assignment entropy of each scale against its number of tokens."""
    for one, colour, marker in zip(several, cycle(SERIES), cycle("osD^v"), strict=False):
        tokens_S = np.array([scale.tokens for scale in one.result.scales], float)
        estimates = [scale.assignment_entropy for scale in one.result.scales]
        label, line = legend_name(one.label.replace("\n", ", ")), "--" if one.caveat else "-"
        plot_with_errors(axes, tokens_S, estimates, line=line, label=label, color=colour, marker=marker)
    axes.set(xlabel="tokens of the scale (logarithmic)", ylabel="nats per token", xscale="log")
    plain_log_ticks(axes.xaxis)
    axes.set_ylim(0, MARGIN * axes.get_ylim()[1])
    axes.set_title(fill(_finding("Final scale", several, "last_scale"), 50))
    legend_below(axes)


def _checks(several: Sequence[Compared], severity: Severity) -> list[str]:
    """Return the messages of each result's checks of a severity."""
    return [
        f"{one.name}: {'; '.join(messages)}."
        for one in several
        if (messages := [c.message for c in checks_of(one.result) if c.severity == severity])
    ]
