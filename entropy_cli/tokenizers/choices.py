"""What is left open by the weights, decided: image size, grid, rule and temperature."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.vocabulary import VECTOR_RULES, Vocabulary
from entropy_cli.tokenizers.base import Crop, PixelRange, Scale, TokenizerSpec
from entropy_cli.tokenizers.convolutional import Network
from entropy_cli.tokenizers.layers.autoencoder import Shapes
from entropy_cli.tokenizers.settings import TokenizerSettings


@dataclass(frozen=True)
class Temperature:
    """A default and where it is from, for people."""

    value: float | Literal["auto"]
    source: str


@dataclass(frozen=True)
class Traits:
    """What is the same for every checkpoint of a family, unless it is another in a variant.

    Attributes:
        family: its name.
        published_by: for people.
        rule: how its codes are chosen.
        temperatures: those published, by rule.
        crop: from an image size, how its authors prepare pictures for evaluation.
        image_size: pixels on a side.
        pixels: what the encoder takes.
        possible: rules that make sense of its codes.
    """

    family: str
    published_by: str
    rule: Rule
    temperatures: Mapping[Rule, Temperature]
    crop: Callable[[int], Crop]
    image_size: int = 256
    pixels: PixelRange = "[-1, 1]"
    possible: Sequence[str] = VECTOR_RULES


# What is divided by 1 where nobody published another temperature.
AS_IT_IS: dict[Rule, str] = {
    "l2": "softmax of minus the squared distance as it is",
    "dot": "softmax of the dot product as it is",
}
UNPUBLISHED = "no temperature is published for {}"


def absent(shapes: Shapes, names: Sequence[str]) -> list[str]:
    """Those of the names that a checkpoint lacks."""
    return [name for name in names if name not in shapes]


def choose_image_size(settings: TokenizerSettings, default: int, downsampling: int) -> tuple[int, int]:
    """Pixels on a side of a picture, and latents on a side of the grid.

    Raises:
        CheckpointError: the latents don't fill it.
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
    """The one scale of a tokenizer without others.

    Raises:
        CheckpointError: other patch_nums were asked for.
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
    """The rule asked for, else the family's.

    Raises:
        CheckpointError: the family's codes can't be compared by that rule.
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
    """The family's own for a rule, else 1, else one that is fitted."""
    if rule in published:
        return published[rule]
    reason = UNPUBLISHED.format(f"{family} with the rule {rule}")
    if rule == "cosine":
        return Temperature("auto", reason)
    return Temperature(1.0, f"{AS_IT_IS[rule]}; {reason}")


def describe_grid(
    traits: Traits,
    network: Network,
    settings: TokenizerSettings,
    vocabulary: Vocabulary,
    notes: Sequence[str] = (),
) -> TokenizerSpec:
    """A tokenizer whose only scale is the encoder's grid; for the errors see `describe_scales`."""
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
    """A tokenizer with the shared encoder, all that is open decided.

    Args:
        traits: of its family.
        network: its encoder, without weights.
        settings: what the user decides.
        scales: from the size of an image in pixels and in latents.
        notes: for the user.

    Raises:
        CheckpointError: the settings fit neither each other nor the encoder.
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
        temperature=temperature.value,
        temperature_source=temperature.source,
        notes=tuple(notes),
    )
