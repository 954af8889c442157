"""Distances of latents to a codebook, and what their soft and hard assignment sums to per image.

Everything about one chunk of tokens is formed from one matrix product, and only per-image sums leave
it: a (tokens, codes) matrix never outlives its chunk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.errors import ShapeError

Rule = Literal["l2", "cosine"]

# Elements of one (tokens, codes) chunk: on a CPU it should stay in a cache, a GPU needs it large to fill
# the device. With very many codes the codebook itself is read again for every chunk, so that a chunk
# has at least so many tokens.
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
LEAST_ROWS = 16

# Codes in a block of the two-step argmax: torch's over a whole row of a CPU tensor is not vectorised.
ARGMAX_BLOCK = 128


class Codebook:
    """The codes of one scale, prepared for distances.

    The squared distance is formed as d = |z|^2 - logit with logit = 2 z.e - |e|^2, after moving both
    z and e by the codebook's mean: that keeps every distance and the digits that cancellation would
    cost. The rule "cosine" first scales both to unit length, so that d = 2 - 2 cos(z, e).

    Args:
        codebook_VC: the V codes.
        rule: "l2" or "cosine".
    """

    def __init__(self, codebook_VC: Tensor, rule: Rule) -> None:
        if codebook_VC.ndim != 2 or 0 in codebook_VC.shape:
            raise ShapeError(f"codebook: got shape {tuple(codebook_VC.shape)}, expected (V, C)")
        self.rule, self.codes_VC = rule, codebook_VC
        self.size, self.latent_dim = codebook_VC.shape
        code_VC = codebook_VC.double()
        if rule == "cosine":
            code_VC = functional.normalize(code_VC, dim=1)
        centre_C = code_VC.mean(0)
        code_VC = code_VC - centre_C
        dtype = codebook_VC.dtype
        self.centre_C = centre_C.to(dtype)
        self.twice_CV = (2 * code_VC.T).contiguous().to(dtype)
        self.minus_norm_V = -code_VC.square().sum(1).to(dtype)

    @property
    def degrees_of_freedom(self) -> int:
        """Dimensions in which a latent can move: one less on the unit sphere."""
        return max(1, self.latent_dim - (self.rule == "cosine"))

    def logits(self, z_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Return logit_NV = 2 z.e - |e|^2 and norm_N = |z|^2: squared distance = norm - logit."""
        if self.rule == "cosine":
            z_NC = functional.normalize(z_NC, dim=1)
        centred_NC = z_NC - self.centre_C
        logit_NV = torch.addmm(self.minus_norm_V, centred_NC, self.twice_CV)
        return logit_NV, centred_NC.square().sum(1)


class SoftStatistics(NamedTuple):
    """What each temperature makes of N tokens, in nats, nats^2 and squared distances."""

    entropy_TN: Tensor
    varentropy_TN: Tensor  # variance of ln q under q
    distance_TN: Tensor  # mean squared distance under q, above that of the nearest code


def soft_statistics(
    below_NV: Tensor, idx_N: Tensor, temperatures: Sequence[float], sink: Callable[[int, Tensor], object]
) -> SoftStatistics:
    """Soft assignments q = softmax(below / temperature), their entropies and varentropies.

    Args:
        below_NV: each code's squared distance taken from the nearest's: at most 0.
        idx_N: the nearest code.
        temperatures: T divisors of the squared distance.
        sink: is given t and q_NV, which it may not keep, for each.

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


@dataclass
class ImageSums:
    """Sums over the l tokens of each image at one scale, for T temperatures; all float64 or int64."""

    tokens: int  # l
    idx_Bl: Tensor
    entropy_BT: Tensor  # nats
    varentropy_BT: Tensor  # nats^2
    distance_BT: Tensor  # expected squared distance under q
    min_distance_B: Tensor  # squared distance to the nearest code
    soft_BTV: Tensor  # soft assignment

    def first(self, images: int) -> "ImageSums":
        """The sums of the first images only."""
        kept = {f.name: getattr(self, f.name)[:images] for f in fields(self) if f.name != "tokens"}
        return ImageSums(self.tokens, **kept)

    @property
    def counts_BV(self) -> Tensor:
        """Hard assignment: how many tokens each code is nearest to."""
        B, _, V = self.soft_BTV.shape
        zeros_BV = self.idx_Bl.new_zeros(B, V)
        return zeros_BV.scatter_add_(1, self.idx_Bl, torch.ones_like(self.idx_Bl))


def assign(
    z_BlC: Tensor, codebook: Codebook, temperatures: Sequence[float], chunk: int | None = None
) -> ImageSums:
    """Assign every latent softly and hard to the codebook and sum per image.

    Args:
        z_BlC: l latents of each of B images, float32 or float64, finite.
        codebook: the V codes of this scale, on the same device.
        temperatures: T divisors of the squared distance, each > 0.
        chunk: elements of a (tokens, codes) matrix held at once; default by device.

    Returns:
        Sums per image. The nearest code is the one of largest logit, the lowest index among equals.

    Raises:
        ShapeError: the latents' dimension is not the codebook's, or there are none.
    """
    if z_BlC.ndim != 3 or z_BlC.shape[2] != codebook.latent_dim or 0 in z_BlC.shape:
        raise ShapeError(
            f"latents: got shape {tuple(z_BlC.shape)}, expected (B, l, {codebook.latent_dim})"
        )
    B, tokens, C = z_BlC.shape
    T, V = len(temperatures), codebook.size
    at_once = max(chunk or _chunk(z_BlC.device, V), V) // V
    images, rows = max(1, at_once // tokens), min(tokens, at_once)
    zeros, f64 = z_BlC.new_zeros, torch.float64
    sums = ImageSums(
        tokens=tokens,
        idx_Bl=zeros((B, tokens), dtype=torch.int64),
        entropy_BT=zeros((B, T), dtype=f64),
        varentropy_BT=zeros((B, T), dtype=f64),
        distance_BT=zeros((B, T), dtype=f64),
        min_distance_B=zeros(B, dtype=f64),
        soft_BTV=zeros((B, T, V), dtype=f64),
    )
    for b in range(0, B, images):
        part = slice(b, b + images)
        for r in range(0, tokens, rows):
            z_brC = z_BlC[part, r : r + rows]
            shape = z_brC.shape[:2]
            logit_NV, norm_N = codebook.logits(z_brC.reshape(-1, C))
            idx_N = _argmax(logit_NV)
            top_N1 = logit_NV.gather(1, idx_N[:, None])
            nearest_B = _per_image((norm_N - top_N1[:, 0]).clamp_(min=0), shape)[:, 0]
            sums.idx_Bl[part, r : r + rows] = idx_N.view(shape)
            sums.min_distance_B[part] += nearest_B
            if not T:
                continue

            def add(t: int, q_NV: Tensor, part: slice = part, shape: torch.Size = shape) -> None:
                sums.soft_BTV[part, t] += q_NV.view(*shape, V).sum(1)

            soft = soft_statistics(logit_NV.sub_(top_N1), idx_N, temperatures, add)
            sums.entropy_BT[part] += _per_image(soft.entropy_TN, shape)
            sums.varentropy_BT[part] += _per_image(soft.varentropy_TN, shape)
            sums.distance_BT[part] += nearest_B[:, None] + _per_image(soft.distance_TN, shape)
    return sums


def _chunk(device: torch.device, codes: int) -> int:
    return max(CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"]), LEAST_ROWS * codes)


def _argmax(logit_NV: Tensor) -> Tensor:
    """Index of each row's largest entry, the first of equals."""
    N, V = logit_NV.shape
    if logit_NV.device.type != "cpu" or V % ARGMAX_BLOCK:
        return logit_NV.argmax(1)  # documented to return the first of equals
    logit_NbK = logit_NV.view(N, -1, ARGMAX_BLOCK)
    block_N1 = logit_NbK.amax(2).argmax(1, keepdim=True)
    best_NK = logit_NbK.take_along_dim(block_N1[:, :, None], 1)[:, 0]
    return block_N1[:, 0] * ARGMAX_BLOCK + best_NK.argmax(1)


def _per_image(value_TN: Tensor, shape: torch.Size) -> Tensor:
    """Sums over an image's tokens, (B, T)."""
    return value_TN.view(-1, *shape).sum(2, dtype=torch.float64).T
