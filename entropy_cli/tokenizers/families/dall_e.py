"""Family: DALL-E's discrete VAE, and FLAVA's copy of it: each code has a logit.

Source:
    openai/DALL-E dall_e/encoder.py, utils.py (map_pixels), notebooks/usage.ipynb (preprocessing);
    huggingface/transformers models/flava (FlavaImageCodebook, FlavaImageProcessor).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.layers.dvae import DVAEEncoder
from entropy_cli.tokenizers.names import Layout
from entropy_cli.tokenizers.network import EncoderNetwork, Network, Sources, logit_layer, vocab_size
from entropy_cli.tokenizers.preprocess import dall_e_crop, squeeze
from entropy_cli.tokenizers.settings import TokenizerSettings


class DALLE(Family):
    """The family: the pickled encoder, a state dict, or a folder of FLAVA."""

    CLASSES = ("flava_image_codebook", "FlavaImageCodebook", "flava", "FlavaForPreTraining")
    REQUIRED = (
        "blocks.input.w",
        "blocks.output.conv.w",
        "blocks.output.conv.b",
        "blocks.group_1.block_1.res_path.conv_1.w",
    )
    FLAVA = (
        "blocks.input.weight",
        "blocks.output.conv.weight",
        "blocks.output.conv.bias",
        "blocks.group_1.group.block_1.res_path.path.conv_1.weight",
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[3]: "DALL-E's name for the convolutions of a block",
        FLAVA[3]: "FLAVA's name for them",
        REQUIRED[1]: "the layer that gives each code's logit",
    }
    LAYOUT: ClassVar = Layout(
        renames=(
            (r"^blocks\.", "encoder."),
            (r"\.w$", ".weight"),
            (r"\.b$", ".bias"),
            (r"\.group\.", "."),
            (r"\.res_path\.(path\.)?", "."),
        )
    )
    TRAITS = Traits(
        family="dall-e",
        published_by="DALL-E",
        rule="logits",
        temperatures={
            "logits": Temperature(
                (1.0,), "softmax of the logits: the posterior of DALL-E's discrete VAE"
            )
        },
        crop=dall_e_crop,
        pixels="[0.1, 0.9]",
    )
    NETWORK = staticmethod(lambda shapes, _: EncoderNetwork(DVAEEncoder(shapes)))

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks, under FLAVA's names if it has any."""
        return [name for name in self._names(checkpoint) if name not in checkpoint.shapes]

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks the decoder, which has such names too."""
        shapes = [checkpoint.shapes.get(name, ()) for name in (self.REQUIRED[0], self.FLAVA[0])]
        return [
            f"takes {s[1]} channels, as the decoder does" for s in shapes if s[1:2] not in ((), (3,))
        ]

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List the name of the layer that gives the logits."""
        return [self._names(checkpoint)[1]]

    def _names(self, checkpoint: Checkpoint) -> Sequence[str]:
        return self.FLAVA if any(name in checkpoint.shapes for name in self.FLAVA) else self.REQUIRED

    def _network(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> tuple[Network, Sources]:
        """Return the network; FLAVA with another number of groups, which scales blocks, is refused."""
        network, sources = super()._network(checkpoint, settings)
        there, told = len(network.encoder.groups), checkpoint.config.find("num_groups")[1]
        if told not in (None, there):
            raise CheckpointError(
                f"{checkpoint.config.path}: num_groups is {told!r}, but the weights have {there} "
                "groups. Make latents with transformers and give --latents."
            )
        return network, sources

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        return list(self._names(checkpoint)[1:3])

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        is_flava = self._names(checkpoint) is self.FLAVA
        return replace(self.TRAITS, image_size=112, crop=squeeze) if is_flava else self.TRAITS

    def _vocabulary(self, plan: Plan) -> Vocabulary:
        (name,) = self.codebooks(plan.checkpoint)
        return Vocabulary(vocab_size(plan.checkpoint, name, plan.network, is_layer=True))

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> list[Codebook]:
        _, weight, bias, _ = self._names(checkpoint)
        weight_VC, bias_V = logit_layer(checkpoint, weight, bias)
        return [Codebook(weight_VC, "logits", bias_V)]
