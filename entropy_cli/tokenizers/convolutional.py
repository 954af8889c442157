"""Tokenizers whose encoder is the shared convolutional one: loading and running them."""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError, EntropyCliError
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.tokenizers.base import PixelRange, Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.compiled import CompiledEncoder
from entropy_cli.tokenizers.layers import fused
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
from entropy_cli.tokenizers.precision import Precision, cast_convolutions, matmul_precision

# Prefixes of the weights of the encoder and of what follows it.
NEEDED = ("encoder.", "quant_conv.", "quantize.", "quantizer.")


class Network(nn.Module):
    """The encoder, the convolution after it and those between scales, of sizes read off the shapes.

    Attributes:
        quant_conv: what follows the encoder, in float32.
        latent_dim: numbers of a latent.
    """

    ENCODER = Encoder

    quant_conv: nn.Module
    latent_dim: int

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

    def flow(self) -> int:
        """Return the channels of the latents, without running it; see `through`."""
        return through(self.quant_conv, self.encoder.flow())


def plan_network(
    checkpoint: Checkpoint,
    layout: Layout,
    others: Sequence[str],
    groups: int | None = None,
    make: type[Network] = Network,
) -> tuple[Network, dict[str, tuple[str, ...]]]:
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
    levels, halvings = len(network.encoder.down), network.encoder.halvings
    if network.encoder.halves_every_level and halvings != levels - 1:
        raise CheckpointError(
            f"{checkpoint.path}: got {halvings} downsampling convolutions between {levels} levels, "
            f"expected {levels - 1}. If the encoder downsamples by pooling, make latents with its own "
            "code and give --latents."
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


def load_network(
    checkpoint: Checkpoint,
    layout: Layout,
    others: Sequence[str],
    groups: int | None = None,
    make: type[Network] = Network,
) -> Network:
    """Return the network with its weights, for inference; for the arguments see `plan_network`.

    Raises:
        CheckpointError: as for `plan_network`, or a weight is not finite.
    """
    network, sources = plan_network(checkpoint, layout, others, groups, make)
    weights = {}
    for ours, like in network.state_dict().items():
        parts = [checkpoint.finite(name) for name in sources[ours]]
        weights[ours] = (torch.cat(parts) if len(parts) > 1 else parts[0]).view(like.shape)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def vocab_size(checkpoint: Checkpoint, name: str, network: Network, padding: int = 0) -> int:
    """Return the number of codes of a table, less its padding, or of logits of a linear layer.

    Raises:
        CheckpointError: there are no codes, or their dimensions are not the latents'.
    """
    shape, dim = checkpoint.shapes[name], network.latent_dim
    if len(shape) != 2 and not (name.endswith(".proj.weight") and shape[2:] == (1, 1)):
        reason = f"has shape {shape}, expected a table of codes"
    elif shape[0] <= padding:
        reason = "holds no codes"
    elif shape[1] != dim:
        reason = f"holds codes of {shape[1]} dimensions, but the encoder gives latents of {dim}"
    else:
        return shape[0] - padding
    raise CheckpointError(f"{checkpoint.path}: {name} {reason}. Copy or train it again.")


class ConvTokenizer:
    """A convolutional encoder with its codebooks, of one scale or several; see `base.Tokenizer`."""

    compiled: CompiledEncoder | None = None

    def __init__(
        self,
        spec: TokenizerSpec,
        network: Any,  # noqa: ANN401 - a Network, in which subclasses differ
        codebooks: Sequence[Codebook | Grid],
        precision: Precision = "fp32",
    ) -> None:
        self.spec, self.network, self.precision = spec, network, precision
        self.codebooks = list(codebooks)
        cast_convolutions(self.encoder, precision)

    @property
    def encoder(self) -> nn.Module:
        """The part of the network that runs in the precision."""
        return self.network.encoder

    def to(self, device: torch.device, precision: Precision) -> "ConvTokenizer":
        """Return a tokenizer on a device, with the encoder in a precision; this one stays as it is."""
        is_there = all(weight.device == device for weight in self.network.parameters())
        stays = is_there and precision == self.precision
        network = self.network if stays else copy.deepcopy(self.network).to(device)  # `to` is in place
        codebooks = [codebook.to(device) for codebook in self.codebooks]
        return type(self)(self.spec, network, codebooks, precision)

    def compile(self, images: int, *, required: bool) -> "ConvTokenizer":
        """Return a tokenizer whose encoder is compiled; see `compiled`."""
        other = copy.copy(self)
        other.compiled = CompiledEncoder(self.encoder, images, required=required)
        return other

    @property
    def kernels(self) -> str:
        """What has run the encoder so far: compiled, fused norms or torch."""
        if self.compiled is not None and self.compiled.works:
            return "compiled"
        device = next(self.network.parameters()).device
        return "fused norms" if fused.ran(device) else "torch"

    def codebook(self, scale: int) -> Codebook | Grid:
        """Return the scale's own codebook, or the one that all scales share."""
        return self.codebooks[min(scale, len(self.codebooks) - 1)]

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Return the latent after quant_conv, in float32 like all that follows."""
        with matmul_precision(tf32=self.precision == "tf32"):
            latent_BChw = self.encoded(img_B3HW)
        latent_BChw = latent_BChw.to(torch.float32, memory_format=torch.contiguous_format)
        return self.after_encoder(latent_BChw)

    def after_encoder(self, latent_BChw: Tensor) -> Tensor:
        """Return what the layers that follow the encoder make of its output."""
        return self.network.quant_conv(latent_BChw)

    def encoded(self, img_B3HW: Tensor) -> Tensor:
        """Return what the encoder gives for images, compiled if it is."""
        return (self.compiled or self.encoder)(scale_pixels(img_B3HW, self.spec.pixels))

    def vectors(self, rest_BChw: Tensor, scale: int) -> Tensor:
        """Return the latents of the whole grid."""
        return rest_BChw.flatten(2).transpose(1, 2)

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """Return the residual minus the chosen codes."""
        return rest_BChw - self.decoded(idx_Bl, scale).transpose(1, 2).view_as(rest_BChw)

    def decoded(self, idx_Bl: Tensor, scale: int) -> Tensor:
        """Return the chosen codes (B, l, C): the codes themselves, also under the rule "cosine"."""
        codebook = self.codebook(scale)
        assert isinstance(codebook, Codebook)
        return functional.embedding(idx_Bl, codebook.codes_VC)


def compiled(tokenizer: Tokenizer, images: int, *, required: bool) -> Tokenizer:
    """Return a tokenizer that compiles its encoder for batches of so many images.

    Where that fails, or the encoder is not one of this program's, the encoder runs as it is.

    Raises:
        EntropyCliError: that happened, but compiling is required; here or with the first batch.
    """
    if isinstance(tokenizer, ConvTokenizer):
        return tokenizer.compile(images, required=required)
    if required:
        raise EntropyCliError(
            "--compile on: only the encoders of checkpoints are compiled. Leave --compile out."
        )
    return tokenizer


def kernels_of(tokenizer: Tokenizer) -> str | None:
    """Return what has run the encoder so far, in words; None if it is not one of this program's."""
    return tokenizer.kernels if isinstance(tokenizer, ConvTokenizer) else None


# By which x / 255 is multiplied, and what is added.
RANGES: dict[PixelRange, tuple[float, float]] = {"[-1, 1]": (2, -1), "[0.1, 0.9]": (0.8, 0.1)}


def scale_pixels(img_B3HW: Tensor, to: PixelRange) -> Tensor:
    """Convert uint8 to float32 in a pixel range: x / 255, scaled and shifted."""
    x_B3HW = img_B3HW.float().div_(255)
    if to not in RANGES:
        return x_B3HW
    factor, shift = RANGES[to]
    return x_B3HW.mul_(factor).add_(shift)
