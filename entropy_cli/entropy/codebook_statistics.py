"""What a codebook's numbers tell without a picture: norms, codes alike, distances between codes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.core.errors import ShapeError

MAX_COMPARED = 2**16  # codes; all pairs of more would take minutes
ROWS = 4096  # of a block of pairs, and of what is done in float64 at once
# Squared distances below this share of a code's squared norm lose digits in float32.
CANCELLATION_SHARE = 0.01
RARE = 0.01  # of an even share
NEAR_DUPLICATE = 1e-6  # of the codes' median length: codes so near each other are as good as copies
DIRECTIONS = 16  # of those that codes are sorted and sifted by
MAX_NEIGHBOURS, MAX_PAIRS = 256, 4  # looked at on each side of a code, and in full, per code
MAX_PRODUCTS = 2**34  # of comparing single codes with all: a few seconds
PAIRS = 2**25  # of such distances at once


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
class NearDuplicates:
    """How many codes all but coincide with another: within a millionth of the codes' median length.

    Attributes:
        codes: of the codebook.
        number: of those that coincide with another, all of them counted.
        is_exact: whether every code was looked at; else the number is that of a sample, scaled up.
        spread: median distance of the codes from their mean, in median lengths; None if that is 0.
    """

    codes: int
    number: int
    is_exact: bool
    spread: float | None


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
    alike_U = is_duplicate(code_UC)
    norm_U = _in_float64(code_UC, lambda part_NC: part_NC.norm(dim=1))
    mean = std = None
    if U and C:
        mean = _in_float64(code_UC, lambda part_NC: part_NC.sum(1)).sum().item() / (U * C)
        squares_U = _in_float64(code_UC, lambda part_NC: (part_NC - mean).square().sum(1))
        std = (squares_U.sum().item() / (U * C)) ** 0.5
    nearest_U = nearest_distances(code_UC, progress) if 1 < U <= MAX_COMPARED and C else None
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


def is_duplicate(code_VC: Tensor) -> Tensor:
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
    (again_N,) = torch.where(squared_V < CANCELLATION_SHARE * norm_V)
    found_V[again_N] = _nearest_squared_distances(code_VC, again_N)
    return found_V.clamp(min=0).sqrt() * scale


def _nearest_squared_distances(code_VC: Tensor, rows_N: Tensor) -> Tensor:
    """Squared distance from some codes, centred and in float64, to the nearest other one of all."""
    norm_V = code_VC.square().sum(1)
    found = [norm_V[:0]]
    for rows_M in torch.split(rows_N, max(1, PAIRS // len(code_VC))):
        pairs_MV = torch.addmm(norm_V, code_VC[rows_M], code_VC.T, alpha=-2) + norm_V[rows_M, None]
        pairs_MV[torch.arange(len(rows_M)), rows_M] = torch.inf
        found.append(pairs_MV.amin(1))
    return torch.cat(found)


def near_duplicates(code_VC: Tensor) -> NearDuplicates:
    """Count the codes that are as good as copies of another one, in far less time than all pairs take.

    Codes are sorted along a line: those that coincide are near each other there, as in every other
    direction, and pairs that are so are compared in full. Only where very many are so near without
    coinciding, in clouds of a few millionths, a code is compared with all others, and of a very large
    codebook's cloud a sample.

    Args:
        code_VC: finite; scaled to unit length if they are compared by direction.
    """
    V, C = code_VC.shape
    norm_V = _in_float64(code_VC, lambda part_NC: part_NC.norm(dim=1))
    length = norm_V.median().item()
    most = NEAR_DUPLICATE * length
    code_VC = code_VC.double() - code_VC.double().mean(0)
    generator = torch.Generator().manual_seed(0)
    random_CK = torch.randn(C, min(C, DIRECTIONS), dtype=torch.float64, generator=generator)
    place_VK = code_VC @ torch.linalg.qr(random_CK).Q
    order_V = place_VK[:, 0].argsort()
    code_VC, place_VK = code_VC[order_V], place_VK[order_V]
    rounding = 1e-13 * norm_V.max().item()  # it must not part copies
    found_V, open_N = _compare_neighbours(code_VC, place_VK, most, most + rounding)
    rows = max(1, MAX_PRODUCTS // code_VC.numel())
    sample_N = open_N[torch.randperm(len(open_N), generator=generator)[:rows]]
    hits = int((_nearest_squared_distances(code_VC, sample_N) <= most**2).sum())
    number = int(found_V.sum()) + round(hits * len(open_N) / max(1, len(sample_N)))
    spread = code_VC.norm(dim=1).median().item() / length if length else None
    return NearDuplicates(V, number, len(sample_N) == len(open_N), spread)


def _compare_neighbours(
    code_VC: Tensor, place_VK: Tensor, most: float, near: float
) -> tuple[Tensor, Tensor]:
    """Which codes are at most so far from another, and which others may be but were not looked at.

    Args:
        code_VC: float64, in the order of their first places.
        place_VK: along orthogonal lines, where distances are not larger than between the codes.
        most: the distance.
        near: the same with room for rounding.
    """
    V = len(code_VC)
    found_V, open_V = torch.zeros(2, V, dtype=torch.bool)
    at_N, apart, compared = torch.zeros(0, dtype=torch.int64), 0, 0
    for apart in range(1, min(V, MAX_NEIGHBOURS + 1)):
        is_near_N = place_VK[apart:, 0] - place_VK[:-apart, 0] <= near
        (at_N,) = torch.where(is_near_N & ~(found_V[apart:] & found_V[:-apart]))
        if not len(at_N):
            break
        pair_N = at_N[(place_VK[at_N + apart] - place_VK[at_N]).square().sum(1) <= near**2]
        compared += len(pair_N)
        if compared > MAX_PAIRS * V:
            break
        pair_N = pair_N[(code_VC[pair_N + apart] - code_VC[pair_N]).norm(dim=1) <= most]
        found_V[pair_N] = found_V[pair_N + apart] = True
    open_V[at_N] = open_V[at_N + apart] = True
    return found_V, torch.where(open_V & ~found_V)[0]


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
