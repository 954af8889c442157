"""Family: DALL-E's discrete VAE, and FLAVA's copy of it: each code has a logit.

Source:
    openai/DALL-E dall_e/encoder.py, utils.py (map_pixels), notebooks/usage.ipynb (preprocessing);
    huggingface/transformers models/flava (FlavaImageCodebook, FlavaImageProcessor).
"""

import re
from typing import ClassVar

import torch
from torch import Tensor, nn

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.convolutional import ConvTokenizer, refuse_unread
from entropy_cli.tokenizers.family import (
    Family,
    Temperature,
    choose_image_size,
    choose_rule,
    choose_temperature,
    grid_scale,
)
from entropy_cli.tokenizers.layers.dvae import DVAEEncoder
from entropy_cli.tokenizers.preprocess import dall_e_crop, squeeze
from entropy_cli.tokenizers.settings import TokenizerSettings

# From published names to the encoder's, DALL-E's and FLAVA's.
RENAMES = (
    (r"^blocks\.", ""),
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
    (r"\.group\.", "."),
    (r"\.res_path\.(path\.)?", "."),
)
TEMPERATURE = Temperature((1.0,), "softmax of the logits: the posterior of DALL-E's discrete VAE")


class DVAETokenizer(ConvTokenizer):
    """DALL-E's encoder, with the last layer's weights as codes."""

    @property
    def encoder(self) -> nn.Module:
        """The whole network."""
        return self.network

    def after_encoder(self, latent_BChw: Tensor) -> Tensor:
        """Return the features: no layer follows but the one that gives the logits."""
        return latent_BChw


class DALLE(Family):
    """The family: the pickled encoder, a state dict, or a folder of FLAVA."""

    CLASSES = ("flava_image_codebook", "FlavaImageCodebook", "flava", "FlavaForPreTraining")
    REQUIRED = ("blocks.input.w", "blocks.output.conv.w", "blocks.group_1.block_1.res_path.conv_1.w")
    FLAVA = (
        "blocks.input.weight",
        "blocks.output.conv.weight",
        "blocks.group_1.group.block_1.res_path.path.conv_1.weight",
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[2]: "DALL-E's name for the convolutions of a block",
        FLAVA[2]: "FLAVA's name for them",
        REQUIRED[1]: "the layer that gives each code's logit",
    }

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks, under FLAVA's names if it has any."""
        names = self.FLAVA if any(name in checkpoint.shapes for name in self.FLAVA) else self.REQUIRED
        return [name for name in names if name not in checkpoint.shapes]

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks the decoder, which has such names too."""
        shapes = [checkpoint.shapes.get(name, ()) for name in (self.REQUIRED[0], self.FLAVA[0])]
        return [
            f"takes {s[1]} channels, as the decoder does" for s in shapes if s[1:2] not in ((), (3,))
        ]

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List the name of the layer that gives the logits."""
        return [self.FLAVA[1] if self.FLAVA[1] in checkpoint.shapes else self.REQUIRED[1]]

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer."""
        encoder, names = _plan(checkpoint)
        is_flava = self.FLAVA[1] in checkpoint.shapes
        groups = checkpoint.config.find("num_groups")[1]
        if groups not in (None, len(encoder.groups)):
            raise CheckpointError(
                f"{checkpoint.config.path}: num_groups is {groups!r}, but the weights have "
                f"{len(encoder.groups)} groups. Make latents with transformers and give --latents."
            )
        image_size, side = choose_image_size(settings, 112 if is_flava else 256, encoder.downsampling)
        codes, dims = checkpoint.shapes[names["output.conv.weight"]][:2]
        rule = choose_rule(settings, "logits")
        temperature = choose_temperature(rule, {"logits": TEMPERATURE}, "DALL-E")
        return TokenizerSpec(
            family="dall-e",
            latent_dim=dims,
            image_size=image_size,
            scales=grid_scale(side, Vocabulary(codes), settings),
            rule=rule,
            crop=squeeze(image_size) if is_flava else dall_e_crop(image_size),
            pixels="[0.1, 0.9]",
            temperatures=temperature.values,
            temperature_source=temperature.source,
            labels="hard",
        )

    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> DVAETokenizer:
        """Read the weights and build the tokenizer."""
        spec, (encoder, names) = self.describe(checkpoint, settings), _plan(checkpoint)
        weights = {ours: checkpoint.finite(names[ours]) for ours in encoder.state_dict()}
        encoder.load_state_dict(weights, assign=True)
        network = encoder.eval().requires_grad_(requires_grad=False)
        weight_VC, bias_V = (
            checkpoint.finite(names[f"output.conv.{part}"]) for part in ("weight", "bias")
        )
        return DVAETokenizer(spec, network, [Codebook(weight_VC.flatten(1), "logits", bias_V)])


def _plan(checkpoint: Checkpoint) -> tuple[DVAEEncoder, dict[str, str]]:
    """Build the encoder on the meta device; return it and the published names, or CheckpointError."""
    names = {}
    for published in checkpoint.shapes:
        ours = published
        for pattern, other in RENAMES:
            ours = re.sub(pattern, other, ours)
        names[ours] = published
    shapes = {ours: checkpoint.shapes[published] for ours, published in names.items()}
    try:
        with torch.device("meta"):
            encoder = DVAEEncoder(shapes)
        made, expected = encoder.flow(), {n: tuple(w.shape) for n, w in encoder.state_dict().items()}
        codes = shapes["output.conv.weight"][0]
        expected |= {"output.conv.weight": (codes, made, 1, 1), "output.conv.bias": (codes,)}
        wrong = [name for name, shape in expected.items() if shapes[name] != shape]
    except (KeyError, ValueError, IndexError) as error:
        missing = isinstance(error, KeyError)
        reason = f"lacks {error.args[0]}, or its name in this family" if missing else str(error)
        raise CheckpointError(f"{checkpoint.path}: not a usable dVAE: {reason}.") from error
    refuse_unread(checkpoint, [names[name] for name in expected], {})
    if wrong or not codes:
        name = wrong[0] if wrong else "output.conv.weight"
        raise CheckpointError(
            f"{checkpoint.path}: sizes contradict each other: {names[name]} has shape {shapes[name]}, "
            f"but other weights imply {expected[name]}."
        )
    return encoder, names
