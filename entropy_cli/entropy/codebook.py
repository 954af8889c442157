"""Codebooks: they turn the latents of a scale into logits over its codes."""

import functools
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.core.errors import ShapeError
from entropy_cli.entropy.vocabulary import Vocabulary

# The rule finds the nearest code and defines what the temperature divides:
# l2      squared distance
# cosine  squared distance of unit vectors, 2 - 2 cos
# dot     minus the dot product
# logits  minus the output of a linear layer: the codes are its weights
# sign    squared distance to every corner (+-1, ..., +-1): bits
# bsq     the same on the unit sphere, with corners (+-1, ..., +-1) / sqrt(C)
# levels  squared distance to a grid of whole numbers
Rule = Literal["l2", "cosine", "dot", "logits", "sign", "bsq", "levels"]


class Codebook:
    """V codes in a table, prepared so that their logits are one affine map of the latents.

    A squared distance is formed as d = |z|^2 - logit with logit = 2 z.e - |e|^2, after subtracting the
    codebook's mean from both z and e: that keeps every distance and the digits that cancellation would
    cost. The rule "cosine" first scales both to unit length, so that d = 2 - 2 cos(z, e). Under "dot"
    and "logits" the logit is z.e + bias, with the codes' mean subtracted: that shifts all logits alike.

    Args:
        codebook_VC: the V codes.
        rule: "l2", "cosine", "dot" or "logits".
        bias_V: of the rule "logits".
    """

    def __init__(self, codebook_VC: Tensor, rule: Rule, bias_V: Tensor | None = None) -> None:
        if codebook_VC.ndim != 2 or 0 in codebook_VC.shape:
            raise ShapeError(f"codebook: got shape {tuple(codebook_VC.shape)}, expected (V, C)")
        self.rule, self.codes_VC = rule, codebook_VC
        self.latent_dim = codebook_VC.shape[1]
        self.vocabulary = Vocabulary(codebook_VC.shape[0])
        self.has_distances = rule in ("l2", "cosine")
        code_VC = codebook_VC.double()
        if rule == "cosine":
            code_VC = functional.normalize(code_VC, dim=1)
        mean_C = code_VC.mean(0)
        code_VC = code_VC - mean_C
        if self.has_distances:
            bias_V = -code_VC.square().sum(1)
            code_VC = 2 * code_VC
        else:
            mean_C = torch.zeros_like(mean_C)
            bias_V = code_VC.new_zeros(len(code_VC)) if bias_V is None else bias_V.double()
            bias_V = bias_V - bias_V.mean()
        self.centre_C, self.bias_V = mean_C.to(codebook_VC.dtype), bias_V.to(codebook_VC.dtype)
        self.weight_CV = code_VC.T.contiguous().to(codebook_VC.dtype)

    def to(self, device: torch.device) -> "Codebook":
        """Copy to a device; return the codebook itself if it is there already."""
        if self.codes_VC.device == device:
            return self
        bias_V = self.bias_V.to(device) if self.rule == "logits" else None
        return Codebook(self.codes_VC.to(device), self.rule, bias_V)

    def codes_for_comparison(self) -> Tensor:
        """Return rows that are equal only for codes with equal logits, (V, X) in float64."""
        code_VC = self.codes_VC.double()
        if self.rule == "cosine":
            return functional.normalize(code_VC, dim=1)
        if self.rule == "logits":
            return torch.cat([code_VC, self.bias_V.double()[:, None]], 1)
        return code_VC

    def logits(self, z_NC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logit_NV, and norm_N if squared distance = norm - logit, else None."""
        if self.rule == "cosine":
            z_NC = functional.normalize(z_NC, dim=1)
        centred_NC = z_NC - self.centre_C
        logit_NV = torch.addmm(self.bias_V, centred_NC, self.weight_CV)
        return logit_NV, centred_NC.square().sum(1) if self.has_distances else None


class Grid:
    """Codes that are all combinations of a few coordinates in each dimension: bits, or levels.

    A code's index is that of the published implementations: the first dimension is the least
    significant (Open-MAGVIT2's signs, FSQ's levels) or, under "bsq" and in Show-o's, the most.

    Args:
        coordinates: the coordinates of the levels of each dimension, in ascending order.
        rule: "sign", "bsq" (whose latents are scaled to unit length) or "levels".
        first_is_most: whether the first dimension is the most significant; None takes the rule's way.
    """

    has_distances = False  # to which a temperature could be fitted as for a codebook

    def __init__(
        self,
        coordinates: tuple[tuple[float, ...], ...],
        rule: Rule,
        device: torch.device | str = "cpu",
        *,
        first_is_most: bool | None = None,
    ) -> None:
        self.coordinates, self.rule = coordinates, rule
        self.first_is_most = rule == "bsq" if first_is_most is None else first_is_most
        self.latent_dim = len(coordinates)
        levels_C = tuple(len(coordinates[c]) for c in self.significance)
        self.vocabulary = Vocabulary.product(levels_C)
        # Copied once: the assignment makes no copies to the device.
        send = functools.partial(torch.tensor, dtype=torch.float64, device=device)
        self.coordinate_CL = [send(coordinate_L) for coordinate_L in coordinates]
        self.end_2C = send([(coordinate_L[0], coordinate_L[-1]) for coordinate_L in coordinates]).T
        # Where the entries of each dimension start, in the order of significance.
        self.start_C = torch.tensor([0, *levels_C[:-1]]).cumsum(0).to(device)

    @classmethod
    def of_bits(
        cls, bits: int, rule: Literal["sign", "bsq"], *, first_is_most: bool | None = None
    ) -> "Grid":
        """Make the corners of the cube with side 2, or of the one inscribed in the unit sphere."""
        half = 1.0 if rule == "sign" else bits**-0.5
        return cls(((-half, half),) * bits, rule, first_is_most=first_is_most)

    @classmethod
    def of_levels(cls, levels: tuple[int, ...]) -> "Grid":
        """Make the grid of whole numbers around zero; an even number of levels has one more below it.

        Source:
            Mentzer et al., Finite Scalar Quantization, arXiv:2309.15505.
        """
        return cls(tuple(tuple(float(j - n // 2) for j in range(n)) for n in levels), "levels")

    def to(self, device: torch.device) -> "Grid":
        """Copy to a device; return the grid itself if it is there already."""
        if self.start_C.device == device:
            return self
        return Grid(self.coordinates, self.rule, device, first_is_most=self.first_is_most)

    @property
    def significance(self) -> range:
        """The dimensions, the most significant for a code's index first."""
        dims = range(self.latent_dim)
        return dims if self.first_is_most else dims[::-1]

    def decoded(self, idx_N: Tensor) -> Tensor:
        """Return codes by their indices, (N, C) in float32; 64 bits may fill the sign of an index."""
        code_NC = torch.empty(*idx_N.shape, self.latent_dim, device=idx_N.device)
        for c in reversed(self.significance):
            coordinate_L = self.coordinate_CL[c]
            code_NC[:, c] = coordinate_L[idx_N % len(coordinate_L)]
            idx_N = idx_N.div(len(coordinate_L), rounding_mode="floor")
        return code_NC

    def codes(self) -> Tensor:
        """Return all codes in the order of their numbers, float64 (V, C); for few enough to count."""
        grids = torch.meshgrid([self.coordinate_CL[c] for c in self.significance], indexing="ij")
        code_CV = torch.stack([grid.flatten() for grid in grids])
        return code_CV[list(self.significance)].T.contiguous()  # its own inverse

    def overshoot(self, z_BlC: Tensor) -> Tensor:
        """Return how far the latents of each image lie outside the outermost coordinates: (B,)."""
        beyond_BlC = torch.maximum(self.end_2C[0] - z_BlC, z_BlC - self.end_2C[1])
        return beyond_BlC.amax((1, 2)).clamp_(min=0)

    def prepared(self, z_NC: Tensor) -> Tensor:
        """Return the latents in float64, under "bsq" scaled to unit length: (N, C)."""
        z_NC = z_NC.double()
        return functional.normalize(z_NC, dim=1) if self.rule == "bsq" else z_NC
