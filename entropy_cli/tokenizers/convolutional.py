"""Tokenizers whose encoder is the shared convolutional one: loading, and running."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.tokenizers.base import PixelRange, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.autoencoder import Encoder, Shapes, conv_like, count
from entropy_cli.tokenizers.layers.residual import PHI_RATIO
from entropy_cli.tokenizers.names import Layout, joined_shapes, needless
from entropy_cli.tokenizers.precision import Precision, cast_convolutions, products

# How the names begin that the encoder and what follows it are made of.
NEEDED = ("encoder.", "quant_conv.", "quantize.", "quantizer.")


class Network(nn.Module):
    """The encoder, the convolution after it, and those between scales, of the sizes that shapes tell."""

    def __init__(self, shapes: Shapes, layout: Layout) -> None:
        super().__init__()
        by = layout.conventions
        self.encoder = Encoder(shapes, by)
        there = "quant_conv.weight" in shapes
        self.quant_conv = conv_like(shapes, "quant_conv", by) if there else nn.Identity()
        phis = range(count(shapes, "phi.{}.weight"))
        self.phi = nn.ModuleList(conv_like(shapes, f"phi.{k}", by) for k in phis)
        name = "quant_conv.weight" if there else "encoder.conv_out.weight"
        self.latent_dim = shapes[name][0]
        self.phi_ratio = PHI_RATIO

        if self.encoder.conv_in.in_channels != 3:
            raise ValueError(f"takes pictures of {self.encoder.conv_in.in_channels} channels, not 3")
        made = self.encoder.conv_out.out_channels
        if there and made != shapes[name][1]:
            raise ValueError(f"the encoder gives {made} channels, quant_conv takes {shapes[name][1]}")
        for conv in self.phi:
            if not conv.in_channels == conv.out_channels == self.latent_dim:
                raise ValueError(f"a latent has {self.latent_dim} numbers, but got {conv}")


def plan_network(
    checkpoint: Checkpoint, layout: Layout, others: Sequence[str], groups: int | None = None
) -> Network:
    """The network without its weights.

    Args:
        checkpoint: of a family that has this layout.
        layout: of its names.
        others: published names that the caller reads itself.
        groups: of the norms, if they are others than the layout says.

    Raises:
        CheckpointError: the shapes contradict each other, or don't make an encoder; weights of the
            encoder or quantiser are missing or left over.
    """
    try:
        sources = _sources(checkpoint, layout)
        shapes = joined_shapes(checkpoint.shapes, sources)
        with torch.device("meta"):
            network = Network(shapes, layout.with_groups(groups))
    except (ValueError, KeyError, IndexError) as error:
        missing = isinstance(error, KeyError)
        reason = f"lacks {error.args[0]}, or what its family calls it" if missing else str(error)
        raise CheckpointError(
            f"{checkpoint.path}: not a usable encoder: {reason}. Expected the layout of the family's "
            "published checkpoints."
        ) from error
    expected = {ours: tuple(weight.shape) for ours, weight in network.state_dict().items()}
    _check_names(checkpoint, layout, sources, expected, others)
    for ours, shape in expected.items():
        if shapes[ours] != shape:
            raise CheckpointError(
                f"{checkpoint.path}: sizes contradict each other: {', '.join(sources[ours])} has shape "
                f"{shapes[ours]}, but other weights ask for {shape}."
            )
    levels, halvings = len(network.encoder.down), network.encoder.halvings
    if halvings != levels - 1:
        raise CheckpointError(
            f"{checkpoint.path}: got {halvings} convolutions that halve the picture between {levels} "
            f"levels, expected {levels - 1}. Where pooling halves it make latents with its own code and "
            "give --latents."
        )
    side = 2 * network.encoder.downsampling
    try:
        network.quant_conv(network.encoder(torch.empty(1, 3, side, side, device="meta")))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{checkpoint.path}: sizes contradict each other: {reason}") from error
    return network


def _sources(checkpoint: Checkpoint, layout: Layout) -> dict[str, tuple[str, ...]]:
    return layout.sources(name for name in checkpoint.shapes if name.startswith(NEEDED))


def _check_names(
    checkpoint: Checkpoint,
    layout: Layout,
    sources: Mapping[str, Sequence[str]],
    expected: Iterable[str],
    others: Sequence[str],
) -> None:
    """That the network's weights are there, and no others."""
    for ours in expected:
        if ours not in sources:
            raise CheckpointError(f"{checkpoint.path}: lacks {ours}, or what its family calls it.")
    read = {name for ours in expected for name in sources[ours]} | set(others)
    refuse_needless(checkpoint, read, layout.unused)


def refuse_needless(checkpoint: Checkpoint, read: Collection[str], unused: Mapping[str, str]) -> None:
    """Check that a checkpoint has nothing that could change the tokens and that nothing reads.

    Raises:
        CheckpointError: it has.
    """
    for name in needless(checkpoint.shapes, read, unused):
        raise CheckpointError(
            f"{checkpoint.path}: got {name}, which the layout of this family doesn't have and which "
            "could change the tokens. Choose another --family, or give --latents made elsewhere."
        )


def load_network(
    checkpoint: Checkpoint, layout: Layout, others: Sequence[str], groups: int | None = None
) -> Network:
    """The network with its weights; for the arguments see `plan_network`.

    Raises:
        CheckpointError: as there, or weights that aren't finite.
    """
    network = plan_network(checkpoint, layout, others, groups)
    sources, weights = _sources(checkpoint, layout), {}
    for ours, like in network.state_dict().items():
        parts = [finite(checkpoint, name) for name in sources[ours]]
        weights[ours] = (torch.cat(parts) if len(parts) > 1 else parts[0]).view(like.shape)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def finite(checkpoint: Checkpoint, name: str) -> Tensor:
    """A weight, or CheckpointError if it has NaN or infinity; one without numbers passes."""
    weight = checkpoint.tensor(name)
    if not weight.is_meta and not weight.isfinite().all():
        raise CheckpointError(
            f"{checkpoint.path}: {name} holds NaN or infinity; nothing computed with it would be a "
            "number. Copy or train it again."
        )
    return weight


def vocab_size(checkpoint: Checkpoint, name: str, network: Network, padding: int = 0) -> int:
    """Count the codes of a table beside its padding, or the logits that a layer makes of a latent.

    Raises:
        CheckpointError: there are none, or they are not as long as the latents.
    """
    shape, dim = checkpoint.shapes[name], network.latent_dim
    if len(shape) != 2 and not (name.endswith(".proj.weight") and shape[2:] == (1, 1)):
        reason = f"has shape {shape}, expected a table of codes"
    elif shape[0] <= padding:
        reason = "holds no codes"
    elif shape[1] != dim:
        reason = f"holds codes of {shape[1]} numbers, but the encoder gives latents of {dim}"
    else:
        return shape[0] - padding
    raise CheckpointError(f"{checkpoint.path}: {name} {reason}. Copy or train it again.")


class ConvTokenizer:
    """Encoder and codebooks, of one scale or of residual depths; see `tokenizers.base.Tokenizer`."""

    def __init__(
        self,
        spec: TokenizerSpec,
        network: Network,
        codebooks: Sequence[Codebook | Grid],
        precision: Precision = "fp32",
    ) -> None:
        self.spec, self.network, self.precision = spec, network, precision
        self.codebooks = list(codebooks)
        cast_convolutions(network.encoder, precision)

    def to(self, device: torch.device, precision: Precision) -> "ConvTokenizer":
        """Copy to a device, with the encoder in a precision."""
        network = copy.deepcopy(self.network) if precision != self.precision else self.network
        codebooks = [codebook.to(device) for codebook in self.codebooks]
        return type(self)(self.spec, network.to(device), codebooks, precision)

    def codebook(self, scale: int) -> Codebook | Grid:
        """Its own, or the one that all scales share."""
        return self.codebooks[min(scale, len(self.codebooks) - 1)]

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Latent after quant_conv, which is float32 like all that follows."""
        with products(tf32=self.precision == "tf32"):
            latent_BChw = self.network.encoder(scale_pixels(img_B3HW, self.spec.pixels))
        latent_BChw = latent_BChw.to(torch.float32, memory_format=torch.contiguous_format)
        return self.network.quant_conv(latent_BChw)

    def vectors(self, rest_BChw: Tensor, scale: int) -> Tensor:
        """The whole grid."""
        return rest_BChw.flatten(2).transpose(1, 2)

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """The codes themselves taken from the rest."""
        return rest_BChw - self.decoded(idx_Bl, scale).transpose(1, 2).view_as(rest_BChw)

    def decoded(self, idx_Bl: Tensor, scale: int) -> Tensor:
        """The codes, also under the cosine rule not their directions, (B, l, C)."""
        codebook = self.codebook(scale)
        assert isinstance(codebook, Codebook)
        return functional.embedding(idx_Bl, codebook.codes_VC)


def scale_pixels(img_B3HW: Tensor, to: PixelRange) -> Tensor:
    """From uint8 to float32: x / 255, or 2 (x / 255) - 1."""
    x_B3HW = img_B3HW.float().div_(255)
    return x_B3HW.mul_(2).sub_(1) if to == "[-1, 1]" else x_B3HW
