"""Choosing what the weights leave open: image size, grid, rule and temperature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.vocabulary import VECTOR_RULES, Vocabulary
from entropy_cli.tokenizers.base import Scale
from entropy_cli.tokenizers.settings import TokenizerSettings


@dataclass(frozen=True)
class Temperature:
    """A default temperature and where it is from, for display."""

    value: float | Literal["auto"]
    source: str


# What a temperature of 1 means where none is published.
AT_TEMPERATURE_1: dict[Rule, str] = {
    "l2": "softmax of minus the squared distance as it is",
    "dot": "softmax of the dot product as it is",
}
UNPUBLISHED = "no temperature is published for {}"


def choose_image_size(settings: TokenizerSettings, default: int, downsampling: int) -> tuple[int, int]:
    """Return the side of an image in pixels, and the side of its grid in latents.

    Raises:
        CheckpointError: the image size is not a multiple of a latent's pixels.
    """
    image_size = settings.image_size or default
    if image_size % downsampling:
        below = image_size // downsampling * downsampling
        fits = " or ".join(str(n) for n in (below, below + downsampling) if n)
        raise CheckpointError(
            f"image size {image_size}: a latent covers {downsampling} x {downsampling} pixels, expected "
            f"a multiple of {downsampling}. Give --image-size {fits}."
        )
    return image_size, image_size // downsampling


def grid_scale(side: int, vocabulary: Vocabulary, settings: TokenizerSettings) -> tuple[Scale]:
    """Return the single scale of a tokenizer that has no others.

    Raises:
        CheckpointError: the settings have other patch_nums.
    """
    if settings.patch_nums not in (None, (side,)):
        got = ",".join(map(str, settings.patch_nums or ()))
        raise CheckpointError(
            f"patch_nums {got}: this family has a single scale of {side} x {side} at this image size. "
            "Leave out --patch-nums, or choose another --image-size or --family."
        )
    return (Scale(f"{side} x {side}", side * side, side, vocabulary),)


def choose_rule(
    settings: TokenizerSettings, default: Rule, possible: Sequence[str] = VECTOR_RULES
) -> Rule:
    """Return the rule that the user chose, else the family's.

    Raises:
        CheckpointError: that rule does not apply to the family's codes.
    """
    if settings.rule is None or settings.rule == default:
        return default
    if settings.rule not in possible or default not in possible:
        expected = " or ".join(possible) if default in possible else default
        raise CheckpointError(
            f"rule {settings.rule}: this checkpoint's codes are assigned by {expected}. Leave out "
            "--rule."
        )
    return settings.rule


def choose_temperature(rule: Rule, published: Mapping[Rule, Temperature], family: str) -> Temperature:
    """Return the temperature that is published for a rule, else 1, else "auto"."""
    if rule in published:
        return published[rule]
    reason = UNPUBLISHED.format(f"{family} with the rule {rule}")
    if rule == "cosine":
        return Temperature("auto", reason)
    return Temperature(1.0, f"{AT_TEMPERATURE_1[rule]}; {reason}")
