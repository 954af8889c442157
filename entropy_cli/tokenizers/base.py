"""The interface between a tokenizer and the estimator, which every tokenizer family implements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from entropy_cli.entropy.codebook import Codebook, Grid, Rule
from entropy_cli.entropy.quantity import Labels, TemperatureChoice
from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.limits import INDEPENDENT_SCALES
from entropy_cli.tokenizers.precision import Precision


@dataclass(frozen=True)
class Scale:
    """One scale of a tokenizer: its display name, its number of tokens in an image, and its codes.

    The patch_num is the side of the grid of tokens, None if they are not on a square grid.
    """

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
    """How an image as PIL opened it is cropped to an RGB image of image_size x image_size, and in words.

    It is picklable, for the workers that decode.
    """

    apply: Callable[[Image], Image]
    words: str


PixelRange = Literal["[-1, 1]", "[0, 1]", "[0.1, 0.9]"]


@dataclass(frozen=True)
class TokenizerSpec:
    """What is known about a tokenizer without running it.

    Attributes:
        family: name of the family.
        latent_dim: dimensions of a latent.
        image_size: side of the images in pixels, None if the tokenizer does not take images.
        scales: from the first to the final one.
        rule: how codes are compared with latents.
        crop: how an image is prepared.
        pixels: range of the pixel values that the encoder takes.
        temperatures: the defaults, the headline first; "auto" is fitted.
        temperature_source: where the defaults are from, for display.
        labels: what models on its tokens are trained on.
        notes: what the user should know about this checkpoint.
        counted_scales: number of scales at which the checkpoint counted its codes, None if unknown.
    """

    family: str
    latent_dim: int
    image_size: int | None
    scales: tuple[Scale, ...]
    rule: Rule
    crop: Crop
    pixels: PixelRange
    temperatures: tuple[TemperatureChoice, ...]
    temperature_source: str
    labels: Labels
    notes: tuple[str, ...] = ()
    counted_scales: int | None = None

    @property
    def temperature(self) -> TemperatureChoice:
        """Return the default temperature of the headline."""
        return self.temperatures[0]

    @property
    def is_residual(self) -> bool:
        """Return whether a scale's tokens change the latents of the next; those that are given stay."""
        several = len(self.scales) > 1 and self.image_size is not None
        return several and self.family not in INDEPENDENT_SCALES

    @property
    def patch_nums(self) -> list[int | None]:
        """Return the side of each scale's grid, None where the grid is not square."""
        return [scale.patch_num for scale in self.scales]

    @property
    def vocab_size(self) -> int:
        """Return the number of codes of the scale that has the most."""
        return max(scale.vocabulary.size for scale in self.scales)

    @property
    def preprocess(self) -> str:
        """Describe the preprocessing of an image, in words."""
        return f"{self.crop.words}, pixels to {self.pixels}" if self.image_size else self.crop.words


class Tokenizer(Protocol):
    """A frozen encoder and its quantiser.

    The estimator calls `encode` once, then for each scale `vectors`, assigns those to the codebook, and
    calls `subtract` with the nearest codes, or drawn ones. Vectors are float32 whatever the encoder's
    precision.
    """

    spec: TokenizerSpec

    def to(self, device: torch.device, precision: Precision) -> "Tokenizer":
        """Return a tokenizer on a device, with the encoder in a precision; this one stays as it is."""
        ...

    def codebook(self, scale: int) -> Codebook | Grid:
        """Return the codes of a scale, prepared for distances, on the tokenizer's device."""
        ...

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Encode uint8 RGB images to the latent f_BChw, all of which is still to be assigned."""
        ...

    def vectors(self, rest_BChw: Tensor, scale: int) -> Tensor:
        """Return the latents z_BlC to assign at a scale, in raster order."""
        ...

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """Return the residual minus what a scale's codes explain; not called after the final scale."""
        ...
