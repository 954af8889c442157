"""The comparison of several evaluations: models of one tokenizer, paired on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from textwrap import fill

import numpy as np

from entropy_cli.core.figures import (
    GREEN,
    ORANGE,
    SERIES,
    Axes,
    legend_below,
    legend_name,
)
from entropy_cli.core.table import Cell, Table, lines
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.checks import checks_of_losses
from entropy_cli.results.evaluations.comparable import not_comparable
from entropy_cli.results.evaluations.provenance import provenance
from entropy_cli.results.evaluations.summary import SOURCES, few_digits, perplexity_text, share
from entropy_cli.results.page.comparison import UNPAIRED, short_names
from entropy_cli.results.page.differences import Difference, Measured, subtract
from entropy_cli.results.page.figures import label_scales, plot_with_errors
from entropy_cli.results.page.report import NUMBERS, Report, estimates_of, origin
from entropy_cli.results.schema import Severity
from entropy_cli.results.tables import UNKNOWN, format_estimate

TITLE = "Models compared"
MARGIN = 1.04  # beyond the largest value, for its marker
NOTES = (
    "Cross-entropies are compared between models of one tokenizer at one image size: the tokens of "
    "another one are others, and a lower loss of fewer tokens says nothing about the pictures.",
    "A difference on the same images is paired: what is hard about an image is hard for both models and "
    "cancels, so that its error is smaller than that of either cross-entropy.",
)


@dataclass(frozen=True)
class Compared:
    """An evaluation in a comparison: its name, and its difference from the first; None for the first."""

    name: str
    evaluation: Evaluation
    difference: Difference | None

    @property
    def caveat(self) -> str:
        """Why its cross-entropy can't be compared with the first one's, or ""."""
        reason = self.difference.not_comparable if self.difference else ""
        return f"NOT COMPARABLE: {reason}" if reason else ""

    @property
    def label(self) -> str:
        """The name with the caveat on a second line."""
        return lines(*filter(None, (self.name, self.caveat)))


def loss_difference(reference: Evaluation, other: Evaluation) -> Difference:
    """Compute the cross-entropy of `other` minus that of `reference`."""
    before, after = (
        Measured(one.estimate, one.average.token_weighted.cross_entropy, "cross_entropy")
        for one in (reference, other)
    )
    return subtract(before, after, not_comparable(reference, other))


def model_comparison(evaluations: Sequence[Evaluation], sources: Sequence[str]) -> Report:
    """Return the report that compares evaluations; `sources` are their files."""
    names = short_names(sources)
    changes = [loss_difference(evaluations[0], other) for other in evaluations[1:]]
    several = list(map(Compared, names, evaluations, [None, *changes]))
    panels = {"Cross-entropy of each scale": partial(_scales, several=several)}
    if sum(one.evaluation.model.parameters is not None for one in several) > 1:
        panels["Cross-entropy against parameters"] = partial(_sizes, several=several)
    return Report(
        title=f"{TITLE}: {', '.join(names)}",
        heading=TITLE,
        headline=f"{_finding(several)} nats per token",
        warnings=[
            f"{one.name} is NOT COMPARABLE with {names[0]}: {one.difference.not_comparable}."
            for one in several
            if one.difference and one.caveat
        ]
        + _checks(several, "wrong"),
        details=f"Token-weighted averages. Differences are from {names[0]}.",
        subject=f"of {', '.join(one.label for one in several)}".replace("\n", " "),
        panels=panels,
        tables=[_differences(several), _side_by_side(several), *_by_scale(several)],
        terms={},
        notes=[
            *NOTES,
            *_checks(several, "care"),
            *([] if all(change.paired for change in changes) else [UNPAIRED]),
        ],
        origins={
            one.name: origin(one.evaluation.estimate, provenance(one.evaluation)) for one in several
        },
        estimates=_estimates(several),
    )


def _finding(several: Sequence[Compared]) -> str:
    """Say between which cross-entropies the models lie that can be compared with the first."""
    ends = sorted(
        (one.evaluation.average.token_weighted.cross_entropy.known, one.name)
        for one in several
        if not one.caveat
    )
    shown = (f"{value:.3f} ({name})" for value, name in ends[:: len(ends) - 1 or 1])
    return f"Cross-entropy: {' to '.join(shown)}"


def _differences(several: Sequence[Compared]) -> Table:
    """Return a table of the cross-entropies and their differences from the first."""
    first, rows = several[0].name, []
    for one in several:
        model, change = one.evaluation.model, one.difference
        size = UNKNOWN if model.parameters is None else f"{model.parameters / 1e6:,.1f}"
        row = [one.label, size, format_estimate(one.evaluation.average.token_weighted.cross_entropy)]
        if change is None:
            row += ["reference", UNKNOWN, UNKNOWN]
        else:
            row += [change.text, change.interval, change.kind]
        rows.append([*row, str(one.evaluation.estimate.data.images_used)])
    head = ["model", "M parameters", "cross-entropy", "difference", "95 % interval", "error", "images"]
    caption = (
        "token-weighted averages ± standard error, nats per token; "
        "difference from the first model with its 95 % interval and error"
    )
    return Table("differences", f"Differences from {first}", head, rows, caption, sortable=True)


def _side_by_side(several: Sequence[Compared]) -> Table:
    """Return a table of the other numbers, with a row for each model."""
    rows = []
    for one in several:
        evaluation, losses = one.evaluation, one.evaluation.average.token_weighted
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


def _by_scale(several: Sequence[Compared]) -> list[Table]:
    """Return a table of the cross-entropy by scale, if all have the same scales."""
    names, *others = ([scale.name for scale in one.evaluation.estimate.scales] for one in several)
    if any(other != names for other in others):
        return []
    scales = zip(*(one.evaluation.scales for one in several), strict=True)
    rows = [
        [name, *(format_estimate(losses.cross_entropy) for losses in same)]
        for name, same in zip(names, scales, strict=True)
    ]
    head = ["scale", *(one.label for one in several)]
    return [Table("scales", "Cross-entropy by scale", head, rows, "nats per token")]


def _estimates(several: Sequence[Compared]) -> Table:
    """Return all token-weighted losses, and the differences from the first model."""
    rows: list[list[Cell]] = [
        [one.name, *row]
        for one in several
        for row in estimates_of(one.evaluation.average.token_weighted)
    ]
    for one in several:
        if one.difference is not None:
            rows.append(
                [one.name, f"cross_entropy minus that of {several[0].name}", *one.difference.row()]
            )
    return Table("comparison", "", ["result", "quantity", *NUMBERS], rows)


def _scales(axes: Axes, several: Sequence[Compared]) -> None:
    """Draw the cross-entropy of each scale of each model, above A and below the unigram entropy."""
    first = several[0].evaluation.estimate.scales
    for name, label, colour in (
        ("unigram_entropy", "unigram entropy", ORANGE),
        ("assignment_entropy", "A, no floor of hard tokens", GREEN),
    ):
        values = [np.nan if (v := getattr(s, name).value) is None else v for s in first]
        axes.plot(np.arange(len(first)), values, color=colour, linestyle=":", label=label)
    for one, colour, marker in zip(several, cycle(SERIES), cycle("osD^v"), strict=False):
        shown = [losses.cross_entropy for losses in one.evaluation.scales]
        label, line = legend_name(one.label.replace("\n", ", ")), "--" if one.caveat else "-"
        at = np.arange(len(shown), dtype=float)
        plot_with_errors(axes, at, shown, line=line, label=label, color=colour, marker=marker)
    label_scales(axes, max((one.evaluation.estimate.scales for one in several), key=len))
    axes.set(ylabel="nats per token")
    axes.set_ylim(0, MARGIN * axes.get_ylim()[1])
    axes.set_title(fill(_finding(several), 50))
    legend_below(axes, 2)


def _sizes(axes: Axes, several: Sequence[Compared]) -> None:
    """Draw the cross-entropy against the number of parameters."""
    sizes = {}
    for one, colour, marker in zip(several, cycle(SERIES), cycle("osD^v"), strict=False):
        parameters = one.evaluation.model.parameters
        if parameters is not None and not one.caveat:
            sizes[parameters / 1e6] = few_digits(parameters / 1e6)
            shown = [one.evaluation.average.token_weighted.cross_entropy]
            at, label = np.array([parameters / 1e6]), legend_name(one.name)
            plot_with_errors(axes, at, shown, label=label, color=colour, marker=marker)
    axes.set(xlabel="million parameters (logarithmic)", ylabel="nats per token", xscale="log")
    axes.minorticks_off()
    axes.set_xticks(list(sizes), list(sizes.values()))
    axes.set_title("Token-weighted cross-entropy against size")
    legend_below(axes)


def _checks(several: Sequence[Compared], severity: Severity) -> list[str]:
    """Return the messages of each evaluation's checks of a severity."""
    return [
        f"{one.name}: {'; '.join(messages)}."
        for one in several
        if (messages := [c.message for c in checks_of_losses(one.evaluation) if c.severity == severity])
    ]
