"""Cosmos's encoder, which is that of latent diffusion on Haar wavelets of an image.

Source:
    NVIDIA/Cosmos-Tokenizer cosmos_tokenizer/modules/layers2d.py, patching.py (Patcher).
"""

import math

import torch
from torch import Tensor

from entropy_cli.tokenizers.layers.autoencoder import Conventions, Encoder, Shapes


class WaveletEncoder(Encoder):
    """The encoder of Haar wavelets of an image, with levels that do not all halve it."""

    halves_every_level = False

    def __init__(self, shapes: Shapes, by: Conventions, name: str = "encoder") -> None:
        super().__init__(shapes, by, name)
        self.patch = patch_side(self.conv_in.in_channels)
        self.channels_in = 3 * self.patch**2

    @property
    def downsampling(self) -> int:
        """The number of pixels on the side of one latent."""
        return super().downsampling * self.patch

    def forward(self, x_B3HW: Tensor) -> Tensor:
        for _ in range(self.patch.bit_length() - 1):
            x_B3HW = haar(x_B3HW)
        return super().forward(x_B3HW)


def haar(x_BCHW: Tensor) -> Tensor:
    """Return means and differences of 2 x 2 pixels, halved as published: (B, 4C, H/2, W/2)."""
    a, b, c, d = (x_BCHW[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
    parts = (a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d)
    return torch.cat(parts, 1) / 4


def patch_side(channels: int) -> int:
    """Return the side of the patches that wavelets are of, from their number of channels."""
    patch = math.isqrt(channels // 3)
    if 3 * patch**2 != channels or patch.bit_count() != 1:
        raise ValueError(f"takes {channels} channels, expected 3 times 1, 4, 16 or more")
    return patch
