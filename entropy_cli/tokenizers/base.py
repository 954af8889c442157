"""The narrow waist: what every tokenizer family gives to the estimator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from entropy_cli.entropy.codebook import Codebook, Grid, Rule
from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.precision import Precision


@dataclass(frozen=True)
class Scale:
    """One scale: its name for people, its tokens and codes; `patch_num` is the side of a square grid."""

    name: str
    tokens: int
    patch_num: int | None
    vocabulary: Vocabulary


def sums_layout(scales: Sequence[Scale], groups: int, temperatures: int) -> SumsLayout:
    """Return the sizes of sums over images at these scales."""
    tokens_S = tuple(scale.tokens for scale in scales)
    return SumsLayout(groups, tokens_S, tuple(scale.vocabulary for scale in scales), temperatures)


@dataclass(frozen=True)
class Crop:
    """The picture-level half of preprocessing: picklable, for the workers that decode.

    Attributes:
        apply: from a picture as it was opened to an RGB one of image_size x image_size.
        words: what it does, for people.
    """

    apply: Callable[[Image], Image]
    words: str


PixelRange = Literal["[-1, 1]", "[0, 1]"]


@dataclass(frozen=True)
class TokenizerSpec:
    """What is known of a tokenizer without running it.

    Attributes:
        latent_dim: numbers in a latent.
        image_size: pixels on a side, None if it is not given pictures.
        pixels: what the encoder takes.
        temperature: the default, "auto" if one has to be fitted.
        temperature_source: where that is from, for people.
        notes: what the user should know of this checkpoint.
    """

    family: str
    latent_dim: int
    image_size: int | None
    scales: tuple[Scale, ...]
    rule: Rule
    crop: Crop
    pixels: PixelRange
    temperature: float | Literal["auto"]
    temperature_source: str
    notes: tuple[str, ...] = ()

    @property
    def patch_nums(self) -> list[int | None]:
        """Side of each scale's grid."""
        return [scale.patch_num for scale in self.scales]

    @property
    def vocab_size(self) -> int:
        """Codes, of the scale that has most."""
        return max(scale.vocabulary.size for scale in self.scales)

    @property
    def entries(self) -> int:
        """Of a tally, for the scale that needs most."""
        return max(scale.vocabulary.entries for scale in self.scales)

    @property
    def preprocess(self) -> str:
        """What is done to a picture, for people."""
        return f"{self.crop.words}, pixels to {self.pixels}" if self.image_size else self.crop.words


class Tokenizer(Protocol):
    """A frozen encoder and its quantiser.

    The estimator drives it: encode, then for each scale take the vectors, assign them, and subtract what
    the hard assignment explains. Vectors are float32 whatever the encoder's precision.
    """

    spec: TokenizerSpec

    def to(self, device: torch.device, precision: Precision) -> "Tokenizer":
        """The same on a device, with its encoder in a precision; this one may be unusable after."""
        ...

    def codebook(self, scale: int) -> Codebook | Grid:
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
