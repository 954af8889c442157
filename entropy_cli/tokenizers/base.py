"""The narrow waist: what every tokenizer family gives to the estimator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from entropy_cli.functional.assign import Codebook, Rule
from entropy_cli.tokenizers.precision import Precision


@dataclass(frozen=True)
class Scale:
    """One scale: its name for people, and its tokens; `patch_num` is the side of a square grid."""

    name: str
    tokens: int
    patch_num: int | None


@dataclass(frozen=True)
class Crop:
    """The picture-level half of preprocessing: picklable, for the workers that decode.

    Attributes:
        apply: from a picture as PIL opened it, of any mode, to an RGB one of image_size x image_size.
        words: what it does, for people; the range of the pixels is the tokenizer's.
    """

    apply: Callable[[Image], Image]
    words: str


@dataclass(frozen=True)
class TokenizerSpec:
    """What is known of a tokenizer without running it."""

    family: str
    vocab_size: int
    latent_dim: int
    image_size: int
    scales: tuple[Scale, ...]
    rule: Rule
    crop: Crop
    temperature: float | Literal["auto"]  # the family's default
    temperature_source: str
    notes: tuple[str, ...] = ()  # what the user should know of this checkpoint

    @property
    def patch_nums(self) -> list[int | None]:
        """Side of each scale's grid."""
        return [scale.patch_num for scale in self.scales]


class Tokenizer(Protocol):
    """A frozen encoder and its quantiser.

    The estimator drives it: encode, then for each scale take the vectors, assign them, and subtract what
    the hard assignment explains. Vectors are float32 whatever the encoder's precision.
    """

    spec: TokenizerSpec

    def to(self, device: torch.device, precision: Precision) -> "Tokenizer":
        """The same on a device, with its encoder in a precision; this one may be unusable after."""
        ...

    def codebook(self, scale: int) -> Codebook:
        """The codes of a scale, prepared for distances, on the tokenizer's device."""
        ...

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """From uint8 RGB pictures to the latent f_BChw that is left to be assigned."""
        ...

    def vectors(self, rest_BChw: Tensor, scale: int) -> Tensor:
        """The latents z_BlC to be assigned at a scale, in raster order."""
        ...

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """What is left of the latent without the codes chosen at a scale; not asked after the last."""
        ...
