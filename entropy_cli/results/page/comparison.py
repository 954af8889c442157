"""Several results side by side: their numbers in common units, and the differences with their errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from entropy_cli.core.page import Table
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile
from entropy_cli.results.page.report_tables import UNKNOWN, caption_with_bounds, format_estimate
from entropy_cli.results.schema import Result


@dataclass(frozen=True)
class NamedResult:
    """A result and what it is called beside others."""

    name: str
    result: Result

    @property
    def tokens(self) -> int:
        """Of an image."""
        return sum(scale.tokens for scale in self.result.scales)

    @property
    def bits_per_nat_pixel(self) -> float | None:
        """Bits per pixel that one nat per token is; None without pictures."""
        size = self.result.settings.image_size
        return None if size is None else self.tokens / math.log(2) / size**2


@dataclass(frozen=True)
class Difference:
    """A result's token-weighted assignment entropy minus another's, in nats per token.

    Attributes:
        paired: whether both are of the same images, so that what these have in common cancels.
        se: of the difference; None where either has none.
        not_comparable: why the difference says nothing, or empty.
    """

    value: float
    se: float | None
    ci95: tuple[float, float] | None
    paired: bool
    not_comparable: str


def difference(one: Result, other: Result) -> Difference:
    """Compare two results; where both saw the same images through their jackknife replicates.

    Args:
        one: what is subtracted.
        other: from which.
    """
    estimates = [result.average.token_weighted.assignment_entropy for result in (one, other)]
    value = estimates[1].known - estimates[0].known
    paired = _same_images(one, other)
    se, degrees = None, 0
    if paired:
        images_G = np.array(one.replicates["images"])
        used = int((images_G > 0).sum())
        if used > 1:
            deleted_G = _deleted(other) - _deleted(one)
            se = math.sqrt(float(jackknife_variance(np.asarray(value), deleted_G, images_G)))
            degrees = used - 1
    elif estimates[0].se is not None and estimates[1].se is not None:
        se = math.hypot(estimates[0].se, estimates[1].se)
        degrees = min(sum(1 for n in result.replicates["images"] if n) for result in (one, other)) - 1
    half = None if se is None else t_quantile(degrees) * se
    ci95 = None if half is None else (value - half, value + half)
    return Difference(value, se, ci95, paired, _not_comparable(one, other))


def _same_images(one: Result, other: Result) -> bool:
    """Whether the groups of both hold the same images."""
    kept = [
        (
            result.data.images_fingerprint,
            result.data.images_used,
            sorted(result.data.failed),
            result.settings.seed,
            result.replicates["images"],
        )
        for result in (one, other)
    ]
    return kept[0] == kept[1] and bool(one.replicates.get("assignment_entropy"))


def _deleted(result: Result) -> np.ndarray:
    """The token-weighted assignment entropy without each group, NaN for empty groups, (G,)."""
    tokens_S = np.array([scale.tokens for scale in result.scales], np.float64)
    deleted_GS = np.array(result.replicates["assignment_entropy"], np.float64)
    return deleted_GS @ (tokens_S / tokens_S.sum())


def _not_comparable(one: Result, other: Result) -> str:
    """Why the assignment entropies of two results are no measure of the same."""
    rules = [result.tokenizer.rule for result in (one, other)]
    if rules[0] != rules[1]:
        return f"other rules ({rules[1]}, {rules[0]})"
    temperatures = [{scale.temperature for scale in result.scales} for result in (one, other)]
    if temperatures[0] != temperatures[1]:
        return "other temperatures"
    return ""


def short_names(paths: Sequence[str]) -> list[str]:
    """What results are called: their files' names, with folders where these are alike.

    >>> short_names(["a/result.json", "b/result.json"])
    ['a/result', 'b/result']
    """
    stems = [path.removesuffix(".json") for path in paths]
    short = [stem.rpartition("/")[2] for stem in stems]
    return short if len(set(short)) == len(short) else stems


def side_by_side(several: Sequence[NamedResult]) -> Table:
    """The numbers of each result in a row."""
    head = ["result", "family", "codes", "tokens", "T", "images", "assignment entropy", "nats per image"]
    head += ["bits per pixel", "unigram entropy", "mutual information", "codes used"]
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
                f"{format_estimate(average.usage_estimate, 1, 100)} %",
            ]
        )
    caption = caption_with_bounds(
        "token-weighted averages ± standard error, entropies in nats per token", rows
    )
    return Table("results", "Side by side", caption, head, rows, sortable=True)


def differences(several: Sequence[NamedResult]) -> Table:
    """Every result against the first."""
    first = several[0]
    rows = []
    for named in several[1:]:
        found = difference(first.result, named.result)
        interval = "none" if found.ci95 is None else f"{found.ci95[0]:+.4f} to {found.ci95[1]:+.4f}"
        error = "" if found.se is None else f" ± {found.se:.4f}"
        rows.append(
            [
                named.name,
                f"{found.value:+.4f}{error}",
                interval,
                "paired: the same images" if found.paired else "unpaired",
                f"NOT COMPARABLE: {found.not_comparable}" if found.not_comparable else "yes",
            ]
        )
    head = ["result", "difference", "95 % interval", "error", "comparable"]
    caption = f"token-weighted assignment entropy minus that of {first.name}, nats per token"
    return Table("differences", f"Differences from {first.name}", caption, head, rows)


def by_scale(several: Sequence[NamedResult]) -> Table | None:
    """The assignment entropy of each scale, if all have the same scales."""
    names = [[scale.name for scale in named.result.scales] for named in several]
    if any(other != names[0] for other in names[1:]):
        return None
    rows = [
        [name, *(format_estimate(named.result.scales[s].assignment_entropy) for named in several)]
        for s, name in enumerate(names[0])
    ]
    head = ["scale", *(named.name for named in several)]
    return Table("scales", "Assignment entropy by scale", "nats per token", head, rows)


def remarks(several: Sequence[NamedResult]) -> list[str]:
    """What to keep in mind."""
    found = [
        "Even at one temperature assignment entropies compare only tokenizers whose latents are on the "
        "same scale: multiplying latents and codes by c is dividing the temperature by c squared.",
        "Nats per image and bits per pixel are those of all tokens of an image: they compare tokenizers "
        "with different numbers of tokens.",
    ]
    fingerprints = {named.result.data.images_fingerprint for named in several}
    if len(fingerprints) > 1:
        found.append("Results of other images than the first's have unpaired differences.")
    return found


def comparison_tables(several: Sequence[NamedResult]) -> list[Table]:
    """All tables of a comparison."""
    scales = by_scale(several)
    return [side_by_side(several), differences(several), *([scales] if scales is not None else [])]
