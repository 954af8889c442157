"""What a codebook's numbers tell without a picture: norms, codes alike, distances between codes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.errors import ShapeError

MOST_COMPARED = 2**16  # codes; all pairs of more would take minutes
ROWS = 4096  # of a block of pairs, and of what is done in float64 at once
# Squared distances below this share of a code's squared norm lose digits in float32.
CANCELS = 0.01
RARE = 0.01  # of an even share


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some numbers."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class CodebookStatistics:
    """Of a codebook; all but `non_finite` leave out codes that hold NaN or infinity.

    Attributes:
        codes, dims: how many codes, of how many numbers.
        non_finite: codes that hold NaN or infinity.
        zero: codes all of whose numbers are 0.
        duplicates: codes that equal another one exactly, all of them counted.
        mean, std: of the numbers; null if there are none, as all that follows.
        norm: Euclidean lengths of the codes.
        nearest: Euclidean distance from each code to the nearest other one; also null if there are
            too many codes to compare, or one only.
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
class Usage:
    """How often codes were chosen, by a count for each.

    Attributes:
        never: codes whose count is 0.
        rare: codes above 0 and below 1 % of an even share.
        top_share: the most frequent code's share of all.
    """

    never: int
    rare: int
    top_share: float


def codebook_statistics(
    codebook_VC: Tensor, progress: Callable[[int], object] = lambda _: None
) -> CodebookStatistics:
    """Statistics of the codes.

    Args:
        codebook_VC: any float dtype.
        progress: given the codes compared with all others, each time some are done.

    Raises:
        ShapeError: it is not a table.
    """
    if codebook_VC.ndim != 2:
        raise ShapeError(f"codebook: got shape {tuple(codebook_VC.shape)}, expected (V, C)")
    V, C = codebook_VC.shape
    code_UC = codebook_VC[codebook_VC.isfinite().all(1)]
    U = len(code_UC)
    alike_U = equal_to_another(code_UC)
    norm_U = _in_float64(code_UC, lambda part_NC: part_NC.norm(dim=1))
    mean = std = None
    if U and C:
        mean = _in_float64(code_UC, lambda part_NC: part_NC.sum(1)).sum().item() / (U * C)
        squares_U = _in_float64(code_UC, lambda part_NC: (part_NC - mean).square().sum(1))
        std = (squares_U.sum().item() / (U * C)) ** 0.5
    nearest_U = nearest_distances(code_UC, progress) if 1 < U <= MOST_COMPARED and C else None
    if nearest_U is not None:
        nearest_U[alike_U] = 0.0
    return CodebookStatistics(
        codes=V,
        dims=C,
        non_finite=V - U,
        zero=int((norm_U == 0).sum()),
        duplicates=int(alike_U.sum()),
        mean=mean,
        std=std,
        norm=_spread(norm_U),
        nearest=None if nearest_U is None else _spread(nearest_U),
    )


def equal_to_another(code_VC: Tensor) -> Tensor:
    """Whether each code equals another one; of finite numbers, where 0 and -0 are equal."""
    if not code_VC.numel():
        return torch.zeros(len(code_VC), dtype=torch.bool)
    _, which_V, counts_U = torch.unique(code_VC, dim=0, return_inverse=True, return_counts=True)
    return counts_U[which_V] > 1


def nearest_distances(code_VC: Tensor, progress: Callable[[int], object] = lambda _: None) -> Tensor:
    """Distance from each code to the nearest other one, float64, right to four digits or better.

    In blocks of pairs, each pair once, as |a|^2 + |b|^2 - 2 a.b of centred codes in float32; what loses
    digits there is done again in float64.
    """
    code_VC = code_VC.double()
    code_VC = code_VC - code_VC.mean(0)
    scale = code_VC.abs().max().item() or 1.0  # numbers near 1 neither overflow nor vanish
    code_VC = code_VC / scale
    squared_V = torch.full((len(code_VC),), torch.inf)
    half_VC = code_VC.float()
    norm_V = half_VC.square().sum(1)
    parts = [slice(begin, begin + ROWS) for begin in range(0, len(code_VC), ROWS)]
    buffer = torch.empty(min(ROWS, len(code_VC)), min(ROWS, len(code_VC)))
    for i, these in enumerate(parts):
        for those in parts[i:]:
            pairs_NM = buffer[: len(norm_V[these]), : len(norm_V[those])]
            torch.addmm(norm_V[those], half_VC[these], half_VC[those].T, alpha=-2, out=pairs_NM)
            pairs_NM += norm_V[these, None]
            if these == those:
                pairs_NM.fill_diagonal_(torch.inf)
            squared_V[these] = squared_V[these].minimum(pairs_NM.amin(1))
            squared_V[those] = squared_V[those].minimum(pairs_NM.amin(0))
        progress(len(norm_V[these]))
    found_V = squared_V.double()
    (again_N,) = torch.where(squared_V < CANCELS * norm_V)
    norm_V = code_VC.square().sum(1)
    for rows_N in torch.split(again_N, ROWS // 4):
        pairs_NV = torch.addmm(norm_V, code_VC[rows_N], code_VC.T, alpha=-2) + norm_V[rows_N, None]
        pairs_NV[torch.arange(len(rows_N)), rows_N] = torch.inf
        found_V[rows_N] = pairs_NV.amin(1)
    return found_V.clamp(min=0).sqrt() * scale


def usage(count_V: Tensor) -> Usage | None:
    """How evenly codes were used, by a count for each, or None if nothing was counted.

    Args:
        count_V: counts, or averages of counts, of any number type.
    """
    count_V = count_V.double()
    total = count_V.sum().item()
    if not 0 < total < float("inf"):
        return None
    is_rare_V = (count_V > 0) & (count_V < RARE * total / len(count_V))
    return Usage(int((count_V <= 0).sum()), int(is_rare_V.sum()), count_V.max().item() / total)


def _in_float64(code_VC: Tensor, of_rows: Callable[[Tensor], Tensor]) -> Tensor:
    """What a function gives for each code, without a second codebook in float64."""
    return torch.cat([of_rows(part_NC.double()) for part_NC in torch.split(code_VC, ROWS)])


def _spread(value_N: Tensor) -> Spread | None:
    if not len(value_N):
        return None
    middle = torch.quantile(value_N, 0.5).item()
    return Spread(value_N.min().item(), middle, value_N.max().item())
