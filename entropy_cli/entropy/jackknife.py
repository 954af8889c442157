"""Standard errors by the delete-a-group jackknife; groups may have unequal sizes.

Imports no torch, so that a report of results needs none.
"""

import functools
import math
from statistics import NormalDist

import numpy as np

from entropy_cli.entropy.quantity import Cluster


def jackknife_variance(
    value: np.ndarray, deleted_G: np.ndarray, images_G: np.ndarray, cluster: Cluster = "image"
) -> np.ndarray:
    """Return the variance of an estimate from its values with each group deleted.

    Args:
        value: the estimate from all images, float64, any shape (...).
        deleted_G: the estimate without group g, (G, ...); rows of empty groups are not read.
        images_G: images in each group, int64; at least two groups must not be empty.
        cluster: what the groups keep together. A group of folders is no surer for having more images,
            so that its deviation counts as it is.

    Returns:
        float64, (...).

    Source:
        Of images: Busing, Meijer & van der Leeden, Delete-m jackknife for unequal m, Statistics and
        Computing 9 (1999), eq. 8-9: with h = n / n_g, pseudo-values h value - (h - 1) deleted. Of
        folders: Efron & Stein, The jackknife estimate of variance, Annals of Statistics 9 (1981).
    """
    if cluster == "folder":
        used_G = deleted_G[images_G > 0]
        return np.asarray((len(used_G) - 1) * used_G.var(0))
    h_G, deleted_G = _used(value, deleted_G, images_G)
    pseudo_G = h_G * value - (h_G - 1) * deleted_G
    return ((pseudo_G - _jackknifed(value, h_G, deleted_G)) ** 2 / (h_G - 1)).mean(0)


def jackknifed(value: np.ndarray, deleted_G: np.ndarray, images_G: np.ndarray) -> np.ndarray:
    """Return an estimate without its first-order bias; arguments as of `jackknife_variance`."""
    return _jackknifed(value, *_used(value, deleted_G, images_G))


def _used(
    value: np.ndarray, deleted_G: np.ndarray, images_G: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return h = n / n_g and the deleted values of the groups that are not empty."""
    used = images_G > 0
    size_G = images_G[used].astype(np.float64)
    return (size_G.sum() / size_G).reshape(-1, *[1] * value.ndim), deleted_G[used]


def _jackknifed(value: np.ndarray, h_G: np.ndarray, deleted_G: np.ndarray) -> np.ndarray:
    return len(h_G) * value - ((1 - 1 / h_G) * deleted_G).sum(0)


def variance_at_a_stop(
    variance: np.ndarray, over_images: np.ndarray, images_G: np.ndarray
) -> np.ndarray:
    """Return the variance for the interval of a mean at which a run may stop early.

    The jackknife's of 32 groups is itself uncertain by a quarter, and a run that may stop at any check
    stops where it is too small. The variance over images is nearly certain, but too small where the
    images of a group are alike. The wider interval of the two counts.

    Args:
        variance: by the jackknife, any shape (...).
        over_images: of the mean, from the variation over images, (...).
        images_G: images in each group; at least two groups must not be empty.

    Returns:
        (...), such that its root times `t_quantile` of the groups is the wider half-width.
    """
    normal = NormalDist().inv_cdf(0.975) / t_quantile(int((images_G > 0).sum()) - 1)
    return np.maximum(variance, normal**2 * over_images)


@functools.cache
def t_quantile(degrees: int, central: float = 0.95) -> float:
    """Return the half-width of the central interval of Student's t, in standard errors.

    Args:
        degrees: degrees of freedom, at least 1.
        central: probability inside the interval.

    Source:
        Abramowitz & Stegun 26.7.3 and 26.7.4 (finite sums), inverted by bisection.

    >>> round(t_quantile(31), 4)
    2.0395
    """
    low, high = 0.0, 1.0
    while _central_probability(high, degrees) < central:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if _central_probability(middle, degrees) < central:
            low = middle
        else:
            high = middle
    return high


def _central_probability(t: float, degrees: int) -> float:
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1, degrees // 2 + 1):
        total += term
        term *= cosine**2 * (2 * k - 1 + odd) / (2 * k + odd)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
