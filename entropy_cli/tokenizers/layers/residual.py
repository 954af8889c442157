"""The arithmetic of VAR's residual quantiser: between the grid of a latent and the grids of its scales.

Source:
    FoundationVision/VAR models/quant.py (VectorQuantizer2, Phi, PhiPartiallyShared).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

PHI_RATIO = 0.5  # what VAR publishes


def latents_of(rest_BChw: Tensor, patch_num: int) -> Tensor:
    """Return the residual z_BlC to assign at a scale: area-averaged, or unchanged at the final scale."""
    if patch_num != rest_BChw.shape[-1]:
        rest_BChw = functional.interpolate(rest_BChw, size=patch_num, mode="area")
    return rest_BChw.flatten(2).transpose(1, 2)


def upsampled(
    code_BlC: Tensor, side: int, phi: Callable[[Tensor], Tensor], ratio: float = PHI_RATIO
) -> Tensor:
    """Return a scale's contribution to the latent, h_BChw: bicubic upsampling, partly through phi."""
    patch_num = math.isqrt(code_BlC.shape[1])
    h_BChw = torch.unflatten(code_BlC.transpose(1, 2), 2, (patch_num, patch_num))
    if patch_num != side:
        h_BChw = functional.interpolate(h_BChw, size=(side, side), mode="bicubic")
    return h_BChw * (1 - ratio) + phi(h_BChw) * ratio


def phi_of(scale: int, scales: int, K: int) -> int:
    """Return the index of the shared convolution that a scale uses, as in the published code.

    The position on [0, 1] is often halfway between two ticks, so the ticks have to be rounded as
    numpy.linspace rounds them, and the first of the nearest taken.
    """
    start = 1 / 3 / K if K == 4 else 1 / 2 / K
    step = (1 - start - start) / (K - 1) if K > 1 else 0.0
    ticks = [start + k * step for k in range(K - 1)] + [1 - start]
    position = scale / (scales - 1) if scales > 1 else 0.0
    return min(range(K), key=lambda k: abs(ticks[k] - position))
