"""Noise and trend of a series of numbers: what a detector needs to tell one from the other."""

import math
from itertools import pairwise

import numpy as np

MEDIAN_ERROR = 1.2533  # sqrt(pi / 2): the standard error of a median over that of a mean
BINS = 30
AUTOCORRELATED = 0.95  # above, a series is thinned before it is looked at


def noise(value_n: np.ndarray) -> float:
    """Standard deviation of a point about a smooth curve, by second differences.

    Args:
        value_n: finite, in order.

    Returns:
        In the unit of the values; 0 for fewer than three. Where most second differences are equal, as
        with rounded values, the median says nothing and their standard deviation is taken.

    Source:
        Gasser et al., Biometrika 73, 1986, eq. 2.1, with the median absolute deviation for the mean.

    >>> round(noise(np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])), 3)      # second differences -+ 2
    1.211
    """
    second_n = np.diff(value_n, n=2)
    if not len(second_n):
        return 0.0
    return _spread(second_n) / math.sqrt(6)


def _spread(value_n: np.ndarray) -> float:
    """Standard deviation, by the median absolute deviation if that is not 0."""
    median = np.median(value_n)
    return 1.4826 * float(np.median(np.abs(value_n - median))) or float(value_n.std())


def autocorrelation(value_n: np.ndarray) -> float:
    """Correlation of neighbouring deviations from a smooth curve, in [0, .999].

    The larger of two estimates: of what is left beside the medians of bins, which sees too little of
    what lasts longer than a bin, and 3 minus the ratio of the variances of second and first
    differences, which is exact for a first-order autoregression on any slow trend.
    """
    median_b, start_b = bin_medians(value_n)
    if len(median_b) == len(value_n):
        return 0.0
    centre_b = (start_b[:-1] + start_b[1:] - 1) / 2
    rest_n = value_n - np.interp(np.arange(len(value_n)), centre_b, median_b)
    total = float(rest_n @ rest_n)
    beside = float(rest_n[1:] @ rest_n[:-1] / total) if total else 0.0
    first, second = (_spread(np.diff(value_n, n=order)) for order in (1, 2))
    differences = 3 - (second / first) ** 2 if first else 0.0
    return float(np.clip(max(beside, differences), 0, 0.999))


def inflation(correlation: float) -> float:
    """How many times larger the error of a mean is than it were without autocorrelation.

    >>> inflation(0.0), round(inflation(0.8), 9)
    (1.0, 3.0)
    """
    return math.sqrt((1 + correlation) / (1 - correlation))


def thinned(value_n: np.ndarray) -> tuple[np.ndarray, int]:
    """One value for each autocorrelation time, where that is long; and how many steps it stands for."""
    correlation = autocorrelation(value_n)
    if correlation <= AUTOCORRELATED:
        return value_n, 1
    step = round(inflation(correlation) ** 2)
    return value_n[step - 1 :: step], step


def bin_medians(value_n: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """Medians of bins of equal length, and the indices where these begin, the end included."""
    start_b = np.linspace(0, len(value_n), min(bins, len(value_n)) + 1).astype(np.int64)
    return np.array([np.median(value_n[start:end]) for start, end in pairwise(start_b)]), start_b


def bin_error(value_n: np.ndarray, points: int) -> float:
    """Standard error of the median of so many neighbouring points.

    Where neighbours are correlated, second differences see too little of the noise, and the median of
    a bin has a larger error than its number of points says: both are put right for a first-order
    autoregression.
    """
    correlation = autocorrelation(value_n)
    hidden = math.sqrt((1 - correlation) * (3 - correlation) / 3)  # of the noise, in second differences
    sigma = noise(value_n) / hidden
    return MEDIAN_ERROR * sigma * inflation(correlation) / math.sqrt(points)


def mann_kendall(value_n: np.ndarray) -> float:
    """Z of the trend: positive where later values tend to be larger; 0 for fewer than three.

    Source:
        Mann, Econometrica 13, 1945, eq. 2 and 9; without ties.
    """
    n = len(value_n)
    if n < 3:
        return 0.0
    later = np.sign(value_n[None, :] - value_n[:, None])
    total = float(np.triu(later, 1).sum())
    return (
        (total - math.copysign(1, total)) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18) if total else 0.0
    )
