"""Losses of single tokens, and their sums, which add over the parts of a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from entropy_cli.entropy.jackknife import t_quantile

TOP = 5
PREDICTIVE = "predictive_entropy"
LABEL, TOP1, TOP5 = "label_cross_entropy", "accuracy_top1", "accuracy_top5"
TARGET_ENTROPY, TARGET = "target_entropy", "target_cross_entropy"
UNIFORM = "uniform_cross_entropy"  # mean over the codes of -ln p, for label smoothing

# exp of anything lower is exactly 0 in float64, and 0 times it is 0 and not NaN.
LOWEST = -1e4


def quantities(*, labels: bool, targets: bool, smoothing: bool) -> tuple[str, ...]:
    """Return the names of the columns of `token_losses`, in order.

    >>> quantities(labels=False, targets=True, smoothing=False)
    ('predictive_entropy', 'target_entropy', 'target_cross_entropy')
    """
    of_labels = (LABEL, TOP1, TOP5) if labels else ()
    of_targets = (TARGET_ENTROPY, TARGET) if targets else ()
    return (PREDICTIVE, *of_labels, *of_targets, *((UNIFORM,) if smoothing else ()))


def headline(names: tuple[str, ...]) -> str:
    """Return which cross-entropy has a standard error: that with soft labels if there are any."""
    return TARGET if TARGET in names else LABEL


class Scratch:
    """Reusable buffers: allocating them again takes longer than the computation."""

    def __init__(self) -> None:
        dtypes = (torch.float64, torch.float64, torch.bool)
        self._flat = [torch.empty(0, dtype=dtype) for dtype in dtypes]

    def buffers(self, rows: int, columns: int) -> list[Tensor]:
        """Return two uninitialised float64 matrices and a bool one, (rows, columns)."""
        size = rows * columns
        if len(self._flat[0]) < size:
            self._flat = [flat.new_empty(size) for flat in self._flat]
        return [flat[:size].view(rows, columns) for flat in self._flat]


def token_losses(
    logits_NV: Tensor,
    label_N: Tensor | None,
    q_NV: Tensor | None,
    *,
    smoothing: bool = False,
    scratch: Scratch | None = None,
) -> Tensor:
    """Compute the losses of each token, in nats, in the order of `quantities`.

    Args:
        logits_NV: any floating-point type, -inf for excluded codes; p is their softmax.
        label_N: int64, 0 to V-1, for -ln p[label], and whether the label is the most likely code, or one
            of the five most likely; ties rank by index.
        q_NV: soft labels, probabilities, for H(q) and -sum q ln p = H(q) + KL(q || p).
        smoothing: whether to add the mean over the codes of -ln p.
        scratch: buffers to reuse.

    Returns:
        float64, (N, Q). Not finite where logits are not, or where p is 0 at a label.

    Source:
        Cover & Thomas, Elements of Information Theory, 2nd ed., eq. 2.1 and 2.26; uniform label
        smoothing: Szegedy et al., Rethinking the Inception Architecture, 2016, section 7.
    """
    z_NV, exp_NV, bool_NV = (scratch or Scratch()).buffers(*logits_NV.shape)
    z_NV.copy_(logits_NV)
    z_NV -= z_NV.amax(1, keepdim=True)
    torch.exp(z_NV, out=exp_NV)
    sum_N = exp_NV.sum(1)
    log_sum_N = sum_N.log()
    columns = []
    if label_N is not None:
        z_label_N1 = z_NV.gather(1, label_N[:, None])
        rank_N = _rank(z_NV, z_label_N1, label_N, bool_NV)
        columns += [log_sum_N - z_label_N1[:, 0], (rank_N < 1).double(), (rank_N < TOP).double()]
    if q_NV is not None:
        q_NV = q_NV.double()
        costs_NV = torch.sub(log_sum_N[:, None], z_NV).mul_(q_NV)
        costs_NV.masked_fill_(torch.eq(q_NV, 0, out=bool_NV), 0)
        columns += [torch.special.entr(q_NV).sum(1), costs_NV.sum(1)]
    columns += [log_sum_N - z_NV.mean(1)] if smoothing else []
    predictive_N = log_sum_N - exp_NV.mul_(z_NV.clamp_(min=LOWEST)).sum(1) / sum_N
    return torch.stack([predictive_N, *columns], 1)


def _rank(z_NV: Tensor, z_label_N1: Tensor, label_N: Tensor, bool_NV: Tensor) -> Tensor:
    """Return the number of codes more likely than the label; ties rank by index."""
    rank_N = torch.gt(z_NV, z_label_N1, out=bool_NV).sum(1)
    equal_N = torch.eq(z_NV, z_label_N1, out=bool_NV).sum(1)
    for n in ((equal_N > 1) & (rank_N < TOP)).nonzero()[:, 0].tolist():
        rank_N[n] += bool_NV[n, : label_N[n]].sum()
    return rank_N


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
