"""Tokenizers whose encoder is the shared convolutional one: running them."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.tokenizers.base import PixelRange, Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.compiled import CompiledEncoder
from entropy_cli.tokenizers.layers import fused
from entropy_cli.tokenizers.precision import Precision, cast_convolutions, matmul_precision


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
