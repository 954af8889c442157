"""A tokenizer without an encoder, for latents made elsewhere and their codes, bits or levels."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal, NoReturn

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from entropy_cli.core.errors import CheckpointError, ShapeError
from entropy_cli.entropy.codebook import Codebook, Grid, Rule
from entropy_cli.tokenizers.base import Crop, Scale, TokenizerSpec
from entropy_cli.tokenizers.choices import Temperature, choose_temperature
from entropy_cli.tokenizers.precision import Precision

logger = logging.getLogger(__name__)

Channels = Literal["first", "last"]
FAMILY = "latents"
DEFAULTS: dict[Rule, Temperature] = {
    "l2": Temperature((1.0, "auto"), "1: softmax of minus the squared distance as it is"),
    "sign": Temperature((0.01,), "the entropy term of lookup-free quantisation (MAGVIT-2 and after)"),
    "bsq": Temperature((0.01,), "the entropy term of Infinity's binary spherical quantisation"),
    "levels": Temperature((1 / 6,), "twice the variance of rounding to whole numbers, 2 / 12"),
}


@dataclass(frozen=True)
class LatentScale:
    """One scale of latents: of shape (), (l,) or (h, w) for an image, without the channels."""

    name: str
    shape: tuple[int, ...]
    codebook: Codebook | Grid

    @property
    def tokens(self) -> int:
        """The number of an image's latents."""
        return torch.Size(self.shape).numel()

    @property
    def grid(self) -> str:
        """The shape of an image's latents, for display."""
        if len(self.shape) == 2:
            return " x ".join(map(str, self.shape))
        return f"{self.tokens} token{'s' if self.tokens > 1 else ''}"

    def to_scale(self) -> Scale:
        """Return the scale as a tokenizer's spec lists it."""
        is_square = len(self.shape) == 2 and self.shape[0] == self.shape[1]
        patch_num = isqrt(self.tokens) if is_square else None
        return Scale(self.name, self.tokens, patch_num, self.codebook.vocabulary)


def codes_of_scales(codebooks: Sequence[Tensor], scales: int) -> list[Tensor] | None:
    """Return the codes (V, C) of each scale, None if codebooks and scales differ in number.

    Args:
        codebooks: one for all scales or one for each, (V, C) or (1, V, C), or (Q, V, C) for Q scales.
        scales: number of scales.

    Source:
        vector-quantize-pytorch keeps codes as (1, V, C), those of heads or of a stack of residual
        quantisers as (Q, V, C).
    """
    stacks = [list(codes) if codes.ndim == 3 else [codes] for codes in codebooks]
    if [len(stack) for stack in stacks] == [1]:
        return stacks[0] * scales
    if len(stacks) == 1 or all(len(stack) == 1 for stack in stacks):
        codes_of_each = [codes_VC for stack in stacks for codes_VC in stack]
        return codes_of_each if len(codes_of_each) == scales else None
    return None


def describe_latents(
    name: str,
    shape: tuple[int, ...],
    rule: Rule,
    codebook_VC: Tensor | None,
    levels: tuple[int, ...] | None,
    channels: Channels | None = None,
) -> tuple[bool, LatentScale]:
    """Find the channels of latents, and make the codebook that they are assigned to.

    Args:
        name: of the latents, for display.
        shape: (images, C, h, w), (images, C, l), (images, C), or with the channels last.
        rule: how codes are compared with latents.
        codebook_VC: the codes; None for bits and levels.
        levels: number of levels of each dimension, under the rule "levels".
        channels: the axis after the images, or the last; None for the one that fits the codes, of a
            grid the first if both do, with a warning.

    Returns:
        Whether channels come before other axes; the scale.

    Raises:
        CheckpointError: the codes are not a finite table (V, C).
        ShapeError: the latents' shape does not fit the codes, or without a grid fits them both ways.
    """
    codes_VC = None if codebook_VC is None else _checked_codes(name, codebook_VC)
    dims = len(levels) if levels else None if codes_VC is None else codes_VC.shape[1]
    first = _channels_first(name, shape, dims, channels)
    size, grid = (shape[1], shape[2:]) if first else (shape[-1], shape[1:-1])
    if codes_VC is not None:
        codebook: Codebook | Grid = Codebook(codes_VC, rule)
    elif levels:
        codebook = Grid.of_levels(levels)
    else:
        codebook = Grid.of_bits(size, "sign" if rule == "sign" else "bsq")
    return first, LatentScale(name, grid, codebook)


def _channels_first(
    name: str, shape: tuple[int, ...], dims: int | None, channels: Channels | None
) -> bool:
    """Return whether the channels come before other axes; `dims` is None for bits."""
    is_usual = len(shape) in (2, 3, 4) and 0 not in shape[1:]
    ends = _fitting_ends(shape[1:], dims, channels) if is_usual else []
    if not ends:
        raise ShapeError(
            f"latents {name}: got shape {shape}{f', channels {channels}' if channels else ''}, expected "
            "(images, C, h, w), (images, C, l) or (images, C)"
            f"{f' with C = {dims}, the dimensions of a code' if dims else ''}."
        )
    if len(ends) > 1 and len(shape) == 3:  # both orders are usual
        raise ShapeError(
            f"latents {name}: got shape {shape}, which could be (images, C, l) or (images, l, C). Say "
            "which with --channels first or --channels last."
        )
    if len(ends) > 1:
        words = "latents %s: shape %s is read as (images, C, h, w), with channels first, not last"
        logger.warning(words, name, shape)
    return ends[0] == "first" and len(shape) > 2


def _fitting_ends(inner: tuple[int, ...], dims: int | None, channels: Channels | None) -> list[Channels]:
    """Return where the channels can be in the shape of an image's latents."""
    # Nothing tells how many bits there are, but a grid is most often square.
    is_grid_of_bits = dims is None and len(inner) == 3 and inner[0] != inner[1]
    is_same = len(inner) == 1 or inner[0] == inner[-1] == 1
    if is_same or (is_grid_of_bits and channels is None):
        channels = "first"
    ends: tuple[tuple[Channels, int], ...] = (("first", inner[0]), ("last", inner[-1]))
    return [end for end, size in ends if dims in (None, size) and channels in (None, end)]


def _checked_codes(name: str, codebook_VC: Tensor) -> Tensor:
    """Return a float32 copy of the codes, for which the file is not needed any more."""
    shape = tuple(codebook_VC.shape)
    if len(shape) != 2 or 0 in shape or not codebook_VC.is_floating_point():
        raise CheckpointError(
            f"codebook of {name}: got {describe_tensor(codebook_VC)}, expected floating-point codes "
            "(V, C)."
        )
    codes_VC = codebook_VC.to(torch.float32, copy=True)
    if not codes_VC.isfinite().all():
        raise CheckpointError(
            f"codebook of {name}: has NaN, infinity, or values too large for float32. Expected finite "
            "codes (V, C)."
        )
    return codes_VC


def describe_tensor(tensor: Tensor | np.ndarray) -> str:
    """Return the shape and type of a tensor or array, for display."""
    return f"shape {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


class LatentsTokenizer:
    """Takes latents (B, X), those of all scales one after the other, in place of images.

    For the methods see `tokenizers.base.Tokenizer`.
    """

    def __init__(self, scales: Sequence[LatentScale], rule: Rule, words: str) -> None:
        """Describe the tokenizer; `rule` is that of all scales, `words` tell where latents are from."""
        temperature = choose_temperature(rule, DEFAULTS, "given latents")
        self.scales = list(scales)
        self.spec = TokenizerSpec(
            family=FAMILY,
            latent_dim=max(scale.codebook.latent_dim for scale in scales),
            image_size=None,
            scales=tuple(scale.to_scale() for scale in scales),
            rule=rule,
            crop=Crop(_no_images, words),
            pixels="[-1, 1]",
            temperatures=temperature.values,
            temperature_source=temperature.source,
            labels="unknown",
        )
        lengths = [scale.tokens * scale.codebook.latent_dim for scale in scales]
        self.starts = [sum(lengths[:s]) for s in range(len(lengths) + 1)]

    def to(self, device: torch.device, precision: Precision) -> "LatentsTokenizer":
        """Return the tokenizer with its codes on a device; there is no encoder to have a precision."""
        moved = [LatentScale(s.name, s.shape, s.codebook.to(device)) for s in self.scales]
        return LatentsTokenizer(moved, self.spec.rule, self.spec.crop.words)

    def codebook(self, scale: int) -> Codebook | Grid:
        """Return the codes of a scale."""
        return self.scales[scale].codebook

    def encode(self, latent_BX: Tensor) -> Tensor:
        """Return the latents unchanged."""
        return latent_BX

    def vectors(self, rest_BX: Tensor, scale: int) -> Tensor:
        """Return the latents of a scale."""
        z_BX = rest_BX[:, self.starts[scale] : self.starts[scale + 1]]
        return z_BX.reshape(len(z_BX), self.scales[scale].tokens, -1)

    def subtract(self, rest_BX: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """Return the latents unchanged: each scale has its own."""
        return rest_BX


def _no_images(_: Image) -> NoReturn:
    raise CheckpointError("a tokenizer of latents takes no images")
