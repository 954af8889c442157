"""Measure the noise of a training curve: its size, its autocorrelation, bin medians and their errors.

All functions take a finite one-dimensional float64 series of any length, in order of training.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entropy_cli.core.errors import ShapeError

Series = NDArray[np.float64]

MAD_TO_SD = 1.4826  # for a Gaussian
MEDIAN_TO_MEAN_ERROR = 1.2533  # sqrt(pi / 2): ratio of their standard errors for a large Gaussian sample
BINS = 30
MIN_POINTS = 10  # fewer show no trend
MOST_DECIMALS = 6  # of printed values; more are exact
THIN_ABOVE = 0.95  # autocorrelation above which a series is thinned
SEGMENTS, MIN_SEGMENT, DEGREE = 10, 100, 3


@dataclass(frozen=True)
class Bins:
    """Medians of consecutive bins of nearly equal length, in the units of the series."""

    median_B: Series
    bounds_C: NDArray[np.int64]  # first row of each bin in the series, then its length; C = B + 1
    # Standard error of a bin's median: at least 1.2533 noise / sqrt(rows), and at least the scatter of
    # the bins, because the former is far too small for autocorrelated noise.
    se: float
    rows_per_bin: int  # in the smallest bin, after thinning
    thinned_by: int  # rows of the series per row after thinning; 1 without thinning

    def rows(self, i: int) -> tuple[int, int]:
        """Return the first row of a bin, and the row after its last."""
        return int(self.bounds_C[i]), int(self.bounds_C[i + 1])

    def last_tenth(self, y_n: Series) -> tuple[int, float, float]:
        """Return the first row of the last tenth of the series, its median, and the error of that."""
        points = max(len(y_n) // 10, 1)
        first, rows_per_bin = len(y_n) - points, len(y_n) / len(self.median_B)
        return first, float(np.median(y_n[first:])), self.se * (rows_per_bin / points) ** 0.5


def validate(y_n: Series) -> Series:
    """Return the series as float64.

    Raises:
        ShapeError: not one-dimensional.
        ValueError: a value is NaN or infinite.
    """
    y_n = np.asarray(y_n, dtype=np.float64)
    if y_n.ndim != 1:
        raise ShapeError(f"series: got shape {y_n.shape}, expected one dimension")
    if not np.isfinite(y_n).all():
        raise ValueError("series: got NaN or infinity, expected finite values. Remove these rows first.")
    return y_n


def noise(y_n: Series) -> float:
    """Estimate the standard deviation of white noise in a series, in its units; 0 below four points.

    1.4826 MAD(second difference) / sqrt(6), insensitive to slow trends and rare spikes. It
    underestimates autocorrelated noise. If rounding makes more than half of the second differences
    equal, it is the smaller of the rounding step / sqrt(12) and their standard deviation / sqrt(6).

    Source:
        Second differences: Gasser, Sroka & Jennen-Steinmetz (1986), Biometrika 73(3), 625-633.
    """
    y_n = validate(y_n)
    if len(y_n) < 4:
        return 0.0
    second_n = np.diff(y_n, 2)
    mad = float(np.median(np.abs(second_n - np.median(second_n))))
    if mad > _rounding(y_n):
        return MAD_TO_SD * mad / 6**0.5
    gap_n = np.abs(np.diff(y_n))
    steps = gap_n[gap_n > _rounding(y_n)]
    if not steps.size or second_n.std() <= _rounding(y_n):
        return 0.0
    return min(float(steps.min()) / 12**0.5, float(second_n.std()) / 6**0.5)


def noise_above_rounding(y_n: Series) -> float | None:
    """Estimate the noise of a series; None if it is below the step of its printed values."""
    sigma, gap_n = noise(y_n), np.diff(np.unique(y_n))
    gap_n = gap_n[gap_n > _rounding(y_n)]
    return sigma if gap_n.size and sigma >= gap_n.min() else None


def hidden_by_rounding(y_n: Series) -> float:
    """Return how far a curve may move between two printed values: their step, or 0 if noise shows it.

    >>> hidden_by_rounding(np.array([2.6, 2.5, 2.5, 2.5]))
    0.1
    """
    for decimals in range(MOST_DECIMALS):
        digits_n = y_n * 10.0**decimals
        if (np.abs(digits_n - np.round(digits_n)) < 1e-6).all():
            step = 10.0**-decimals
            return step if noise(y_n) < step and np.ptp(y_n) > 0 else 0.0
    return 0.0


def _rounding(y_n: Series) -> float:
    """Return the rounding error of second differences of a straight line in float64."""
    return 8 * float(np.finfo(np.float64).eps) * float(np.abs(y_n).max())


def autocorrelation(y_n: Series) -> float:
    """Estimate the lag-1 autocorrelation of the noise, in [-0.99, 0.9999]; 0 below ten points.

    The median over up to ten consecutive segments, each detrended by its own cubic (one curve through
    the whole run would take the steep first part for noise), with a first-order correction for the bias
    of detrending.

    Source:
        Kendall (1954), Biometrika 41, 403-404; for a fitted line -(2 + 4 phi) / n, Sawa (1978),
        Journal of Econometrics 8, 159-172.
    """
    y_n = validate(y_n)
    if len(y_n) < MIN_POINTS:
        return 0.0
    segments = min(max(len(y_n) // MIN_SEGMENT, 1), SEGMENTS)
    length = len(y_n) // segments
    residual_Sn = y_n[len(y_n) - segments * length :].reshape(segments, length)
    residual_Sn = residual_Sn - residual_Sn[:, :1]
    basis_nk, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, length), DEGREE + 1))
    residual_Sn = residual_Sn - (residual_Sn @ basis_nk) @ basis_nk.T
    square_S = (residual_Sn**2).sum(1)
    varying_S = square_S > length * _rounding(y_n) ** 2
    if not varying_S.any():
        return 0.0
    product_S = (residual_Sn[:, 1:] * residual_Sn[:, :-1]).sum(1)
    phi = float(np.median(product_S[varying_S] / square_S[varying_S]))
    return float(np.clip(phi + (DEGREE + 1 + (DEGREE + 3) * phi) / length, -0.99, 0.9999))


def thin(y_n: Series) -> tuple[Series, NDArray[np.int64]]:
    """Reduce a series to one median per autocorrelation time if phi > 0.95; else return it unchanged.

    Returns:
        The medians, and the first row of each in the series followed by its length.
    """
    y_n = validate(y_n)
    phi = autocorrelation(y_n)
    return block_medians(y_n, len(y_n) if phi <= THIN_ABOVE else _effective_rows(y_n, phi, len(y_n)))


def _effective_rows(y_n: Series, phi: float, most: int) -> int:
    """Return the effective number of independent rows, from ten to `most`: a smooth curve has none."""
    rows_per_independent = max((1 + phi) / (1 - phi), 1.0)
    return min(most, max(int(len(y_n) / rows_per_independent), min(MIN_POINTS, len(y_n))))


def block_medians(y_n: Series, bins: int) -> tuple[Series, NDArray[np.int64]]:
    """Return the medians of `bins` consecutive parts, longer parts first, and their bounds."""
    if bins >= len(y_n):
        return y_n, np.arange(len(y_n) + 1)
    size, longer = divmod(len(y_n), bins)
    middle = longer * (size + 1)
    parts = (y_n[:middle].reshape(longer, size + 1), y_n[middle:].reshape(bins - longer, size))
    median_B = np.concatenate([np.median(part, axis=1) for part in parts if part.size])
    sizes_B = np.where(np.arange(bins) < longer, size + 1, size)
    return median_B, np.concatenate([[0], np.cumsum(sizes_B)])


def bin_medians(y_n: Series, bins: int = BINS) -> Bins | None:
    """Return the medians of up to `bins` bins, after thinning; None below ten rows.

    A bin is at least one autocorrelation time long. Short, strongly autocorrelated series have fewer
    bins, but at least ten.
    """
    y_n = validate(y_n)
    if len(y_n) < MIN_POINTS:
        return None
    row_n, start_n = thin(y_n)
    phi = autocorrelation(row_n)
    median_B, bounds_C = block_medians(row_n, _effective_rows(row_n, phi, bins))
    rows_per_bin = len(row_n) // len(median_B)
    se = max(MEDIAN_TO_MEAN_ERROR * noise(row_n) / rows_per_bin**0.5, scatter(median_B))
    return Bins(median_B, start_n[bounds_C], se, rows_per_bin, -(-len(y_n) // len(row_n)))


def scatter(median_B: Series) -> float:
    """Estimate the standard deviation of some tens of bins about a slow trend.

    From second differences as in `noise`, but by the root mean square of those within four standard
    deviations: with so few bins the median absolute deviation alone is too rough.
    """
    sigma = noise(median_B)
    if sigma == 0:
        return 0.0
    second_B = np.diff(median_B, 2)
    second_B = second_B - np.median(second_B)
    kept_B = second_B[np.abs(second_B) <= 4 * sigma * 6**0.5]
    return float((kept_B**2).mean() / 6) ** 0.5


def spread(y_n: Series) -> float:
    """Estimate the standard deviation of a point about the trend, autocorrelation included.

    Combines the deviations within bins from the line through their medians with the scatter of the bins.
    """
    y_n = validate(y_n)
    if len(y_n) < MIN_POINTS:
        return noise(y_n)
    median_B, bounds_C = block_medians(y_n, min(BINS, len(y_n) // 3))
    middle_B = (bounds_C[1:] + bounds_C[:-1] - 1) / 2
    row_n = np.arange(int(middle_B[0]), int(middle_B[-1]) + 1)
    residual_n = y_n[row_n] - np.interp(row_n, middle_B, median_B)
    within = MAD_TO_SD * float(np.median(np.abs(residual_n - np.median(residual_n))))
    return max(float(np.hypot(within, scatter(median_B))), noise(y_n))


def mann_kendall(y_n: Series) -> float:
    """Return the Mann-Kendall z of a trend (positive: rising), with ties and continuity correction.

    It compares all pairs: meant for up to a few hundred points.

    Source:
        Kendall, Rank Correlation Methods (1975); Gilbert, Statistical Methods for Environmental
        Pollution Monitoring (1987), eq. 16.2 to 16.4.
    """
    n = len(y_n)
    score = float(np.triu(np.sign(y_n[None, :] - y_n[:, None]), 1).sum())
    _, ties = np.unique(y_n, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    return 0.0 if variance <= 0 else float((score - np.sign(score)) / variance**0.5)
