"""Statistics of a codebook alone: norms, duplicate codes, distances between codes, usage."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.core.errors import ShapeError

MAX_COMPARED = 2**16  # codes; all pairs of more would take minutes
ROWS = 4096  # codes in a block of pairs, and codes converted to float64 at once
# Squared distances below this share of a code's squared norm lose digits in float32.
CANCELLATION_SHARE = 0.01
RARE = 0.01  # of an even share
NEAR_DUPLICATE = 1e-6  # of the codes' median length: codes this close are as good as copies
DIRECTIONS = 16  # random projections that codes are sorted and filtered by
MAX_NEIGHBOURS, MAX_PAIRS = 256, 4  # per code: neighbours on each side, and pairs compared in full
MAX_PRODUCTS = 2**34  # multiplications to compare single codes with all others: a few seconds
PAIRS = 2**25  # such distances held at once


@dataclass(frozen=True)
class Spread:
    """The minimum, median and maximum of some values."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class CodebookStatistics:
    """Statistics of a codebook; all but `non_finite` leave out codes with NaN or infinity.

    Attributes:
        codes, dims: the number of codes and of their dimensions.
        non_finite: the number of codes with NaN or infinity.
        zero: the number of codes that are all 0.
        duplicates: the number of codes that equal another one exactly.
        mean, std: over all elements; None without elements, like all that follows.
        norm: Euclidean norms of the codes.
        nearest: Euclidean distance from each code to the nearest other one; also None with too many
            codes to compare, or only one.
    """

    codes: int
    dims: int
    non_finite: int
    zero: int
    duplicates: int
    mean: float | None
    std: float | None
    norm: Spread | None
    nearest: Spread | None


@dataclass(frozen=True)
class NearDuplicates:
    """The codes that all but coincide with another one: within a millionth of the median norm.

    Attributes:
        codes: the number of codes in the codebook.
        number: the number of codes that coincide with another one.
        is_exact: whether every code was compared; if not, `number` is extrapolated from a sample.
        spread: median distance of the codes from their mean, in median norms; None if that norm is 0.
    """

    codes: int
    number: int
    is_exact: bool
    spread: float | None


@dataclass(frozen=True)
class Usage:
    """Statistics of how evenly codes were chosen.

    Attributes:
        never: the number of codes that were never chosen.
        rare: the number of codes chosen, but less than 1 % as often as an even share.
        top_share: the most frequent code's share of all.
    """

    never: int
    rare: int
    top_share: float


def codebook_statistics(
    codebook_VC: Tensor, progress: Callable[[int], object] = lambda _: None
) -> CodebookStatistics:
    """Compute the statistics of a codebook.

    Args:
        codebook_VC: any float dtype.
        progress: called with the number of codes compared with all others, block by block.

    Raises:
        ShapeError: the codebook is not two-dimensional.
    """
    if codebook_VC.ndim != 2:
        raise ShapeError(f"codebook: got shape {tuple(codebook_VC.shape)}, expected (V, C)")
    V, C = codebook_VC.shape
    code_UC = codebook_VC[codebook_VC.isfinite().all(1)]
    U = len(code_UC)
    duplicate_U = is_duplicate(code_UC)
    norm_U = _in_float64(code_UC, lambda part_NC: part_NC.norm(dim=1))
    mean = std = None
    if U and C:
        mean = _in_float64(code_UC, lambda part_NC: part_NC.sum(1)).sum().item() / (U * C)
        squares_U = _in_float64(code_UC, lambda part_NC: (part_NC - mean).square().sum(1))
        std = (squares_U.sum().item() / (U * C)) ** 0.5
    nearest = None
    if 1 < U <= MAX_COMPARED and C:
        nearest = _spread(nearest_distances(code_UC, progress).masked_fill(duplicate_U, 0))
    return CodebookStatistics(
        codes=V,
        dims=C,
        non_finite=V - U,
        zero=int((norm_U == 0).sum()),
        duplicates=int(duplicate_U.sum()),
        mean=mean,
        std=std,
        norm=_spread(norm_U),
        nearest=nearest,
    )


def is_duplicate(code_VC: Tensor) -> Tensor:
    """Return whether each code equals another one, bool (V,); codes are finite, 0 equals -0."""
    if not code_VC.numel():
        return torch.zeros(len(code_VC), dtype=torch.bool)
    _, which_V, counts_U = torch.unique(code_VC, dim=0, return_inverse=True, return_counts=True)
    return counts_U[which_V] > 1


def nearest_distances(code_VC: Tensor, progress: Callable[[int], object] = lambda _: None) -> Tensor:
    """Return the distance from each code to the nearest other one, float64 (V,); right to four digits.

    Pairs are compared once, in blocks, as |a|^2 + |b|^2 - 2 a.b of centred codes in float32; where that
    loses digits it is computed again in float64.
    """
    code_VC = code_VC.double()
    code_VC = code_VC - code_VC.mean(0)
    scale = code_VC.abs().max().item() or 1.0  # values near 1 neither overflow nor underflow
    code_VC = code_VC / scale
    squared_V = torch.full((len(code_VC),), torch.inf)
    float_VC = code_VC.float()
    norm_V = float_VC.square().sum(1)
    parts = [slice(begin, begin + ROWS) for begin in range(0, len(code_VC), ROWS)]
    buffer = torch.empty(min(ROWS, len(code_VC)), min(ROWS, len(code_VC)))
    for i, rows in enumerate(parts):
        for columns in parts[i:]:
            pairs_NM = buffer[: len(norm_V[rows]), : len(norm_V[columns])]
            torch.addmm(norm_V[columns], float_VC[rows], float_VC[columns].T, alpha=-2, out=pairs_NM)
            pairs_NM += norm_V[rows, None]
            if rows == columns:
                pairs_NM.fill_diagonal_(torch.inf)
            squared_V[rows] = squared_V[rows].minimum(pairs_NM.amin(1))
            squared_V[columns] = squared_V[columns].minimum(pairs_NM.amin(0))
        progress(len(norm_V[rows]))
    nearest_V = squared_V.double()
    (inexact_N,) = torch.where(squared_V < CANCELLATION_SHARE * norm_V)
    nearest_V[inexact_N] = _nearest_squared_distances(code_VC, inexact_N)
    return nearest_V.clamp(min=0).sqrt() * scale


def _nearest_squared_distances(code_VC: Tensor, rows_N: Tensor) -> Tensor:
    """Return the squared distance from some codes, centred, in float64, to the nearest other: (N,)."""
    norm_V = code_VC.square().sum(1)
    found = [norm_V[:0]]
    for rows_M in torch.split(rows_N, max(1, PAIRS // len(code_VC))):
        pairs_MV = torch.addmm(norm_V, code_VC[rows_M], code_VC.T, alpha=-2) + norm_V[rows_M, None]
        pairs_MV[torch.arange(len(rows_M)), rows_M] = torch.inf
        found.append(pairs_MV.amin(1))
    return torch.cat(found)


def near_duplicates(code_VC: Tensor) -> NearDuplicates:
    """Count the codes that are as good as copies of another one, much faster than comparing all pairs.

    Codes are sorted along a line. Codes that coincide are neighbours there and near each other along
    every other line as well; only such pairs are compared in full. Where very many codes are that near
    without coinciding, in clouds of a few millionths, each is compared with all others, and of a very
    large cloud only a sample.

    Args:
        code_VC: finite; scaled to unit length if codes are compared by direction.
    """
    V, C = code_VC.shape
    norm_V = _in_float64(code_VC, lambda part_NC: part_NC.norm(dim=1))
    length = norm_V.median().item()
    max_distance = NEAR_DUPLICATE * length
    code_VC = code_VC.double() - code_VC.double().mean(0)
    generator = torch.Generator().manual_seed(0)
    random_CK = torch.randn(C, min(C, DIRECTIONS), dtype=torch.float64, generator=generator)
    projected_VK = code_VC @ torch.linalg.qr(random_CK).Q
    order_V = projected_VK[:, 0].argsort()
    code_VC, projected_VK = code_VC[order_V], projected_VK[order_V]
    rounding = 1e-13 * norm_V.max().item()  # it must not separate copies
    found_V, open_N = _compare_neighbours(code_VC, projected_VK, max_distance, max_distance + rounding)
    rows = max(1, MAX_PRODUCTS // code_VC.numel())
    sample_N = open_N[torch.randperm(len(open_N), generator=generator)[:rows]]
    hits = int((_nearest_squared_distances(code_VC, sample_N) <= max_distance**2).sum())
    number = int(found_V.sum()) + round(hits * len(open_N) / max(1, len(sample_N)))
    spread = code_VC.norm(dim=1).median().item() / length if length else None
    return NearDuplicates(V, number, len(sample_N) == len(open_N), spread)


def _compare_neighbours(
    code_VC: Tensor, projected_VK: Tensor, max_distance: float, max_projected: float
) -> tuple[Tensor, Tensor]:
    """Return which codes are close to a neighbour, bool (V,), and the indices of those undecided.

    Codes are sorted by the first projection, and no two projections are farther apart than their codes.
    """
    V = len(code_VC)
    found_V, open_V = torch.zeros(2, V, dtype=torch.bool)
    idx_N, offset, compared = torch.arange(0), 0, 0
    for offset in range(1, min(V, MAX_NEIGHBOURS + 1)):
        is_near_N = projected_VK[offset:, 0] - projected_VK[:-offset, 0] <= max_projected
        (idx_N,) = torch.where(is_near_N & ~(found_V[offset:] & found_V[:-offset]))
        if not len(idx_N):
            break
        difference_NK = projected_VK[idx_N + offset] - projected_VK[idx_N]
        pair_N = idx_N[difference_NK.square().sum(1) <= max_projected**2]
        compared += len(pair_N)
        if compared > MAX_PAIRS * V:
            break
        pair_N = pair_N[(code_VC[pair_N + offset] - code_VC[pair_N]).norm(dim=1) <= max_distance]
        found_V[pair_N] = found_V[pair_N + offset] = True
    open_V[idx_N] = open_V[idx_N + offset] = True
    return found_V, torch.where(open_V & ~found_V)[0]


def usage(count_V: Tensor) -> Usage | None:
    """Compute how evenly codes were used; None if nothing was counted.

    Args:
        count_V: counts of each code, or averages of counts, of any dtype.
    """
    count_V = count_V.double()
    total = count_V.sum().item()
    if not 0 < total < math.inf:
        return None
    is_rare_V = (count_V > 0) & (count_V < RARE * total / len(count_V))
    return Usage(int((count_V <= 0).sum()), int(is_rare_V.sum()), count_V.max().item() / total)


def _in_float64(code_VC: Tensor, row_function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of rows in float64, block by block: no float64 copy of the whole codebook."""
    return torch.cat([row_function(part_NC.double()) for part_NC in torch.split(code_VC, ROWS)])


def _spread(value_N: Tensor) -> Spread | None:
    if not len(value_N):
        return None
    return Spread(*torch.quantile(value_N, value_N.new_tensor([0, 0.5, 1])).tolist())
