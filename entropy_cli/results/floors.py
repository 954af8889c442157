"""The floors of a model's losses, from an estimate, and the unigram entropies above them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from entropy_cli.core.errors import ResultError
from entropy_cli.entropy.ladder.ladder import Bound, RungResult
from entropy_cli.entropy.quantity import Estimate, Labels
from entropy_cli.results.legend import AVERAGES
from entropy_cli.results.path import labels_of, subtracted
from entropy_cli.results.published import is_published_var
from entropy_cli.results.schema import Estimates, Result, read_result


class RungLimit(NamedTuple):
    """A rung of the ladder of hard tokens: its name, what it sees, and its upper limit in nats."""

    id: str
    sees: str
    upper95: float


@dataclass(frozen=True)
class Level:
    """Floor and ceiling of one loss, in nats per token.

    Attributes:
        floor: the assignment entropy, or the user's number.
        half_width: the half-width of its 95 % interval, if known.
        unigram: entropy of the histogram of the nearest codes, the loss of the best constant
            prediction; it may be a lower bound.
        ceiling: an upper 95 % limit of the unigram entropy, if known: a loss above it is a sign of an
            error.
        rungs: the rungs of the ladder that see more than the scale, the first one first; maybe none.
    """

    floor: float
    half_width: float | None = None
    unigram: Estimate | None = None
    ceiling: float | None = None
    rungs: tuple[RungLimit, ...] = ()

    @property
    def unigram_value(self) -> float | None:
        """The unigram entropy; None if it is unknown or only a lower bound."""
        return None if self.unigram is None or self.unigram.bound else self.unigram.known

    @property
    def ceilings(self) -> dict[str, float]:
        """Upper limits of what simple predictions of hard labels reach, by name: unigram, then rungs."""
        unigram = {} if self.ceiling is None else {"unigram": self.ceiling}
        return unigram | {rung.id: rung.upper95 for rung in self.rungs}


class ScaleFloor(NamedTuple):
    """The floor of one scale: its name, the tokens of an image at it, and its side if it is square."""

    name: str
    tokens: int
    side: int | None
    level: Level


@dataclass(frozen=True)
class Floor:
    """Floors of the losses of one model.

    Attributes:
        source: a description of where they come from.
        mean: the floor of the mean over all tokens (VAR's Lm, L_mean): the token-weighted average.
        last: the floor of the mean over the tokens of the final scale (VAR's Lt, L_tail).
        over_scales: the floor of the mean over scales, each counted once.
        by_scale: the floors of all scales, the coarsest first; none if the user gave numbers.
        vocab_size: the number of codes, if known.
        is_published_var: whether the tokenizer is the one that VAR published, if known.
        is_given: whether the user gave numbers instead of a result.
        labels: what models on the tokenizer's tokens are trained on: under hard labels it is no floor.
        path: a clause that says which codes are subtracted before the next scale; "" if none are.
    """

    source: str
    mean: Level | None
    last: Level | None
    over_scales: Level | None = None
    by_scale: tuple[ScaleFloor, ...] = ()
    vocab_size: int | None = None
    is_published_var: bool | None = None
    is_given: bool = False
    labels: Labels = "unknown"
    path: str = ""

    @property
    def scales(self) -> dict[int, Level]:
        """The floor of each square scale, by the side of its grid."""
        return {scale.side: scale.level for scale in self.by_scale if scale.side is not None}

    @property
    def patch_nums(self) -> tuple[int | None, ...] | None:
        """The side of each scale's grid, if known."""
        return tuple(scale.side for scale in self.by_scale) or None

    @property
    def tokens(self) -> int | None:
        """The number of tokens of an image, if known."""
        return sum(scale.tokens for scale in self.by_scale) or None

    def for_scales(self, sides: Sequence[int]) -> list[Level | None]:
        """Return the floors of the scales with these grid sides; None where unknown."""
        levels = [self.scales.get(side) for side in sides]
        return [*levels[:-1], self.last or levels[-1]] if levels else []


def floor_from_numbers(mean: float | None, last: float | None) -> Floor:
    """Make floors from numbers that the user gave, in nats per token."""
    levels = {
        name: None if value is None else Level(value) for name, value in (("mean", mean), ("last", last))
    }
    return Floor("given", levels["mean"], levels["last"], is_given=True)


def read_floor(path: Path) -> Floor:
    """Read the floors from a result file of `estimate`, or from the estimate in one of `evaluate`.

    Raises:
        ResultError: the file can't be read, or is not a result.
    """
    return floor_of(read_result(path), path)


def floor_of(result: Result, path: str | Path) -> Floor:
    """Return the floors that a result says; `path` is its name in messages.

    Raises:
        ResultError: it has no assignment entropy at some scale.
    """
    temperature = result.settings.temperature
    at = "fitted temperatures" if temperature == "auto" else f"T = {temperature:g}"
    codes, rungs = subtracted(result), result.ladder.rungs if result.ladder else []
    by_scale = []
    for s, scale in enumerate(result.scales):
        level = _level(scale, rungs, [rung.scales[s] for rung in rungs], f"{path}: scale {scale.name}")
        by_scale.append(ScaleFloor(scale.name, scale.tokens, scale.patch_num, level))
    mean, over_scales, last = (
        _level(average, rungs, [getattr(of.average, kind) for of in rungs], f"{path}: {AVERAGES[kind]}")
        for kind, average in result.average.items()
    )
    return Floor(
        source=f"{path}: assignment entropy of {result.tokenizer.family} at {at}, "
        f"{result.data.images_used:,} images{f', {codes} subtracted' if codes else ''}",
        path=f" where the {codes} are subtracted" if codes else "",
        mean=mean,
        last=last,
        over_scales=over_scales,
        by_scale=tuple(by_scale),
        vocab_size=result.tokenizer.vocab_size,
        is_published_var=is_published_var(result.tokenizer),
        labels=labels_of(result),
    )


def beside_rungs(value: float, error: float, rungs: Sequence[RungLimit]) -> tuple[bool, str]:
    """Compare a loss with the rungs of the ladder; return whether it is above one, and a clause.

    Args:
        value: the loss, in nats per token.
        error: by how much it may exceed a rung by chance.
        rungs: at least one.
    """
    for rung in rungs:
        if value > rung.upper95 + error:
            by = f"{value - rung.upper95:.2f} nats ABOVE the {rung.id} rung ({rung.upper95:.4f})"
            is_net = rung.id == "probe"
            what = "a small net predicts" if is_net else f"counts that see {rung.sees} predict"
            return True, f"{by}: {what} better"
    last = min(rungs, key=lambda rung: rung.upper95)
    distance = f"{last.upper95 - value:.2f} nats below" if value < last.upper95 else "at"
    return False, f"{distance} the {last.id} rung ({last.upper95:.4f}), the lowest of the ladder"


def _level(
    estimates: Estimates, rungs: Sequence[RungResult], bounds: Sequence[Bound], where: str
) -> Level:
    """Return the floor of one scale, or of an average of several, given the bound that each rung has."""
    entropy, unigram = estimates.assignment_entropy, estimates.unigram_entropy
    if entropy.value is None:
        raise ResultError(f"{where} has no assignment entropy: {entropy.note}. Estimate it first.")
    known = None if unigram.value is None else unigram
    level = Level(entropy.value, entropy.half_width, known, estimates.ceiling)
    if not rungs:
        return level
    pairs = zip(rungs, bounds, strict=True)
    _, held_out, *limits = (RungLimit(rung.id, rung.sees, bound.upper95) for rung, bound in pairs)
    # Of too many codes to count, and of older results, only the ladder knows a held-out limit.
    ceiling = level.ceiling if estimates.unigram_bracket else held_out.upper95
    return replace(level, ceiling=ceiling, rungs=tuple(limits))
