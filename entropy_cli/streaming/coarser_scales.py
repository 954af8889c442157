"""What a model on several scales sees of a token: the latent that the coarser scales add up to."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.entropy.ladder.sights import Seen
from entropy_cli.tokenizers.base import Tokenizer

SAMPLED = 64  # images that the spread of the latents is taken from


@dataclass(frozen=True)
class CoarserScales:
    """The sum of the coarser scales' codes at the grid of a scale: 3x3 around a token, and its mean.

    Attributes:
        tokenizer: on the CPU, in float32.
        spread: root mean square of what is seen, which is divided by it: units of latents are any.
    """

    tokenizer: Tokenizer
    spread: float
    codes: int = 0
    words: str = "the latent that coarser scales add up to: 3x3 around the token, and its mean"

    @classmethod
    def of(cls, tokenizer: Tokenizer, idx_ML: np.ndarray) -> "CoarserScales":
        """Return the sight for some images' tokens."""
        seen = cls(tokenizer, 1.0)(torch.from_numpy(idx_ML[:SAMPLED]))
        square, number = 0.0, 0
        for vector_BlF, _ in seen[1:]:
            square += vector_BlF.double().square().sum().item()
            number += vector_BlF.numel()
        return cls(tokenizer, (square / max(1, number)) ** 0.5 or 1.0)

    @property
    def vectors(self) -> int:
        """The numbers that are seen of each token."""
        return 10 * self.tokenizer.spec.latent_dim

    @torch.inference_mode()
    def __call__(self, idx_BL: Tensor) -> list[Seen]:
        """Return what is seen of the tokens of each scale; zeros at the first."""
        found = []
        for scale, sum_BlC in zip(
            self.tokenizer.spec.scales, coarser_sums(self.tokenizer, idx_BL), strict=True
        ):
            grid = isqrt(scale.tokens)
            z_BlC = sum_BlC / self.spread
            z_BCpp = torch.unflatten(z_BlC.transpose(1, 2), 2, (grid, grid))
            around_BFl = functional.unfold(z_BCpp, 3, padding=1)
            mean_BlC = z_BlC.mean(1, keepdim=True).expand_as(z_BlC)
            vector_BlF = torch.cat([around_BFl.transpose(1, 2), mean_BlC], 2)
            none_BlK = torch.empty(len(idx_BL), scale.tokens, 0, dtype=torch.int64)
            found.append(Seen(vector_BlF, none_BlK))
        return found


def coarser_sums(tokenizer: Tokenizer, idx_BL: Tensor) -> Iterator[Tensor]:
    """Yield for each scale what the codes of coarser scales add up to at its grid, (B, l, C) float32.

    Args:
        tokenizer: of a residual quantiser, on the device of the tokens.
        idx_BL: tokens, scale after scale.
    """
    spec, start = tokenizer.spec, 0
    side = isqrt(spec.scales[-1].tokens)
    rest_BChw = torch.zeros(len(idx_BL), spec.latent_dim, side, side, device=idx_BL.device)
    for s, scale in enumerate(spec.scales):
        yield -tokenizer.vectors(rest_BChw, s)
        if s < len(spec.scales) - 1:
            idx_Bl = idx_BL[:, start : start + scale.tokens]
            rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)  # minus the sum so far
            start += scale.tokens


def teacher_inputs(tokenizer: Tokenizer, idx_BL: Tensor) -> Tensor:
    """Return what a model of next-scale prediction is given when the tokens are known.

    Returns:
        inputs_BMC, float32: for the M tokens after the first scale, the sum of coarser scales' codes.

    Source:
        FoundationVision/VAR models/quant.py (idxBl_to_var_input).
    """
    return torch.cat(list(coarser_sums(tokenizer, idx_BL))[1:], 1)
