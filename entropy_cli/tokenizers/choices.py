"""What a family's traits and the user's settings make of a tokenizer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.quantity import Labels, TemperatureChoice
from entropy_cli.entropy.vocabulary import VECTOR_RULES, Vocabulary
from entropy_cli.tokenizers.base import Crop, PixelRange, Scale
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.settings import TokenizerSettings


@dataclass(frozen=True)
class Temperature:
    """Default temperatures, the headline first, and where they are from, for display."""

    values: tuple[TemperatureChoice, ...]
    source: str


@dataclass(frozen=True)
class Traits:
    """What the checkpoints of a family have in common; variants replace single fields.

    Attributes:
        family: its name.
        published_by: its authors' name for it, for display.
        rule: how its codes are compared with latents.
        crop: returns, for an image size, how its authors prepare images for evaluation.
        temperatures: published temperatures, by rule.
        labels: what models on its tokens are trained on.
        image_size: the default, in pixels.
        pixels: range of the pixel values that the encoder takes.
        possible: rules that the user may choose.
    """

    family: str
    published_by: str
    rule: Rule
    crop: Callable[[int], Crop]
    temperatures: Mapping[Rule, Temperature] = field(default_factory=dict)
    labels: Labels = "hard"
    image_size: int = 256
    pixels: PixelRange = "[-1, 1]"
    possible: Sequence[str] = VECTOR_RULES


# What a temperature of 1 means where none is published.
AT_TEMPERATURE_1: dict[Rule, str] = {
    "l2": "softmax of minus the squared distance as it is",
    "dot": "softmax of the dot product as it is",
}
UNPUBLISHED = "no temperature is published for {}"


def choose_image_size(settings: TokenizerSettings, default: int, network: Network) -> tuple[int, int]:
    """Return the side of an image and of its grid; raise CheckpointError if they don't fit."""
    downsampling = network.downsampling
    image_size = settings.image_size or (settings.latent_side or 0) * downsampling or default
    if image_size != (network.image_size or image_size):
        raise CheckpointError(
            f"image size {image_size}: this checkpoint's positions are for images of "
            f"{network.image_size} pixels. Leave out --image-size."
        )
    if image_size % downsampling:
        below = image_size // downsampling * downsampling
        fits = " or ".join(str(n) for n in (below, below + downsampling) if n)
        raise CheckpointError(
            f"image size {image_size}: a latent covers {downsampling} x {downsampling} pixels, expected "
            f"a multiple of {downsampling}. Give --image-size {fits}."
        )
    return image_size, image_size // downsampling


def grid_scale(side: int, vocabulary: Vocabulary, settings: TokenizerSettings) -> tuple[Scale]:
    """Return the single scale of a tokenizer; raise CheckpointError if the settings have others."""
    if settings.patch_nums not in (None, (side,)):
        got = ",".join(map(str, settings.patch_nums or ()))
        raise CheckpointError(
            f"patch_nums {got}: this family has a single scale of {side} x {side} at this image size. "
            "Leave out --patch-nums, or choose another --image-size or --family."
        )
    return (Scale(f"{side} x {side}", side * side, side, vocabulary),)


def choose_patch_nums(
    settings: TokenizerSettings,
    published: Mapping[int, Sequence[int]],
    published_by: str,
    image_size: int,
    side: int,
) -> Sequence[int]:
    """Return the sides of the scales' grids, those published for the image size by default.

    Raises:
        CheckpointError: none are published for it, or they don't grow up to the latents' side.
    """
    patch_nums = settings.patch_nums or published.get(image_size)
    if patch_nums is None:
        raise CheckpointError(
            f"image size {image_size}: {published_by} publishes patch_nums for "
            f"{', '.join(map(str, published))} only. Give --patch-nums, ending in {side}."
        )
    if patch_nums[-1] != side or list(patch_nums) != sorted(patch_nums):
        raise CheckpointError(
            f"patch_nums {','.join(map(str, patch_nums))} don't fit: at {image_size} px the latent is "
            f"{side} x {side}, expected a list that grows up to {side}. Give other --patch-nums, or "
            f"--image-size {image_size // side * max(patch_nums)} for these."
        )
    return patch_nums


def pyramid(patch_nums: Sequence[int], vocabulary: Vocabulary) -> tuple[Scale, ...]:
    """Return scales of square grids that share their codes."""
    return tuple(Scale(f"{n} x {n}", n * n, n, vocabulary) for n in patch_nums)


def choose_rule(
    settings: TokenizerSettings, default: Rule, possible: Sequence[str] = VECTOR_RULES
) -> Rule:
    """Return the rule that the user chose, else the family's; CheckpointError if it does not apply."""
    chosen = settings.rule
    if chosen is None and settings.normalised is not None and default in VECTOR_RULES:
        # Without unit vectors a distance is one, and a dot product stays one.
        chosen = "cosine" if settings.normalised else "l2" if default == "cosine" else None
    if chosen is None or chosen == default:
        return default
    if chosen not in possible or default not in possible:
        expected = " or ".join(possible) if default in possible else default
        raise CheckpointError(
            f"rule {chosen}: this checkpoint's codes are assigned by {expected}. Leave out --rule."
        )
    return chosen


def choose_temperature(rule: Rule, published: Mapping[Rule, Temperature], family: str) -> Temperature:
    """Return the temperature that is published for a rule, else 1 and "auto" where they are defined."""
    if rule in published:
        return published[rule]
    reason = UNPUBLISHED.format(f"{family} with the rule {rule}")
    if rule == "cosine":
        return Temperature(("auto",), reason)
    values: tuple[TemperatureChoice, ...] = (1.0, "auto") if rule == "l2" else (1.0,)
    return Temperature(values, f"{AT_TEMPERATURE_1[rule]}; {reason}")
