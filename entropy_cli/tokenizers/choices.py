"""Choosing what the weights leave open: image size, grid, rule and temperature."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.quantity import Labels, TemperatureChoice
from entropy_cli.entropy.vocabulary import VECTOR_RULES, Vocabulary
from entropy_cli.tokenizers.base import Crop, PixelRange, Scale, TokenizerSpec
from entropy_cli.tokenizers.convolutional import Network
from entropy_cli.tokenizers.layers.autoencoder import Shapes
from entropy_cli.tokenizers.settings import TokenizerSettings


@dataclass(frozen=True)
class Temperature:
    """Default temperatures, the headline first, and where they are from, for display."""

    values: tuple[TemperatureChoice, ...]
    source: str


@dataclass(frozen=True)
class Traits:
    """What all checkpoints of a family have in common; variants replace single fields.

    Attributes:
        family: its name.
        published_by: its authors' name for it, for display.
        rule: how its codes are compared with latents.
        temperatures: published temperatures, by rule.
        labels: what models on its tokens are trained on.
        crop: returns, for an image size, how its authors prepare images for evaluation.
        image_size: the default, in pixels.
        pixels: range of the pixel values that the encoder takes.
        possible: rules that the user may choose.
    """

    family: str
    published_by: str
    rule: Rule
    temperatures: Mapping[Rule, Temperature]
    labels: Labels
    crop: Callable[[int], Crop]
    image_size: int = 256
    pixels: PixelRange = "[-1, 1]"
    possible: Sequence[str] = VECTOR_RULES


# What a temperature of 1 means where none is published.
AT_TEMPERATURE_1: dict[Rule, str] = {
    "l2": "softmax of minus the squared distance as it is",
    "dot": "softmax of the dot product as it is",
}
UNPUBLISHED = "no temperature is published for {}"


def absent_keys(shapes: Shapes, names: Sequence[str]) -> list[str]:
    """List those of the names that a checkpoint lacks."""
    return [name for name in names if name not in shapes]


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
    """Return the temperature that is published for a rule, else 1 and "auto" where they are defined."""
    if rule in published:
        return published[rule]
    reason = UNPUBLISHED.format(f"{family} with the rule {rule}")
    if rule == "cosine":
        return Temperature(("auto",), reason)
    values: tuple[TemperatureChoice, ...] = (1.0, "auto") if rule == "l2" else (1.0,)
    return Temperature(values, f"{AT_TEMPERATURE_1[rule]}; {reason}")


def describe_grid(
    traits: Traits,
    network: Network,
    settings: TokenizerSettings,
    vocabulary: Vocabulary,
    notes: Sequence[str] = (),
) -> TokenizerSpec:
    """Describe a tokenizer with a single scale, the encoder's grid; raises as `describe_scales` does."""
    return describe_scales(
        traits, network, settings, lambda _, side: grid_scale(side, vocabulary, settings), notes
    )


def describe_scales(
    traits: Traits,
    network: Network,
    settings: TokenizerSettings,
    scales: Callable[[int, int], tuple[Scale, ...]],
    notes: Sequence[str] = (),
) -> TokenizerSpec:
    """Describe a tokenizer with the shared encoder; choose what its weights leave open.

    Args:
        traits: the family's.
        network: the encoder, without weights.
        settings: the user's choices.
        scales: returns the scales for an image's side in pixels and in latents.
        notes: what the user should know.

    Raises:
        CheckpointError: the settings don't fit each other or the encoder.
    """
    image_size, side = choose_image_size(settings, traits.image_size, network.encoder.downsampling)
    rule = choose_rule(settings, traits.rule, traits.possible)
    temperature = choose_temperature(rule, traits.temperatures, traits.published_by)
    return TokenizerSpec(
        family=traits.family,
        latent_dim=network.latent_dim,
        image_size=image_size,
        scales=scales(image_size, side),
        rule=rule,
        crop=traits.crop(image_size),
        pixels=traits.pixels,
        temperatures=temperature.values,
        temperature_source=temperature.source,
        labels=traits.labels,
        notes=tuple(notes),
    )
