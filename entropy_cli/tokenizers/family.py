"""The base classes of tokenizer families: of any, and of those whose codes are bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import Scale, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import (
    Traits,
    choose_image_size,
    choose_patch_nums,
    choose_rule,
    choose_temperature,
    grid_scale,
    pyramid,
)
from entropy_cli.tokenizers.convolutional import ConvTokenizer
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.network import Network, Sources, load_weights, plan_network, vocab_size
from entropy_cli.tokenizers.settings import TokenizerSettings


@dataclass(frozen=True)
class Plan:
    """What is known of a tokenizer before its scales.

    Attributes:
        checkpoint, settings: what it is made of.
        network: the encoder, without its weights.
        traits: of the family, or of its variant.
        image_size: side of the images in pixels.
        side: of the grid of latents.
    """

    checkpoint: Checkpoint
    settings: TokenizerSettings
    network: Any  # a Network, in which families differ
    traits: Traits
    image_size: int
    side: int


class Family:
    """A kind of tokenizer, published with one layout of weights and one way of choosing codes.

    A checkpoint is detected as the one family for which `missing_keys` and `conflicting_keys` are both
    empty and whose CLASSES don't contradict its config.json. None or several such families are an
    error, which the user settles with --family. The methods get a checkpoint whose wrapper and prefix
    are already removed from its names; only `build` reads weights. What follows is that of a codebook
    and the shared convolutional encoder; a subclass overrides what is different in it.

    Attributes:
        EMA_BY_DEFAULT: whether the family's authors evaluate the averaged (EMA) weights. They are then
            used where the checkpoint has them, unless the user chooses with --weights.
        TAKES_LEVELS: whether the user may give the levels of its dimensions.
        CLASSES: names of the family in config.json: `_class_name`, `model_type`, `architectures`.
            A config.json that names only other classes speaks against the family.
        REQUIRED: weights without which the family can't be built, the most specific to it first.
        IDENTIFYING_KEYS: weights that show a user why a checkpoint is of this family, the most specific
            first, each with a few words on what it is. `inspect` prints those that a checkpoint has.
        NOTES: what the user should know about each of its checkpoints.
        LAYOUT: how it names its weights.
        TRAITS: what its checkpoints have in common.
        NETWORK, TOKENIZER: its encoder, and what runs it.
    """

    EMA_BY_DEFAULT = False
    TAKES_LEVELS = False
    CLASSES: tuple[str, ...] = ()
    REQUIRED: tuple[str, ...] = ()
    IDENTIFYING_KEYS: ClassVar[dict[str, str]] = {}
    NOTES: tuple[str, ...] = ()
    LAYOUT: ClassVar = Layout()
    TRAITS: ClassVar[Traits]
    NETWORK: ClassVar[Any] = Network
    TOKENIZER: ClassVar = ConvTokenizer

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

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """Return the layout of a checkpoint's weights."""
        return self.LAYOUT

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer from names and shapes, with defaults for what is None in settings.

        Raises:
            CheckpointError: the shapes are not the layout's, or the settings don't fit them.
        """
        network, _ = self._network(checkpoint, settings)
        traits = self._traits(checkpoint, network)
        image_size, side = choose_image_size(settings, network.image_size or traits.image_size, network)
        plan = Plan(checkpoint, settings, network, traits, image_size, side)
        scales = self._scales(plan)
        rule = choose_rule(settings, traits.rule, traits.possible)
        temperature = choose_temperature(rule, traits.temperatures, traits.published_by)
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
            notes=tuple(self._notes(plan)),
            counted_scales=self._counted_scales(checkpoint),
        )

    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
        """Read the weights that tokens depend on and return the tokenizer, on the CPU and in float32.

        Raises:
            CheckpointError: as for `describe`, or a weight can't be read or is not finite.
        """
        spec = self.describe(checkpoint, settings)
        network = load_weights(checkpoint, *self._network(checkpoint, settings))
        return self.TOKENIZER(spec, network, self._codes(checkpoint, spec))

    def _network(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> tuple[Network, Sources]:
        """Return the network without its weights, and their published names."""
        others = self._others(checkpoint)
        layout = self.layout(checkpoint)
        return plan_network(checkpoint, layout, others, settings.norm_groups, self.NETWORK)

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        """Return the names of the weights to read besides the network's."""
        return self.codebooks(checkpoint)

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        return self.TRAITS

    def _vocabulary(self, plan: Plan) -> Vocabulary:
        return Vocabulary(vocab_size(plan.checkpoint, CODEBOOK, plan.network))

    def _scales(self, plan: Plan) -> tuple[Scale, ...]:
        return grid_scale(plan.side, self._vocabulary(plan), plan.settings)

    def _pyramid(self, plan: Plan, published: Mapping[int, Sequence[int]]) -> tuple[Scale, ...]:
        """Return scales of square grids, by default those that are published for the image size."""
        by, sizes = plan.traits.published_by, (plan.image_size, plan.side)
        return pyramid(choose_patch_nums(plan.settings, published, by, *sizes), self._vocabulary(plan))

    def _notes(self, plan: Plan) -> list[str]:
        return list(self.NOTES)

    def _counted_scales(self, checkpoint: Checkpoint) -> int | None:
        """Return the number of scales at which the checkpoint counted its codes, None if unknown."""
        return None

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> Sequence[Codebook | Grid]:
        return [Codebook(checkpoint.finite(CODEBOOK), spec.rule)]


class BitFamily(Family):
    """A family whose codes are the signs of latents."""

    # Whether the first bit of a code's number is the most significant; None for the rule's way.
    FIRST_IS_MOST: bool | None = None

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List no names: the codes are the corners of a cube."""
        return []

    def _vocabulary(self, plan: Plan) -> Vocabulary:
        return Vocabulary.product((2,) * plan.network.latent_dim)

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> Sequence[Codebook | Grid]:
        assert spec.rule in ("sign", "bsq")
        return [Grid.of_bits(spec.latent_dim, spec.rule, first_is_most=self.FIRST_IS_MOST)]
