"""The base classes of tokenizer families: of any, and of those with the shared encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Codebook, Grid, Rule
from entropy_cli.entropy.quantity import Labels, TemperatureChoice
from entropy_cli.entropy.vocabulary import VECTOR_RULES, Vocabulary
from entropy_cli.tokenizers.base import Crop, PixelRange, Scale, Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.convolutional import (
    ConvTokenizer,
    Network,
    load_network,
    plan_network,
    vocab_size,
)
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.settings import TokenizerSettings


class Family(ABC):
    """A kind of tokenizer, published with one layout of weights and one way of choosing codes.

    A checkpoint is detected as the one family for which `missing_keys` and `conflicting_keys` are both
    empty and whose CLASSES don't contradict its config.json. None or several such families are an
    error, which the user settles with --family. The methods get a checkpoint whose wrapper and prefix
    are already removed from its names; only `build` reads weights.

    Attributes:
        EMA_BY_DEFAULT: whether the family's authors evaluate the averaged (EMA) weights. They are then
            used where the checkpoint has them, unless the user chooses with --weights.
        TAKES_LEVELS: whether the user may give the levels of its dimensions.
        CLASSES: names of the family in config.json: `_class_name`, `model_type`, `architectures`.
            A config.json that names only other classes speaks against the family.
        REQUIRED: weights without which the family can't be built, the most specific to it first.
        IDENTIFYING_KEYS: weights that show a user why a checkpoint is of this family, the most specific
            first, each with a few words on what it is. `inspect` prints those that a checkpoint has.
    """

    EMA_BY_DEFAULT = False
    TAKES_LEVELS = False
    CLASSES: tuple[str, ...] = ()
    REQUIRED: tuple[str, ...] = ()
    IDENTIFYING_KEYS: ClassVar[dict[str, str]] = {}

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks, the most specific to the family first."""
        return [name for name in self.REQUIRED if name not in checkpoint.shapes]

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List reasons against the family that detection heeds and --family overrides.

        Each is a phrase for an error message: "has quant_conv.weight", "no encoder.down.0.block.3". Use
        them where another family shares the required weights and only details differ.
        """
        return []

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List the names of the weights that hold the codes; none if the codes are bits or levels."""
        return [CODEBOOK]

    @abstractmethod
    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer from names and shapes, with defaults for what is None in settings.

        Raises:
            CheckpointError: the shapes are not the layout's, or the settings don't fit them.
        """

    @abstractmethod
    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> Tokenizer:
        """Read the weights that tokens depend on and return the tokenizer, on the CPU and in float32.

        Raises:
            CheckpointError: as for `describe`, or a weight can't be read or is not finite.
        """


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


class ConvFamily(Family):
    """A family of the shared convolutional encoder; a subclass overrides what is different in it."""

    LAYOUT: ClassVar = Layout()
    TRAITS: ClassVar[Traits]
    NETWORK: ClassVar = Network
    TOKENIZER: ClassVar = ConvTokenizer

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer, and choose what its weights leave open."""
        network, _ = plan_network(*self._network(checkpoint, settings))
        vocabularies = self._vocabularies(checkpoint, network)
        traits = self._traits(checkpoint, network)
        image_size, side = choose_image_size(settings, traits.image_size, network.encoder.downsampling)
        rule = choose_rule(settings, traits.rule, traits.possible)
        temperature = choose_temperature(rule, traits.temperatures, traits.published_by)
        scales = self._scales(checkpoint, settings, vocabularies, image_size, side)
        return TokenizerSpec(
            family=traits.family,
            latent_dim=network.latent_dim,
            image_size=image_size,
            scales=scales,
            rule=rule,
            crop=traits.crop(image_size),
            pixels=traits.pixels,
            temperatures=temperature.values,
            temperature_source=temperature.source,
            labels=traits.labels,
            notes=tuple(self._notes(checkpoint, network, len(scales))),
            counted_scales=self._counted_scales(checkpoint),
        )

    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
        """Read the weights and build the tokenizer."""
        spec = self.describe(checkpoint, settings)
        network = load_network(*self._network(checkpoint, settings))
        return self.TOKENIZER(spec, network, self._codes(checkpoint, spec))

    def _network(
        self, checkpoint: Checkpoint, settings: TokenizerSettings
    ) -> tuple[Checkpoint, Layout, list[str], int | None, type[Network]]:
        others = self._others(checkpoint)
        return checkpoint, self.layout(checkpoint), others, settings.norm_groups, self.NETWORK

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """Return the layout of a checkpoint's weights."""
        return self.LAYOUT

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        """Return the names of the weights to read besides the network's."""
        return self.codebooks(checkpoint)

    def _vocabularies(self, checkpoint: Checkpoint, network: Network) -> list[Vocabulary]:
        return [Vocabulary(vocab_size(checkpoint, CODEBOOK, network))]

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        return self.TRAITS

    def _scales(
        self,
        checkpoint: Checkpoint,
        settings: TokenizerSettings,
        vocabularies: Sequence[Vocabulary],
        image_size: int,
        side: int,
    ) -> tuple[Scale, ...]:
        return grid_scale(side, vocabularies[0], settings)

    def _notes(self, checkpoint: Checkpoint, network: Network, scales: int) -> list[str]:
        return []

    def _counted_scales(self, checkpoint: Checkpoint) -> int | None:
        """Return the number of scales at which the checkpoint counted its codes, None if unknown."""
        return None

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> Sequence[Codebook | Grid]:
        return [Codebook(checkpoint.finite(CODEBOOK), spec.rule)]


# What a temperature of 1 means where none is published.
AT_TEMPERATURE_1: dict[Rule, str] = {
    "l2": "softmax of minus the squared distance as it is",
    "dot": "softmax of the dot product as it is",
}
UNPUBLISHED = "no temperature is published for {}"


def choose_image_size(settings: TokenizerSettings, default: int, downsampling: int) -> tuple[int, int]:
    """Return the side of an image and of its grid; raise CheckpointError if they don't fit."""
    image_size = settings.image_size or (settings.latent_side or 0) * downsampling or default
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
