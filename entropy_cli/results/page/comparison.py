"""The comparison of several results: their numbers in common units, and differences with errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from entropy_cli.core.table import Table
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile
from entropy_cli.results.schema import Result
from entropy_cli.results.tables import UNKNOWN, caption_with_bounds, format_estimate


@dataclass(frozen=True)
class NamedResult:
    """A result and its name in a comparison."""

    name: str
    result: Result

    @property
    def tokens(self) -> int:
        """The number of tokens of an image."""
        return sum(scale.tokens for scale in self.result.scales)

    @property
    def bits_per_nat_pixel(self) -> float | None:
        """The bits per pixel that equal one nat per token; None for latents without images."""
        size = self.result.settings.image_size
        return None if size is None else self.tokens / math.log(2) / size**2


@dataclass(frozen=True)
class Difference:
    """A result's token-weighted assignment entropy minus another's, in nats per token.

    Attributes:
        value: the difference.
        se: its standard error; None if either result has none.
        ci95: its 95 % interval; None without a standard error.
        paired: whether both results are from the same images, whose common variation then cancels.
        not_comparable: why the difference is meaningless, or "".
    """

    value: float
    se: float | None
    ci95: tuple[float, float] | None
    paired: bool
    not_comparable: str


def difference(reference: Result, other: Result) -> Difference:
    """Compute `other` minus `reference`, paired by jackknife replicates if both have the same images.

    Args:
        reference: the result to subtract.
        other: the result to subtract it from.
    """
    estimates = [result.average.token_weighted.assignment_entropy for result in (reference, other)]
    value = estimates[1].known - estimates[0].known
    paired = _same_images(reference, other)
    se, degrees = None, 0
    if paired:
        images_G = np.array(reference.replicates["images"])
        used = int((images_G > 0).sum())
        if used > 1:
            deleted_G = _replicates(other) - _replicates(reference)
            se = math.sqrt(float(jackknife_variance(np.asarray(value), deleted_G, images_G)))
            degrees = used - 1
    elif estimates[0].se is not None and estimates[1].se is not None:
        se = math.hypot(estimates[0].se, estimates[1].se)
        degrees = min(sum(1 for n in r.replicates["images"] if n) for r in (reference, other)) - 1
    half = None if se is None else t_quantile(degrees) * se
    ci95 = None if half is None else (value - half, value + half)
    return Difference(value, se, ci95, paired, _not_comparable(reference, other))


def _same_images(reference: Result, other: Result) -> bool:
    """Return whether the jackknife groups of both results hold the same images."""
    images = [
        (
            result.data.images_fingerprint,
            result.data.images_used,
            sorted(result.data.failed),
            result.settings.seed,
            result.replicates["images"],
        )
        for result in (reference, other)
    ]
    return images[0] == images[1] and bool(reference.replicates.get("assignment_entropy"))


def _replicates(result: Result) -> np.ndarray:
    """Return the token-weighted assignment entropy without each group, NaN for empty groups, (G,)."""
    tokens_S = np.array([scale.tokens for scale in result.scales], np.float64)
    deleted_GS = np.array(result.replicates["assignment_entropy"], np.float64)
    return deleted_GS @ (tokens_S / tokens_S.sum())


def _not_comparable(reference: Result, other: Result) -> str:
    """Return why the assignment entropies of two results can't be compared, or ""."""
    rules = [result.tokenizer.rule for result in (reference, other)]
    if rules[0] != rules[1]:
        return f"different rules ({rules[1]}, {rules[0]})"
    temperatures = [{scale.temperature for scale in result.scales} for result in (reference, other)]
    if temperatures[0] != temperatures[1]:
        return "different temperatures"
    return ""


def short_names(paths: Sequence[str]) -> list[str]:
    """Return names for results: the names of their files, with folders if those are not unique.

    >>> short_names(["a/result.json", "b/result.json"])
    ['a/result', 'b/result']
    """
    stems = [path.removesuffix(".json") for path in paths]
    short = [stem.rpartition("/")[2] for stem in stems]
    return short if len(set(short)) == len(short) else stems


def side_by_side(several: Sequence[NamedResult]) -> Table:
    """Return a table with a row for each result."""
    head = ["result", "family", "codes", "tokens", "T", "images", "assignment entropy", "nats per image"]
    head += ["bits per pixel", "unigram entropy", "mutual information", "codebook usage"]
    rows = []
    for named in several:
        result = named.result
        average = result.average.token_weighted
        per_pixel = named.bits_per_nat_pixel
        temperatures = {scale.temperature for scale in result.scales}
        rows.append(
            [
                named.name,
                result.tokenizer.family,
                str(result.tokenizer.vocab_size),
                str(named.tokens),
                f"{temperatures.pop():g}" if len(temperatures) == 1 else "by scale",
                str(result.data.images_used),
                format_estimate(average.assignment_entropy),
                format_estimate(average.assignment_entropy, 2, named.tokens),
                UNKNOWN
                if per_pixel is None
                else format_estimate(average.assignment_entropy, 4, per_pixel),
                format_estimate(average.unigram_entropy),
                format_estimate(average.mutual_information),
                format_estimate(average.usage_estimate, 1, 100, " %"),
            ]
        )
    caption = caption_with_bounds(
        "token-weighted averages ± standard error, entropies in nats per token", rows
    )
    return Table("results", "Side by side", head, rows, caption, sortable=True)


def differences(several: Sequence[NamedResult]) -> Table:
    """Return a table of the differences of the other results from the first."""
    first = several[0]
    rows = []
    for named in several[1:]:
        change = difference(first.result, named.result)
        interval = "none" if change.ci95 is None else f"{change.ci95[0]:+.4f} to {change.ci95[1]:+.4f}"
        error = "" if change.se is None else f" ± {change.se:.4f}"
        rows.append(
            [
                named.name,
                f"{change.value:+.4f}{error}",
                interval,
                "paired: the same images" if change.paired else "unpaired",
                f"NOT COMPARABLE: {change.not_comparable}" if change.not_comparable else "yes",
            ]
        )
    head = ["result", "difference", "95 % interval", "error", "comparable"]
    caption = f"token-weighted assignment entropy minus that of {first.name}, nats per token"
    return Table("differences", f"Differences from {first.name}", head, rows, caption)


def by_scale(several: Sequence[NamedResult]) -> Table | None:
    """Return a table of the assignment entropy by scale; None if the results have different scales."""
    names = [[scale.name for scale in named.result.scales] for named in several]
    if any(other != names[0] for other in names[1:]):
        return None
    rows = [
        [name, *(format_estimate(named.result.scales[s].assignment_entropy) for named in several)]
        for s, name in enumerate(names[0])
    ]
    head = ["scale", *(named.name for named in several)]
    return Table("scales", "Assignment entropy by scale", head, rows, "nats per token")


def remarks(several: Sequence[NamedResult]) -> list[str]:
    """Return notes on how to read a comparison."""
    notes = [
        "Even at the same temperature, assignment entropies are comparable only between tokenizers "
        "whose latents have the same magnitude: multiplying latents and codes by c is like dividing the "
        "temperature by c squared.",
        "Nats per image and bits per pixel count all tokens of an image, so they compare tokenizers "
        "with different numbers of tokens.",
    ]
    fingerprints = {named.result.data.images_fingerprint for named in several}
    if len(fingerprints) > 1:
        notes.append("Differences are unpaired where the images are not those of the first result.")
    return notes


def comparison_tables(several: Sequence[NamedResult]) -> list[Table]:
    """Return all tables of a comparison."""
    scales = by_scale(several)
    return [side_by_side(several), differences(several), *([scales] if scales is not None else [])]
