"""Tokenizer settings that the weights don't show: from the command line, else from config.json."""

from dataclasses import dataclass, replace
from typing import Literal

from entropy_cli.entropy.codebook import Rule

Weights = Literal["raw", "ema"]  # raw as the last step left them, or an exponential moving average


@dataclass(frozen=True)
class TokenizerSettings:
    """Settings of a tokenizer; None leaves one to the family.

    Attributes:
        image_size: side of the images in pixels.
        patch_nums: side of each scale's grid.
        rule: how codes are compared with latents.
        weights: which copy of the weights is used.
        norm_groups: number of groups of every group norm.
        quant_resi: share of phi in what a scale's codes explain, in VAR's residual quantiser.
        levels: number of levels of each dimension of a latent (FSQ).
        normalised: whether latents and codes are compared as unit vectors, where no rule is chosen.
        latent_side: side of the grid of latents, where no image size is chosen.
    """

    image_size: int | None = None
    patch_nums: tuple[int, ...] | None = None
    rule: Rule | None = None
    weights: Weights | None = None
    norm_groups: int | None = None
    quant_resi: float | None = None
    levels: tuple[int, ...] | None = None
    normalised: bool | None = None
    latent_side: int | None = None

    def filled_from(self, other: "TokenizerSettings") -> "TokenizerSettings":
        """Return these settings, with those that are None taken from others."""
        missing = {name: value for name, value in vars(other).items() if getattr(self, name) is None}
        return replace(self, **missing)
