"""Distances of latents to a codebook, and what their soft and hard assignment sums to per image.

Everything about one chunk of tokens is formed from one matrix product, and only per-image sums leave
it: a (tokens, codes) matrix never outlives its chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.errors import ShapeError

Rule = Literal["l2", "cosine"]

# Elements of one (tokens, codes) chunk: on a CPU it should stay in the second-level cache, a GPU needs
# it large to fill the device.
CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}

# exp of less than this is zero in float32 and float64 alike, so that raising a log-ratio to it changes
# no probability; it keeps 0 * inf out of the sums at tiny temperatures.
LOWEST_LOG_RATIO = -1000.0


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
        self.rule = rule
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
    """What one temperature makes of N tokens; everything in nats, nats^2 or squared distances."""

    q_NV: Tensor  # soft assignment
    entropy_N: Tensor
    varentropy_N: Tensor  # variance of ln q under q
    logit_N: Tensor  # mean logit under q


def soft_statistics(
    logit_NV: Tensor, idx_N: Tensor, top_N: Tensor, temperature: float
) -> SoftStatistics:
    """Soft assignment q = softmax(logit / temperature), its entropy and varentropy.

    Args:
        logit_NV: minus the squared distances, up to a constant per token.
        idx_N: the index of each row's largest logit.
        top_N: each row's largest logit.
        temperature: divisor of the squared distance.

    Returns:
        entropy in [0, ln V] nats; varentropy in nats^2, which is also dH / d ln(temperature).

    Source:
        Entropy from the log-partition: H = ln Z - E_q[x], x = (logit - max) / temperature.
    """
    x_NV = (logit_NV - top_N[:, None]).div_(temperature).clamp_(min=LOWEST_LOG_RATIO)
    q_NV = torch.softmax(x_NV, dim=1)
    # The winner has x = 0, so its log-probability is -ln Z; it is at least 1/V, its log is safe.
    log_partition_N = -q_NV.gather(1, idx_N[:, None])[:, 0].log()
    mean_N = torch.linalg.vecdot(q_NV, x_NV)
    varentropy_N = torch.linalg.vecdot(q_NV, x_NV.sub_(mean_N[:, None]).square_())
    entropy_N = (log_partition_N - mean_N).clamp_(min=0)  # rounding can give -1e-8 for a one-hot q
    return SoftStatistics(q_NV, entropy_N, varentropy_N, top_N + mean_N * temperature)


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
    counts_BV: Tensor  # hard assignment

    def first(self, images: int) -> "ImageSums":
        """The sums of the first images only."""
        kept = {f.name: getattr(self, f.name)[:images] for f in fields(self) if f.name != "tokens"}
        return ImageSums(self.tokens, **kept)


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
    chunk = chunk or CHUNK_ELEMENTS.get(z_BlC.device.type, CHUNK_ELEMENTS["cpu"])
    images = max(1, chunk // (tokens * V))
    rows = max(1, min(tokens, chunk // V))

    zeros = z_BlC.new_zeros
    f64 = torch.float64
    sums = ImageSums(
        tokens=tokens,
        idx_Bl=zeros((B, tokens), dtype=torch.int64),
        entropy_BT=zeros((B, T), dtype=f64),
        varentropy_BT=zeros((B, T), dtype=f64),
        distance_BT=zeros((B, T), dtype=f64),
        min_distance_B=zeros(B, dtype=f64),
        soft_BTV=zeros((B, T, V), dtype=f64),
        counts_BV=zeros((B, V), dtype=torch.int64),
    )
    for b in range(0, B, images):
        part = slice(b, b + images)
        for r in range(0, tokens, rows):
            z_brC = z_BlC[part, r : r + rows]
            per_image = z_brC.shape[:2]
            logit_NV, norm_N = codebook.logits(z_brC.reshape(-1, C))
            idx_N = logit_NV.argmax(1)  # documented to return the first of equals
            top_N = logit_NV.gather(1, idx_N[:, None])[:, 0]
            sums.idx_Bl[part, r : r + rows] = idx_N.view(per_image)
            sums.min_distance_B[part] += _per_image((norm_N - top_N).clamp_(min=0), per_image)
            for t, temperature in enumerate(temperatures):
                soft = soft_statistics(logit_NV, idx_N, top_N, temperature)
                sums.entropy_BT[part, t] += _per_image(soft.entropy_N, per_image)
                sums.varentropy_BT[part, t] += _per_image(soft.varentropy_N, per_image)
                distance_N = (norm_N - soft.logit_N).clamp_(min=0)
                sums.distance_BT[part, t] += _per_image(distance_N, per_image)
                sums.soft_BTV[part, t] += soft.q_NV.view(*per_image, V).sum(1)
    sums.counts_BV.scatter_add_(1, sums.idx_Bl, torch.ones_like(sums.idx_Bl))
    return sums


def _per_image(value_N: Tensor, shape: torch.Size) -> Tensor:
    return value_N.view(shape).sum(1, dtype=torch.float64)
