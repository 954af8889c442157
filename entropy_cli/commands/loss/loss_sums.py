"""Sums of token losses over the parts of a file, which add."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from entropy_cli.entropy.jackknife import t_quantile
from entropy_cli.entropy.token_losses import LABEL, TARGET


def headline(names: tuple[str, ...]) -> str:
    """Return which cross-entropy has a standard error: that with soft labels if there are any."""
    return TARGET if TARGET in names else LABEL


def smoothed_floor(epsilon: float, vocab_size: int) -> float:
    """Return the entropy of a label smoothed by epsilon, in nats: the minimum of the smoothed loss.

    It is (1 - epsilon) at the label plus epsilon / V everywhere.

    >>> round(smoothed_floor(0.1, 4), 6)
    0.34878
    """
    other = epsilon / vocab_size
    parts = [(1 - epsilon + other, 1), (other, vocab_size - 1)]
    return -sum(count * p * math.log(p) for p, count in parts if p > 0)


@dataclass(frozen=True)
class LossSums:
    """Sums over the tokens of some rows for G groups of positions; they add over rows."""

    names: tuple[str, ...]  # of the Q quantities
    tokens_G: Tensor  # number of counted tokens, int64
    ignored_G: Tensor  # number of ignored tokens, int64
    sum_GQ: Tensor  # over counted tokens, float64
    rows_G: Tensor  # number of rows with a counted token, int64
    moments_G3: Tensor  # sums over rows of s s, s n and n n: s the headline's sum, n the tokens

    @classmethod
    def from_rows(
        cls, names: tuple[str, ...], loss_BLQ: Tensor, counted_BL: Tensor, groups_LG: Tensor
    ) -> "LossSums":
        """Sum over whole rows.

        Args:
            names: of the Q quantities.
            loss_BLQ: float64, 0 for ignored tokens.
            counted_BL: bool, False for ignored tokens.
            groups_LG: float64, 1 if a position is in a group, else 0.
        """
        sum_BGQ = torch.einsum("blq,lg->bgq", loss_BLQ, groups_LG)
        tokens_BG = counted_BL.double() @ groups_LG
        s_BG = sum_BGQ[..., names.index(headline(names))]
        tokens_G = tokens_BG.sum(0).long()
        return cls(
            names,
            tokens_G,
            len(counted_BL) * groups_LG.sum(0).long() - tokens_G,
            sum_BGQ.sum(0),
            (tokens_BG > 0).sum(0),
            torch.stack([s_BG * s_BG, s_BG * tokens_BG, tokens_BG * tokens_BG], -1).sum(0),
        )

    def __add__(self, other: "LossSums") -> "LossSums":
        """Add the sums of other rows."""
        sums = [field.name for field in fields(self)[1:]]
        return LossSums(self.names, *(getattr(self, name) + getattr(other, name) for name in sums))

    def mean(self, name: str, group: int) -> float | None:
        """Return the mean over a group's counted tokens; None without tokens or if not computed."""
        tokens = int(self.tokens_G[group])
        if name not in self.names or not tokens:
            return None
        return self.sum_GQ[group, self.names.index(name)].item() / tokens

    def standard_error(self, group: int) -> float | None:
        """Return the standard error of the headline's mean over independent rows; None below two rows.

        Tokens of a row may be correlated in any way, and rows may differ in their counted tokens.

        Source:
            Cochran, Sampling Techniques, 3rd ed., eq. 2.45: the error of a ratio of two sums.
        """
        rows, mean = int(self.rows_G[group]), self.mean(headline(self.names), group)
        if rows < 2 or mean is None:
            return None
        ss, sn, nn = self.moments_G3[group].tolist()
        squares = max(0.0, ss - 2 * mean * sn + mean * mean * nn)  # rounding may leave -1e-12
        return math.sqrt(squares * rows / (rows - 1)) / int(self.tokens_G[group])

    def half_width(self, group: int) -> float | None:
        """Return the half-width of the headline's 95 % interval, Student's t times the error."""
        se = self.standard_error(group)
        return None if se is None else t_quantile(int(self.rows_G[group]) - 1) * se


def position_groups(patch_nums: Sequence[int] | None, positions: int) -> Tensor:
    """Return group membership, (L, G) float64: a group for each scale, in order, then one for all.

    Args:
        patch_nums: sides of the grids, whose squares sum to L; None without scales.
        positions: L.

    >>> position_groups((1, 2), 5).T.int().tolist()
    [[1, 0, 0, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    """
    all_L1 = torch.ones(positions, 1, dtype=torch.float64)
    if patch_nums is None:
        return all_L1
    scale_S = torch.arange(len(patch_nums))
    scale_L = scale_S.repeat_interleave(torch.tensor(patch_nums).square())
    return torch.cat([(scale_L[:, None] == scale_S).double(), all_L1], 1)
