"""Bias corrections of entropies estimated from finitely many images, and when each is valid.

The entropy of an average is too low by about half the sum of Var(p_k) / p_k. Tokens of one image are
correlated, so the variance is measured between images, not derived from the number of tokens.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.jackknife import jackknifed
from entropy_cli.entropy.quantity import UNDERSAMPLED

# In nats; a second-order correction above it can't be trusted.
LARGEST_CORRECTION = 0.05
# Below the first, hard tokens need Grassberger's estimator; below the second no estimator is valid.
COVERAGE_FOR_CLUSTERED = 0.995
COVERAGE_FOR_ANY = 0.95


class Point(NamedTuple):
    """A point estimate in nats: corrected where that is valid, else the plug-in value with a note.

    The value is None, with a note, where there is no estimate. `unseen` is about the share of tokens
    whose codes were never seen, which no correction knows of.
    """

    value: float | None
    plug_in: float | None
    estimator: str
    note: str | None = None
    unseen: float = 0.0


def clustered_correction(mean_V: Tensor, squares_V: Tensor, images: int) -> float:
    """Return the clustered Miller-Madow correction of an entropy, in nats; infinite for one image.

    Args:
        mean_V: mean over images of x, an image's mean soft assignment or its histogram of hard tokens.
        squares_V: sum over images of x^2.
        images: number of images.

    Source:
        Second-order expansion of E[H(p)] with v_k = (squares_k / M - p_k^2) / (M - 1) the variance of
        p_k; for one token an image it is Miller & Madow's (K - 1) / 2N, to order 1/N^2.
    """
    if images < 2:
        return math.inf
    seen = mean_V > 0
    p_V = mean_V[seen].double()
    variance_V = (squares_V[seen].double() / images - p_V.square()).clamp(min=0) / (images - 1)
    return 0.5 * (variance_V / p_V).sum().item()


def miller_madow(count_V: Tensor) -> float:
    """Return the Miller-Madow entropy of independent hard tokens in nats: H + (K - 1) / 2N, K codes."""
    seen = (count_V > 0).sum().item()
    return entropy(count_V).item() + (seen - 1) / (2 * count_V.sum().item())


def grassberger(count_V: Tensor) -> float:
    """Return Grassberger's entropy of independent hard tokens, in nats.

    Source:
        Grassberger, Entropy Estimates from Insufficient Samplings, arXiv:physics/0307138, in the form
        ln N - (1/N) sum n [psi(n) + (-1)^n / 2 (psi((n+1)/2) - psi(n/2))].
    """
    n_V = count_V[count_V > 0].double()
    sign_V = 1 - 2 * (n_V % 2)
    odd_V = torch.digamma((n_V + 1) / 2) - torch.digamma(n_V / 2)
    g_V = torch.digamma(n_V) + 0.5 * sign_V * odd_V
    total = n_V.sum()
    return (total.log() - (n_V * g_V).sum() / total).item()


def coverage(count_SV: Tensor, squares_SV: Tensor) -> float:
    """Return the Good-Turing coverage, the probability of the codes seen.

    One minus the share of tokens whose code occurs in one image only: tokens of one image are alike, so
    that a code that it repeats was still seen once.

    Args:
        count_SV: hard tokens of each code, at one or several scales.
        squares_SV: sum over images of the squared counts of an image; count^2 if it is of one image.
    """
    alone_V = (squares_SV // count_SV.clamp(min=1) == count_SV).all(0)  # count^2 could overflow
    return 1 - count_SV[:, alone_V].sum().item() / count_SV.sum().item()


def decided_by_one(sum_V: Tensor, squares_V: Tensor) -> float:
    """Return the share of codes that one image, or group of them, gave most of: as coverage, but soft.

    Args:
        sum_V: sum over images of their soft assignment.
        squares_V: sum over images of its square.
    """
    return (sum_V[squares_V > 0.5 * sum_V.square()].sum() / sum_V.sum()).item()


def estimate_marginal(soft_V: Tensor, squares_V: Tensor, images: int, covered: float) -> Point:
    """Estimate the entropy of the mean soft assignment, in nats.

    Args:
        soft_V: sum over tokens of the soft assignment.
        squares_V: sum over images of the squared mean soft assignment of an image.
        images: number of images.
        covered: Good-Turing coverage of the hard tokens, in [0, 1].
    """
    plug_in = entropy(soft_V).item()
    correction = clustered_correction(soft_V / soft_V.sum(), squares_V, images)
    usable = covered >= COVERAGE_FOR_ANY and correction <= LARGEST_CORRECTION
    point = bounded(plug_in, correction if usable else None, "clustered Miller-Madow", len(soft_V))
    return point._replace(unseen=decided_by_one(images * soft_V / soft_V.sum(), squares_V))


def estimate_unigram(count_V: Tensor, squares_V: Tensor, images: int) -> Point:
    """Estimate the entropy of the histogram of hard tokens, in nats.

    Args:
        count_V: hard tokens of each code.
        squares_V: sum over images of the squared counts of an image.
        images: number of images, each with the same number of tokens.
    """
    total = count_V.sum().item()
    plug_in = entropy(count_V).item()
    share_squares_V = squares_V.double() * (images / total) ** 2
    correction = clustered_correction(count_V.double() / total, share_squares_V, images)
    covered = coverage(count_V[None], squares_V[None])
    if covered >= COVERAGE_FOR_CLUSTERED:
        usable = correction if correction <= LARGEST_CORRECTION else None
        point = bounded(plug_in, usable, "clustered Miller-Madow", len(count_V))
        return point._replace(unseen=1 - covered)
    # Grassberger's assumes independent tokens; their correlation adds the difference of the two
    # Miller-Madow corrections, which has to be small as well.
    clustering = correction - (miller_madow(count_V) - plug_in)
    if covered < COVERAGE_FOR_ANY or clustering > LARGEST_CORRECTION:
        return bounded(plug_in, None, "", len(count_V))
    correction = grassberger(count_V) - plug_in + clustering
    point = bounded(plug_in, correction, "Grassberger, clustered", len(count_V))
    return point._replace(unseen=1 - covered)


def estimate_by_groups(sum_GV: Tensor, deleted_G: Tensor, images_G: Tensor, covered: float) -> Point:
    """Estimate the entropy of sums by the jackknife over groups, whose images may be alike too.

    Args:
        sum_GV: sums of counts or of soft assignments in each group.
        deleted_G: their entropy without each group, in nats.
        images_G: images in each group.
        covered: Good-Turing coverage of the hard tokens, in [0, 1].
    """
    sum_V, correction = sum_GV.sum(0), None
    plug_in = entropy(sum_V).item()
    if covered >= COVERAGE_FOR_ANY and (images_G > 0).sum() >= 2:
        correction = (
            float(jackknifed(np.asarray(plug_in), deleted_G.numpy(), images_G.numpy())) - plug_in
        )
    usable = correction is not None and abs(correction) <= LARGEST_CORRECTION
    point = bounded(plug_in, correction if usable else None, "delete-a-group jackknife", len(sum_V))
    return point._replace(unseen=decided_by_one(sum_V, sum_GV.square().sum(0)))


def bounded(plug_in: float, correction: float | None, estimator: str, vocab_size: int) -> Point:
    """Apply a correction, unless there is none or it would exceed the largest possible entropy."""
    if correction is None or plug_in + correction > math.log(vocab_size):
        return Point(plug_in, plug_in, "plug-in", UNDERSAMPLED)
    return Point(plug_in + correction, plug_in, estimator)
