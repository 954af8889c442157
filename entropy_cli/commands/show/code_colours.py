"""Colours of codes: codes whose vectors are near each other get similar colours."""

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.entropy.codebook import Codebook, Grid

MEAN_LUMA, RANGES = 0.56, (0.25, 0.22, 0.2)  # half ranges of luma and the colour differences


def code_colours(idx_N: Tensor, codebook: Codebook | Grid) -> Tensor:
    """Return a deterministic colour for each code: sRGB in [0, 1], float64 (N, 3).

    In a table, lightness, yellow to blue, and green to red are the first three principal components of
    its vectors: most readers who are colour-blind see the first two. With bits or levels, they are the
    most, the middle and the least significant third of the index.

    Args:
        idx_N: indices of codes.
        codebook: on any device.
    """
    if isinstance(codebook, Grid):
        return _to_srgb(_thirds(idx_N, codebook))
    code_VC = codebook.codes_VC.detach().cpu().double()
    if codebook.rule == "cosine":
        code_VC = functional.normalize(code_VC, dim=1)
    code_VC = code_VC - code_VC.mean(0)
    _, component_CC = torch.linalg.eigh(code_VC.T @ code_VC)
    component_CK = component_CC.flip(1)[:, :3]  # eigenvalues ascend
    sign_K = component_CK.gather(0, component_CK.abs().argmax(0, keepdim=True)).sign()
    place_VK = code_VC @ (component_CK * sign_K)
    score_VK = place_VK / place_VK.std(0, correction=0).clamp(min=1e-12)
    place_VK = (score_VK / 2**0.5).erf()  # about evenly over the axis, if scores are normal
    missing = 3 - place_VK.shape[1]
    return _to_srgb(functional.pad(place_VK[idx_N.cpu()], (0, missing)))


def _thirds(idx_N: Tensor, grid: Grid) -> Tensor:
    """Split indices into three parts, each scaled to [-1, 1], (N, 3)."""
    sizes = [len(grid.coordinates[c]) for c in reversed(grid.significance)]  # least significant first
    third = -(-len(sizes) // 3)
    rest_N, parts = idx_N.cpu(), []
    for i in range(0, 3 * third, third):
        size = int(torch.tensor([1, *sizes[i : i + third]]).prod())
        parts.append((rest_N % size).double() / max(1, size - 1) * 2 - 1)
        rest_N = rest_N // size
    return torch.stack(parts[::-1], 1)


def _to_srgb(place_N3: Tensor) -> Tensor:
    """Convert positions in [-1, 1] on the three axes to sRGB, clipped to its gamut.

    Source:
        ITU-R BT.601-7, section 2.5 (luma and colour differences).
    """
    luma_N, blue_N, red_N = (place_N3 * torch.tensor(RANGES, dtype=torch.float64)).unbind(1)
    luma_N = luma_N + MEAN_LUMA
    green_N = luma_N - 0.344 * blue_N - 0.714 * red_N
    return torch.stack([luma_N + 1.402 * red_N, green_N, luma_N + 1.772 * blue_N], 1).clamp(0, 1)
