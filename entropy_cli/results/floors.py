"""The floor of a loss: what an estimate says that it can't fall below, and the order-0 loss above it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from entropy_cli.core.errors import ResultError
from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.ceiling import Ceiling, ceiling
from entropy_cli.results.published import is_vars
from entropy_cli.results.schema import Estimates, Result, ScaleResult, read_result


@dataclass(frozen=True)
class Level:
    """Floor and ceiling of one loss, in nats per token.

    Attributes:
        floor: the assignment entropy, or what the user gave.
        half_width: of its 95 % interval, if known.
        unigram: entropy of the histogram of the nearest codes: what a constant prediction reaches; it
            may be a lower bound.
        ceiling: what it is at most, if that is known: only a loss above it tells something.
    """

    floor: float
    half_width: float | None = None
    unigram: Estimate | None = None
    ceiling: Ceiling | None = None

    @property
    def unigram_value(self) -> float | None:
        """The unigram entropy; None where it is not known, or only what it is at least."""
        return None if self.unigram is None or self.unigram.bound else self.unigram.known


@dataclass(frozen=True)
class Floor:
    """Floors of the losses of one model.

    Attributes:
        source: where they are from, for people.
        mean: of the mean over all tokens (VAR's Lm, L_mean): the token-weighted average.
        last: of the mean over the tokens of the last scale (VAR's Lt, L_tail).
        scales: of each square scale, by the side of its grid.
        vocab_size: number of codes, if known.
        is_vars: whether they are of a tokenizer as VAR published it, if known.
        is_given: whether the user gave numbers, and not a result.
    """

    source: str
    mean: Level | None
    last: Level | None
    scales: Mapping[int, Level] = field(default_factory=dict)
    vocab_size: int | None = None
    is_vars: bool | None = None
    is_given: bool = False

    def of_scales(self, sides: Sequence[int]) -> list[Level | None]:
        """Of the scales with these sides; the last one's may be known alone."""
        levels = [self.scales.get(side) for side in sides]
        return [*levels[:-1], self.last or levels[-1]] if levels else []


def floor_from_numbers(mean: float | None, last: float | None) -> Floor:
    """Floors that are plain numbers, in nats per token."""
    levels = {
        name: None if value is None else Level(value) for name, value in (("mean", mean), ("last", last))
    }
    return Floor("given", levels["mean"], levels["last"], is_given=True)


def read_floor(path: Path) -> Floor:
    """The floors in a result of `estimate`.

    Raises:
        ResultError: it can't be read, or is no result.
    """
    result = read_result(path)
    temperature = result.settings.temperature
    at = "fitted temperatures" if temperature == "auto" else f"T = {temperature:g}"
    scales = result.scales
    levels = [_level(result, scale, [scale], f"{path}: scale {scale.name}") for scale in scales]
    return Floor(
        source=f"{path}: assignment entropy of {result.tokenizer.family} at {at}, "
        f"{result.data.images_used} images",
        mean=_level(result, result.average.token_weighted, scales, f"{path}: token-weighted average"),
        last=_level(result, result.average.last_scale, scales[-1:], f"{path}: last scale"),
        scales={
            scale.patch_num: level
            for scale, level in zip(scales, levels, strict=True)
            if scale.patch_num is not None
        },
        vocab_size=result.tokenizer.vocab_size,
        is_vars=is_vars(result.tokenizer),
    )


def _level(result: Result, of: Estimates, scales: Sequence[ScaleResult], where: str) -> Level:
    """Of one scale, or of the token-weighted average of several."""
    found: Estimate = of.assignment_entropy
    if found.value is None:
        raise ResultError(f"{where} has no assignment entropy: {found.note}. Estimate it first.")
    unigram = of.unigram_entropy
    return Level(
        found.value,
        found.half_width,
        None if unigram.value is None else unigram,
        ceiling(result, unigram, scales),
    )
