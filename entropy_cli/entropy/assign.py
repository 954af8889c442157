"""Soft and hard assignment of latents to a codebook, summed per image.

Everything about a chunk of tokens comes from one matrix product, and only sums per image leave it: a
(tokens, codes) matrix never outlives its chunk.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from entropy_cli.core.errors import ShapeError
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.entropy.vocabulary import Vocabulary

# Elements of one (tokens, codes) chunk: on a CPU it should stay in a cache, a GPU needs it large to fill
# the device. Every chunk reads the whole codebook again, so a chunk has at least MIN_ROWS tokens.
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
MIN_ROWS = 16

# Codes in a block of the two-step argmax: torch's over a whole row of a CPU tensor is not vectorised.
ARGMAX_BLOCK = 128

MAX_INDEXABLE = 2**63  # codes whose indices fit an int64


class SoftStatistics(NamedTuple):
    """Moments of the soft assignment of N tokens at T temperatures."""

    entropy_NT: Tensor  # nats
    varentropy_NT: Tensor  # variance of ln q under q, nats^2
    distance_NT: Tensor  # mean squared distance under q, minus that of the nearest code


def soft_assign(logit_NV: Tensor, idx_N: Tensor, temperature_T: Tensor) -> tuple[Tensor, Tensor]:
    """Compute soft assignments q = softmax(logit / temperature) at all temperatures.

    Args:
        logit_NV: minus each code's squared distance, up to a constant of the token; overwritten.
        idx_N: the nearest code.
        temperature_T: divisors of the squared distance, of the logits' type.

    Returns:
        q_NTV; below_NPV, the logits minus the nearest code's, and where P is 2 their squares.
    """
    N, V = logit_NV.shape
    # At one temperature a CPU is faster without the squares: all else stays in its cache.
    in_place = logit_NV.device.type == "cpu" and len(temperature_T) == 1
    below_NPV = logit_NV[:, None] if in_place else logit_NV.new_empty(N, 2, V)
    below_NV = torch.sub(logit_NV, logit_NV.gather(1, idx_N[:, None]), out=below_NPV[:, 0])
    if not in_place:
        torch.mul(below_NV, below_NV, out=below_NPV[:, 1])
    is_one = in_place and temperature_T.item() == 1
    scaled_NTV = below_NV[:, None] if is_one else below_NV[:, None] / temperature_T[:, None]
    return torch.softmax(scaled_NTV, dim=2), below_NPV


def soft_statistics(
    q_NTV: Tensor, below_NPV: Tensor, idx_N: Tensor, temperature_T: Tensor
) -> SoftStatistics:
    """Compute entropies and varentropies of the soft assignments that `soft_assign` returned.

    Arguments are its results and what it was given; q_NTV is overwritten.

    Returns:
        entropy in [0, ln V] nats; varentropy in nats^2, which is also dH / d ln(temperature).

    Source:
        Entropy from the log-partition: H = ln Z - E_q[x], x = below / temperature.
    """
    # The nearest code has x = 0, so its probability is 1 / Z: at least 1 / V, its log is safe.
    nearest_NT = q_NTV.take_along_dim(idx_N[:, None, None], 2)[:, :, 0]
    if below_NPV.shape[1] == 2:  # one product takes the means of both powers, and reads q once
        mean_NT, square_NT = torch.bmm(q_NTV, below_NPV.transpose(1, 2)).unbind(2)
    else:
        weighted_NTV = q_NTV.mul_(below_NPV)
        mean_NT = weighted_NTV.sum(2)
        square_NT = weighted_NTV.mul_(below_NPV).sum(2)
    scaled_NT = mean_NT / temperature_T
    # Rounding can leave -1e-8 for a q that is nearly one code.
    return SoftStatistics(
        (-nearest_NT.log() - scaled_NT).clamp_(min=0),
        (square_NT / temperature_T / temperature_T - scaled_NT.square()).clamp_(min=0),
        -mean_NT,
    )


def draw(logit_NV: Tensor, temperature: Tensor, uniform_N: Tensor) -> Tensor:
    """Draw a code for each token from q = softmax(logit / temperature), by the inverse of its CDF.

    Args:
        logit_NV: as of `soft_assign`, but left as they are.
        temperature: divisor of the squared distance.
        uniform_N: float64 numbers in (0, 1): each gives the first code up to which q adds up to it.

    Returns:
        idx_N, whose q is above zero.
    """
    scaled_NV = logit_NV.to(torch.float64, copy=True).div_(temperature.double())
    cdf_NV = torch.softmax(scaled_NV, 1).cumsum_(1)
    return torch.searchsorted(cdf_NV, uniform_N[:, None] * cdf_NV[:, -1:])[:, 0]


def assign(
    z_BlC: Tensor,
    codebook: Codebook | Grid,
    temperatures: Sequence[float],
    chunk: int | None = None,
    uniform_Bl: Tensor | None = None,
) -> ImageSums:
    """Assign every latent to the codebook, soft and hard, and sum per image.

    Args:
        z_BlC: l latents of each of B images, float32 or float64, finite.
        codebook: the V codes of this scale, on the same device.
        temperatures: T divisors of the squared distance, or of the logits, each > 0.
        chunk: elements of a (tokens, codes) matrix held at once; the default depends on the device. A
            GPU holds one for each temperature, of fewer tokens.
        uniform_Bl: numbers in (0, 1) by which tokens are drawn from q at the first temperature; not for
            a grid. None takes the nearest codes.

    Returns:
        Sums per image. The nearest code is the one with the largest logit, the lowest index among
        equals. Under a rule without distances, distances are relative to the nearest code's.

    Raises:
        ShapeError: the latents' dimension is not the codebook's, or there are none.
    """
    if z_BlC.ndim != 3 or z_BlC.shape[2] != codebook.latent_dim or 0 in z_BlC.shape:
        raise ShapeError(
            f"latents: got shape {tuple(z_BlC.shape)}, expected (B, l, {codebook.latent_dim})"
        )
    dtype = torch.float64 if isinstance(codebook, Grid) else z_BlC.dtype
    temperature_T = z_BlC.new_empty(len(temperatures), dtype=dtype)
    for t, temperature in enumerate(temperatures):
        temperature_T[t].fill_(temperature)  # a GPU would wait for a copy
    if isinstance(codebook, Grid):
        assert uniform_Bl is None, "no grid has residuals"
        return _assign_to_grid(z_BlC, codebook, temperature_T)
    (B, tokens), V = z_BlC.shape[:2], codebook.vocabulary.size
    is_cpu, T = z_BlC.device.type == "cpu", len(temperature_T)
    chunk = chunk or max(CHUNK_ELEMENTS["cpu" if is_cpu else "cuda"], MIN_ROWS * V)
    # Logits and their powers take about as much memory as one temperature's assignments.
    together = 1 if is_cpu else max(1, min(T, 2 * chunk // (MIN_ROWS * V) - 1))
    chunk_rows = max(1, 2 * chunk // (V * (together + 1)))
    images, rows = max(1, chunk_rows // tokens), min(tokens, chunk_rows)
    sums = _zeros(z_BlC, T, V)
    for b in range(0, B, images):
        for r in range(0, tokens, rows):
            part = slice(b, b + images), slice(r, r + rows)
            uniform_bl = None if uniform_Bl is None else uniform_Bl[part]
            _assign_chunk(z_BlC[part], codebook, temperature_T, together, sums, part, uniform_bl)
    return sums


def _assign_chunk(
    z_blC: Tensor,
    codebook: Codebook,
    temperature_T: Tensor,
    together: int,
    sums: ImageSums,
    part: tuple[slice, slice],
    uniform_bl: Tensor | None,
) -> None:
    """Add the assignment of some tokens of some images to the sums of all, some temperatures at once."""
    images, shape = part[0], z_blC.shape[:2]
    logit_NV, norm_N = codebook.logits(z_blC.flatten(0, 1))
    idx_N = _argmax(logit_NV)
    top_N1 = logit_NV.gather(1, idx_N[:, None])
    nearest_N1 = torch.zeros_like(top_N1) if norm_N is None else norm_N[:, None] - top_N1
    nearest_b1 = _per_image(nearest_N1.clamp_(min=0), shape)
    token_N = idx_N
    if uniform_bl is not None:
        token_N = draw(logit_NV, temperature_T[0], uniform_bl.flatten())
    sums.idx_Bl[part] = token_N.view(shape)
    sums.min_distance_B[images].add_(nearest_b1[:, 0])
    for t in range(0, len(temperature_T), together):
        temperature_t, at = temperature_T[t : t + together], (images, slice(t, t + together))
        q_NtV, below_NPV = soft_assign(logit_NV, idx_N, temperature_t)
        sums.soft_BTE[at].add_(_by_image(q_NtV, shape).sum(1))
        soft = soft_statistics(q_NtV, below_NPV, idx_N, temperature_t)
        sums.entropy_BT[at].add_(_per_image(soft.entropy_NT, shape))
        sums.varentropy_BT[at].add_(_per_image(soft.varentropy_NT, shape))
        sums.distance_BT[at].add_(nearest_b1 + _per_image(soft.distance_NT, shape))


def _assign_to_grid(z_BlC: Tensor, grid: Grid, temperature_T: Tensor) -> ImageSums:
    """Assign latents to a grid: its dimensions are independent, so their entropies add.

    The result is that of `assign`, but everything is float64.

    Source:
        softmax(-|z - c|^2 / T) over all c of a product set is the product of the softmaxes over each
        dimension's coordinates; of bits +-a, the sigmoid of 4 a z / T.
    """
    z_NC = grid.prepared(z_BlC.flatten(0, 1))
    vocabulary, shape = grid.vocabulary, z_BlC.shape[:2]
    sums = _zeros(z_BlC, len(temperature_T), vocabulary.entries)
    levels_NC = torch.empty_like(z_NC, dtype=torch.int64)
    q_C = []
    for c, coordinate_L in enumerate(grid.coordinate_CL):
        z_N = z_NC[:, c].contiguous()
        level_N = torch.bucketize(z_N, (coordinate_L[1:] + coordinate_L[:-1]) / 2)
        distance_NL = (z_N[:, None] - coordinate_L).square()
        nearest_N1 = distance_NL.gather(1, level_N[:, None])
        levels_NC[:, c] = level_N
        sums.min_distance_B.add_(_per_image(nearest_N1, shape)[:, 0])
        if not len(temperature_T):
            continue
        q_NTL, below_NPL = soft_assign(distance_NL.neg_(), level_N, temperature_T)
        q_C.append(q_NTL.clone())
        soft = soft_statistics(q_NTL, below_NPL, level_N, temperature_T)
        sums.entropy_BT.add_(_per_image(soft.entropy_NT, shape))
        sums.varentropy_BT.add_(_per_image(soft.varentropy_NT, shape))
        sums.distance_BT.add_(_per_image(soft.distance_NT, shape))
    sums.distance_BT.add_(sums.min_distance_B[:, None])
    if not grid.first_is_most:
        levels_NC, q_C = levels_NC.flip(1), q_C[::-1]
    if vocabulary.size <= 2 * MAX_INDEXABLE:  # 64 bits fill the sign too: enough to decode them
        sums.idx_Bl[:] = _code_numbers(levels_NC, vocabulary).view(shape)
    if q_C:
        sums.soft_BTE = _soft_sums(q_C, shape, counted=vocabulary.counted)
    if not vocabulary.counted:
        sums.entry_BN = (levels_NC + grid.start_C).view(len(z_BlC), -1)
    return sums


def _code_numbers(levels_NC: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Return each token's code index from its levels, the most significant first, (N,)."""
    assert vocabulary.levels is not None
    idx_N = torch.zeros_like(levels_NC[:, 0])
    for c, levels in enumerate(vocabulary.levels):
        idx_N = idx_N * levels + levels_NC[:, c]
    return idx_N


def _soft_sums(q_C: Sequence[Tensor], shape: torch.Size, *, counted: bool) -> Tensor:
    """Sum the soft assignment to each code, or to each level, over an image's tokens: (B, T, E)."""
    if not counted:
        return _by_image(torch.cat(list(q_C), 2), shape).sum(1)
    # q of a code is a product over the dimensions: the outer product of those of two halves of them, so
    # that its sum over tokens is one matrix product.
    half, one_NT1 = len(q_C) // 2, torch.ones_like(q_C[0][:, :, :1])
    high_BTHl, low_BTlK = (
        _by_image(functools.reduce(_outer, part, one_NT1), shape).permute(0, 2, *order)
        for part, order in ((q_C[:half], (3, 1)), (q_C[half:], (1, 3)))
    )
    return (high_BTHl @ low_BTlK).flatten(2)


def _outer(left_NTX: Tensor, right_NTY: Tensor) -> Tensor:
    """Multiply every combination of their columns: (N, T, X Y)."""
    return (left_NTX[..., :, None] * right_NTY[..., None, :]).flatten(2)


def _zeros(z_BlC: Tensor, temperatures: int, entries: int) -> ImageSums:
    B, tokens, _ = z_BlC.shape
    sums = functools.partial(z_BlC.new_zeros, dtype=torch.float64)
    return ImageSums(
        tokens=tokens,
        idx_Bl=z_BlC.new_zeros((B, tokens), dtype=torch.int64),
        entropy_BT=sums((B, temperatures)),
        varentropy_BT=sums((B, temperatures)),
        distance_BT=sums((B, temperatures)),
        min_distance_B=sums(B),
        soft_BTE=sums((B, temperatures, entries)),
    )


def _argmax(logit_NV: Tensor) -> Tensor:
    """Return the index of each row's largest entry, the first of equals: (N,)."""
    N, V = logit_NV.shape
    if logit_NV.device.type != "cpu" or V % ARGMAX_BLOCK:
        return logit_NV.argmax(1)  # documented to return the first of equals
    logit_NbK = logit_NV.view(N, -1, ARGMAX_BLOCK)
    block_N1 = logit_NbK.amax(2).argmax(1, keepdim=True)
    best_NK = logit_NbK.take_along_dim(block_N1[:, :, None], 1)[:, 0]
    return block_N1[:, 0] * ARGMAX_BLOCK + best_NK.argmax(1)


def _per_image(value_NT: Tensor, shape: torch.Size) -> Tensor:
    """Sum over an image's tokens: (B, T)."""
    return _by_image(value_NT, shape).sum(1, dtype=torch.float64)


def _by_image(value_NX: Tensor, shape: torch.Size) -> Tensor:
    """Give images an axis of their own: (B, l, X)."""
    return value_NX.view(*shape, *value_NX.shape[1:])
