"""Soft and hard assignment of latents to a codebook, summed per image.

Everything about a chunk of tokens comes from one matrix product, and only sums per image leave it: a
(tokens, codes) matrix never outlives its chunk.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from entropy_cli.core.errors import ShapeError
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.sums import ImageSums

# Elements of one (tokens, codes) chunk: on a CPU it should stay in a cache, a GPU needs it large to fill
# the device. Every chunk reads the whole codebook again, so a chunk has at least MIN_ROWS tokens.
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
MIN_ROWS = 16

# Codes in a block of the two-step argmax: torch's over a whole row of a CPU tensor is not vectorised.
ARGMAX_BLOCK = 128

MAX_INDEXABLE = 2**63  # codes whose indices fit an int64


class SoftStatistics(NamedTuple):
    """Moments of the soft assignment of N tokens at T temperatures."""

    entropy_TN: Tensor  # nats
    varentropy_TN: Tensor  # variance of ln q under q, nats^2
    distance_TN: Tensor  # mean squared distance under q, minus that of the nearest code


def soft_statistics(
    below_NV: Tensor, idx_N: Tensor, temperatures: Sequence[float], sink: Callable[[int, Tensor], object]
) -> SoftStatistics:
    """Compute soft assignments q = softmax(below / temperature), their entropies and varentropies.

    Args:
        below_NV: the nearest code's squared distance minus each code's: at most 0.
        idx_N: the nearest code.
        temperatures: T divisors of the squared distance.
        sink: called with t and q_NV for each temperature; q_NV is overwritten afterwards.

    Returns:
        entropy in [0, ln V] nats; varentropy in nats^2, which is also dH / d ln(temperature).

    Source:
        Entropy from the log-partition: H = ln Z - E_q[x], x = below / temperature.
    """
    moments = []
    for t, temperature in enumerate(temperatures):
        q_NV = torch.softmax(below_NV if temperature == 1 else below_NV / temperature, dim=1)
        sink(t, q_NV)
        # The nearest code has x = 0, so its probability is 1 / Z: at least 1 / V, its log is safe.
        nearest_N = q_NV.gather(1, idx_N[:, None])[:, 0]
        weighted_NV = q_NV.mul_(below_NV)
        mean_N = weighted_NV.sum(1)
        square_N = weighted_NV.mul_(below_NV).sum(1) / temperature / temperature
        moments.append((nearest_N, mean_N / temperature, square_N, -mean_N))
    nearest_TN, mean_TN, square_TN, distance_TN = map(torch.stack, zip(*moments, strict=True))
    # Rounding can leave -1e-8 for a q that is nearly one code.
    return SoftStatistics(
        (-nearest_TN.log() - mean_TN).clamp_(min=0),
        (square_TN - mean_TN.square()).clamp_(min=0),
        distance_TN,
    )


def assign(
    z_BlC: Tensor, codebook: Codebook | Grid, temperatures: Sequence[float], chunk: int | None = None
) -> ImageSums:
    """Assign every latent to the codebook, soft and hard, and sum per image.

    Args:
        z_BlC: l latents of each of B images, float32 or float64, finite.
        codebook: the V codes of this scale, on the same device.
        temperatures: T divisors of the squared distance, or of the logits, each > 0.
        chunk: elements of a (tokens, codes) matrix held at once; the default depends on the device.

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
    if isinstance(codebook, Grid):
        return assign_to_grid(z_BlC, codebook, temperatures)
    (B, tokens), V = z_BlC.shape[:2], codebook.vocabulary.size
    default = max(CHUNK_ELEMENTS.get(z_BlC.device.type, CHUNK_ELEMENTS["cpu"]), MIN_ROWS * V)
    chunk_rows = max(chunk or default, V) // V
    images, rows = max(1, chunk_rows // tokens), min(tokens, chunk_rows)
    sums = _zeros(z_BlC, len(temperatures), V)
    for b in range(0, B, images):
        for r in range(0, tokens, rows):
            part = slice(b, b + images), slice(r, r + rows)
            _assign_chunk(z_BlC[part], codebook, temperatures, sums, part)
    return sums


def _assign_chunk(
    z_blC: Tensor,
    codebook: Codebook,
    temperatures: Sequence[float],
    sums: ImageSums,
    part: tuple[slice, slice],
) -> None:
    """Add the assignment of some tokens of some images to the sums of all."""
    images, shape = part[0], z_blC.shape[:2]
    logit_NV, norm_N = codebook.logits(z_blC.flatten(0, 1))
    idx_N = _argmax(logit_NV)
    top_N1 = logit_NV.gather(1, idx_N[:, None])
    nearest_N = torch.zeros_like(top_N1[:, 0]) if norm_N is None else norm_N - top_N1[:, 0]
    nearest_b1 = _per_image(nearest_N.clamp_(min=0), shape)
    sums.idx_Bl[part] = idx_N.view(shape)
    sums.min_distance_B[images] += nearest_b1[:, 0]
    if not temperatures:
        return

    def add(t: int, q_NV: Tensor) -> None:
        sums.soft_BTE[images, t] += q_NV.view(*shape, -1).sum(1)

    soft = soft_statistics(logit_NV.sub_(top_N1), idx_N, temperatures, add)
    sums.entropy_BT[images] += _per_image(soft.entropy_TN, shape)
    sums.varentropy_BT[images] += _per_image(soft.varentropy_TN, shape)
    sums.distance_BT[images] += nearest_b1 + _per_image(soft.distance_TN, shape)


def assign_to_grid(z_BlC: Tensor, grid: Grid, temperatures: Sequence[float]) -> ImageSums:
    """Assign latents to a grid: its dimensions are independent, so their entropies add.

    Arguments and result are those of `assign`, but everything is float64.

    Source:
        softmax(-|z - c|^2 / T) over all c of a product set is the product of the softmaxes over each
        dimension's coordinates; of bits +-a, the sigmoid of 4 a z / T.
    """
    z_NC = grid.prepared(z_BlC.flatten(0, 1))
    vocabulary, shape = grid.vocabulary, z_BlC.shape[:2]
    sums = _zeros(z_BlC, len(temperatures), vocabulary.entries)
    levels_NC = torch.empty_like(z_NC, dtype=torch.int64)
    q_TC: list[list[Tensor]] = [[] for _ in temperatures]
    for c, coordinates in enumerate(grid.coordinates):
        z_N, coordinate_L = z_NC[:, c].contiguous(), z_NC.new_tensor(coordinates)
        levels_NC[:, c] = torch.bucketize(z_N, (coordinate_L[1:] + coordinate_L[:-1]) / 2)
        distance_NL = (z_N[:, None] - coordinate_L).square()
        nearest_N = distance_NL.gather(1, levels_NC[:, c, None])[:, 0]
        sums.min_distance_B += _per_image(nearest_N, shape)[:, 0]
        if not temperatures:
            continue
        soft = soft_statistics(
            nearest_N[:, None] - distance_NL,
            levels_NC[:, c],
            temperatures,
            lambda t, q_NL: q_TC[t].append(q_NL.clone()),
        )
        sums.entropy_BT += _per_image(soft.entropy_TN, shape)
        sums.varentropy_BT += _per_image(soft.varentropy_TN, shape)
        sums.distance_BT += _per_image(soft.distance_TN, shape)
    sums.distance_BT += sums.min_distance_B[:, None]
    if vocabulary.size <= MAX_INDEXABLE:
        sums.idx_Bl[:] = _code_numbers(levels_NC, grid).view(shape)
    for t, q_C in enumerate(q_TC):
        sums.soft_BTE[:, t] = _soft_sums(q_C, grid, shape)
    if not vocabulary.counted:
        assert vocabulary.levels is not None
        starts_C = torch.tensor([0, *vocabulary.levels[:-1]], device=z_NC.device).cumsum(0)
        sums.entry_BN = (levels_NC[:, list(grid.significance)] + starts_C).view(len(z_BlC), -1)
    return sums


def _code_numbers(levels_NC: Tensor, grid: Grid) -> Tensor:
    """Return each token's code index from its levels, (N,)."""
    idx_N = torch.zeros_like(levels_NC[:, 0])
    for c in grid.significance:
        idx_N = idx_N * len(grid.coordinates[c]) + levels_NC[:, c]
    return idx_N


def _soft_sums(q_C: Sequence[Tensor], grid: Grid, shape: torch.Size) -> Tensor:
    """Sum the soft assignment to each code, or to each level, over an image's tokens: (B, E)."""
    q_C = [q_C[c] for c in grid.significance]
    if not grid.vocabulary.counted:
        return torch.cat(q_C, 1).view(*shape, -1).sum(1)
    # q of a code is a product over the dimensions: the outer product of those of two halves of them, so
    # that its sum over tokens is one matrix product.
    half, one_N1 = len(q_C) // 2, torch.ones_like(q_C[0][:, :1])
    high_BlH, low_BlK = (
        functools.reduce(_outer, part, one_N1).view(*shape, -1) for part in (q_C[:half], q_C[half:])
    )
    return torch.bmm(high_BlH.transpose(1, 2), low_BlK).flatten(1)


def _outer(left_NX: Tensor, right_NY: Tensor) -> Tensor:
    """Multiply every combination of their columns: (N, X Y)."""
    return (left_NX[:, :, None] * right_NY[:, None]).flatten(1)


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


def _per_image(value_TN: Tensor, shape: torch.Size) -> Tensor:
    """Sum over an image's tokens: (B, T)."""
    return value_TN.view(-1, *shape).sum(2, dtype=torch.float64).T
