"""The network of a checkpoint: its sizes, read off the stored shapes, and its weights."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.autoencoder import (
    Conventions,
    Encoder,
    Shapes,
    conv_like,
    count,
    through,
)
from entropy_cli.tokenizers.layers.residual import PHI_RATIO
from entropy_cli.tokenizers.names import Layout, joined_shapes, unread_weights

# Prefixes of the weights of the encoder and of what follows it.
NEEDED = ("encoder.", "blocks.", "encode_task_layer.", "quant_conv.", "quantize.", "quantizer.")
# The published names of each weight of a network, several where they are joined.
Sources = Mapping[str, tuple[str, ...]]


class Network(nn.Module):
    """The encoder, the convolution after it and those between scales, of sizes read off the shapes.

    Attributes:
        quant_conv: what follows the encoder, in float32.
        latent_dim: numbers of a latent.
        image_size: side of the images in pixels, where the encoder takes no others.
    """

    ENCODER = Encoder

    encoder: Any
    quant_conv: nn.Module
    latent_dim: int
    image_size: int | None = None

    def __init__(self, shapes: Shapes, by: Conventions) -> None:
        super().__init__()
        self.encoder = self.ENCODER(shapes, by)
        there = "quant_conv.weight" in shapes
        self.quant_conv = conv_like(shapes, "quant_conv", by) if there else nn.Identity()
        phis = range(count(shapes, "phi.{}.weight"))
        self.phi = nn.ModuleList(conv_like(shapes, f"phi.{k}", by) for k in phis)
        self.phi_ratio = PHI_RATIO
        made = self.encoder.conv_out.out_channels
        last = self.quant_conv if isinstance(self.quant_conv, nn.Conv2d) else self.encoder.conv_out
        self.latent_dim = last.out_channels

        if self.encoder.conv_in.in_channels != self.encoder.channels_in:
            raise ValueError(f"takes images of {self.encoder.conv_in.in_channels} channels, not 3")
        if there and made != last.in_channels:
            raise ValueError(f"the encoder gives {made} channels, quant_conv takes {last.in_channels}")
        for conv in self.phi:
            if not conv.in_channels == conv.out_channels == self.latent_dim:
                raise ValueError(f"a latent has {self.latent_dim} dimensions, but got {conv}")

    @property
    def downsampling(self) -> int:
        """The number of pixels on the side of one latent."""
        return self.encoder.downsampling

    def flow(self) -> int:
        """Return the channels of the latents, without running it; see `through`."""
        return through(self.quant_conv, self.encoder.flow())


class EncoderNetwork(Network):
    """An encoder of another kind, which knows its `latent_dim`, `image_size` and `downsampling`."""

    def __init__(self, encoder: Any) -> None:  # noqa: ANN401
        nn.Module.__init__(self)
        self.encoder, self.quant_conv = encoder, nn.Identity()
        self.latent_dim, self.image_size = encoder.latent_dim, encoder.image_size

    def flow(self) -> int:
        """Return the dimensions of the latents, which no other layer takes."""
        return self.latent_dim


def plan_network(
    checkpoint: Checkpoint,
    layout: Layout,
    others: Sequence[str],
    groups: int | None = None,
    make: Callable[[Shapes, Conventions], Network] = Network,
) -> tuple[Network, Sources]:
    """Return the network without its weights, on the meta device, after checking the shapes.

    Args:
        checkpoint: a checkpoint of a family with this layout.
        layout: how the family names its weights.
        others: published names of weights that the caller reads itself.
        groups: number of groups of the norms, None for the layout's.
        make: the family's kind of network.

    Returns:
        The network, and the published names of each of its weights.

    Raises:
        CheckpointError: the shapes contradict each other or don't make an encoder, or weights of the
            encoder or quantiser are missing or left over.
    """
    try:
        names = (name for name in checkpoint.shapes if name.startswith(NEEDED))
        sources = layout.sources(name for name in names if not name.startswith(tuple(layout.unused)))
        shapes = joined_shapes(checkpoint.shapes, sources)
        with torch.device("meta"):
            network = make(shapes, layout.conventions_with(groups))
    except (ValueError, KeyError, IndexError) as error:
        missing = isinstance(error, KeyError)
        reason = f"lacks {error.args[0]}, or its name in this family" if missing else str(error)
        raise CheckpointError(
            f"{checkpoint.path}: not a usable encoder: {reason}. Expected the layout of the family's "
            "published checkpoints."
        ) from error
    expected = {ours: tuple(weight.shape) for ours, weight in network.state_dict().items()}
    for ours in expected:
        if ours not in sources:
            raise CheckpointError(f"{checkpoint.path}: lacks {ours}, or its name in this family.")
    read = {name for ours in expected for name in sources[ours]} | set(others)
    refuse_unread(checkpoint, read, layout.unused)
    for ours, shape in expected.items():
        if shapes[ours] != shape:
            raise CheckpointError(
                f"{checkpoint.path}: sizes contradict each other: {', '.join(sources[ours])} has shape "
                f"{shapes[ours]}, but other weights imply {shape}."
            )
    try:
        network.flow()
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: sizes contradict each other: {error}.") from error
    return network, sources


def refuse_unread(checkpoint: Checkpoint, read: Collection[str], unused: Mapping[str, str]) -> None:
    """Raise CheckpointError unless every weight that could change the tokens is read."""
    for name in unread_weights(checkpoint.shapes, read, unused):
        raise CheckpointError(
            f"{checkpoint.path}: got {name}, which is not in the layout of this family and could change "
            "the tokens. Choose another --family, or give --latents made with the tokenizer's own code."
        )


def load_weights(checkpoint: Checkpoint, network: Network, sources: Sources) -> Network:
    """Return a network of `plan_network` with its weights, for inference.

    Raises:
        CheckpointError: a weight can't be read or is not finite.
    """
    weights = {}
    for ours, like in network.state_dict().items():
        parts = [checkpoint.finite(name) for name in sources[ours]]
        weights[ours] = (torch.cat(parts) if len(parts) > 1 else parts[0]).view(like.shape)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def vocab_size(
    checkpoint: Checkpoint, name: str, network: Network, padding: int = 0, *, is_layer: bool = False
) -> int:
    """Return the number of codes of a table, less its padding, or of a layer that gives their logits.

    Raises:
        CheckpointError: there are no codes, or their dimensions are not the latents'.
    """
    shape, dim = checkpoint.shapes[name], network.latent_dim
    if len(shape) != 2 and not (is_layer and shape[2:] == (1, 1)):
        reason = f"has shape {shape}, expected a table of codes"
    elif shape[0] <= padding:
        reason = "holds no codes"
    elif shape[1] != dim:
        reason = f"holds codes of {shape[1]} dimensions, but the encoder gives latents of {dim}"
    else:
        return shape[0] - padding
    raise CheckpointError(f"{checkpoint.path}: {name} {reason}. Copy or train it again.")


def logit_layer(checkpoint: Checkpoint, weight: str, bias: str) -> tuple[Tensor, Tensor]:
    """Read the layer that gives each code's logit: its weight (V, C) and bias (V,).

    Raises:
        CheckpointError: they differ in size, or one can't be read or is not finite.
    """
    weight_VC, bias_V = checkpoint.finite(weight).flatten(1), checkpoint.finite(bias)
    if bias_V.shape != weight_VC.shape[:1]:
        raise CheckpointError(
            f"{checkpoint.path}: sizes contradict each other: {bias} has shape {tuple(bias_V.shape)}, "
            f"expected ({len(weight_VC)},)."
        )
    return weight_VC, bias_V
