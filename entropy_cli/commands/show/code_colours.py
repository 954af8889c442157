"""Colours of codes: codes whose vectors are near each other get similar colours."""

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.entropy.codebook import Codebook, Grid

LIGHTNESS, LIGHTNESS_RANGE, CHROMA = 60.0, 26.0, 58.0  # of CIELAB


def code_colours(idx_N: Tensor, codebook: Codebook | Grid) -> Tensor:
    """Return a deterministic colour for each code: sRGB in [0, 1], float64 (N, 3).

    In a table, lightness, red to green, and blue to yellow are the first three principal components of
    its vectors. With bits or levels, they are the most, the middle and the least significant third of
    the index.

    Args:
        idx_N: indices of codes.
        codebook: on any device.
    """
    if isinstance(codebook, Grid):
        return _lab_to_srgb(_thirds(idx_N, codebook))
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
    return _lab_to_srgb(functional.pad(place_VK[idx_N.cpu()], (0, missing)))


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


def _lab_to_srgb(place_N3: Tensor) -> Tensor:
    """Convert positions in [-1, 1] on the axes of CIELAB to sRGB, clipped to its gamut.

    Source:
        CIE 15:2004 (CIELAB, white point D65); IEC 61966-2-1 (sRGB).
    """
    lightness_N, a_N, b_N = place_N3.unbind(1)
    y_N = (LIGHTNESS + LIGHTNESS_RANGE * lightness_N + 16) / 116
    f_N3 = torch.stack([y_N + CHROMA * a_N / 500, y_N, y_N - CHROMA * b_N / 200], 1)
    xyz_N3 = torch.where(f_N3 > 6 / 29, f_N3**3, 3 * (6 / 29) ** 2 * (f_N3 - 4 / 29))
    xyz_N3 = xyz_N3 * torch.tensor([0.95047, 1.0, 1.08883], dtype=torch.float64)
    matrix_33 = torch.tensor(
        [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]],
        dtype=torch.float64,
    )
    linear_N3 = (xyz_N3 @ matrix_33.T).clamp(0, 1)
    gamma_N3 = 1.055 * linear_N3.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear_N3 > 0.0031308, gamma_N3, 12.92 * linear_N3).clamp(0, 1)
