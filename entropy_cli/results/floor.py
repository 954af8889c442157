"""The floor of a loss: what an estimate says that it can't fall below, and the order-0 loss above it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from entropy_cli.errors import ResultError
from entropy_cli.functional.quantity import Estimate
from entropy_cli.results.published import is_vars
from entropy_cli.results.schema import Estimates, read_result


@dataclass(frozen=True)
class Level:
    """Floor and ceiling of one loss, in nats per token.

    Attributes:
        floor: the assignment entropy, or what the user gave.
        half_width: of its 95 % interval, if known.
        unigram: entropy of the histogram of the nearest codes: what a constant prediction reaches.
    """

    floor: float
    half_width: float | None = None
    unigram: float | None = None


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


def given_floor(mean: float | None, last: float | None) -> Floor:
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
    levels = [_level(scale, f"{path}: scale {scale.name}") for scale in result.scales]
    return Floor(
        source=f"{path}: assignment entropy of {result.tokenizer.family} at {at}, "
        f"{result.data.images_used} images",
        mean=_level(result.average.token_weighted, f"{path}: token-weighted average"),
        last=_level(result.average.last_scale, f"{path}: last scale"),
        scales={
            scale.patch_num: level
            for scale, level in zip(result.scales, levels, strict=True)
            if scale.patch_num is not None
        },
        vocab_size=result.tokenizer.vocab_size,
        is_vars=is_vars(result.tokenizer),
    )


def _level(of: Estimates, where: str) -> Level:
    found: Estimate = of.assignment_entropy
    if found.value is None:
        raise ResultError(f"{where} has no assignment entropy: {found.note}. Estimate it first.")
    half = None if found.ci95 is None else (found.ci95[1] - found.ci95[0]) / 2
    return Level(found.value, half, of.unigram_entropy.value)
