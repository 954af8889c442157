"""Detectors of what a training curve does, each with its evidence; None where there is too little data.

Series are finite numbers in the order of training. The rates in the docstrings are of simulations, in
tests/unit/test_detectors.py; phi is the first-order autocorrelation of the noise.
"""

import math
from dataclasses import dataclass

import numpy as np

from entropy_cli.functional.noise import (
    BINS,
    bin_error,
    bin_medians,
    inflation,
    mann_kendall,
    noise,
    thinned,
)

BLOCKS, LEAST_BLOCKS = 20, 8
LEAST_EVALUATIONS, LAST_EVALUATIONS = 10, 3
LEAST_POINTS = 10
SIGMAS, FLOOR_SIGMAS, TREND = 6, 4, 2.33
LEAST_RISE = 0.02  # of the fall since the start
EXPLODED = 10  # times the gradient norm of before


@dataclass(frozen=True)
class Plateau:
    """What the last quarter of a run promises for a span as long.

    Attributes:
        fires: whether even an optimistic gain is below the tolerance.
        gain: how much the loss would fall, negative if it rises; `upper` is two errors above it.
        start: index of the first point of the span.
        correlation: of neighbouring blocks.
    """

    fires: bool
    gain: float
    error: float
    upper: float
    tolerance: float
    start: int
    correlation: float


def plateau(value_n: np.ndarray, tolerance: float) -> Plateau | None:
    """Whether the last quarter of a run is so flat that as much again would gain nothing.

    Means of 20 blocks, the slope by least squares, its error widened for the autocorrelation of what
    is left: conservative, so that a noisy run is rather called falling.
    """
    start = len(value_n) - len(value_n) // 4
    last_n = value_n[start:]
    blocks = min(BLOCKS, len(last_n))
    if blocks < LEAST_BLOCKS:
        return None
    mean_b = np.array([block.mean() for block in np.array_split(last_n, blocks)])
    time_b = np.arange(blocks) - (blocks - 1) / 2
    slope = float(time_b @ mean_b / (time_b @ time_b))
    rest_b = mean_b - mean_b.mean() - slope * time_b
    squares = float(rest_b @ rest_b)
    correlation = float(np.clip(rest_b[1:] @ rest_b[:-1] / squares, 0, 0.99)) if squares else 0.0
    error = math.sqrt(squares / (blocks - 2) / float(time_b @ time_b)) * inflation(correlation)
    gain, error = -slope * blocks, error * blocks
    upper = gain + 2 * error
    return Plateau(upper < tolerance, gain, error, upper, tolerance, start, correlation)


@dataclass(frozen=True)
class Overfitting:
    """The validation loss since its best.

    Attributes:
        best: the lowest, at index `at`; `last` is the lowest of the last evaluations.
        sigma: noise of an evaluation.
        train_best: the training loss at the same place, and at the end.
    """

    fires: bool
    best: float
    at: int
    last: float
    sigma: float
    train_best: float
    train_last: float


def overfitting(val_n: np.ndarray, train_n: np.ndarray) -> Overfitting | None:
    """Whether the last three evaluations are worse than the best while training got better.

    Args:
        val_n: true validation losses, at least ten.
        train_n: the training loss at the same places.
    """
    if len(val_n) < LEAST_EVALUATIONS:
        return None
    at = int(np.argmin(val_n))
    sigma, best = noise(val_n), float(val_n[at])
    last = float(val_n[-LAST_EVALUATIONS:].min())
    fires = last > best + 3 * sigma and at < len(val_n) - LAST_EVALUATIONS
    fires = fires and bool(train_n[-1] < train_n[at])
    return Overfitting(fires, best, at, last, sigma, float(train_n[at]), float(train_n[-1]))


@dataclass(frozen=True)
class Rebound:
    """What a loss did after its lowest bin.

    Attributes:
        minimum: median of the lowest of 30 bins, whose middle is at index `at`.
        last: median of the last three bins, above the minimum by `rise`.
        error: standard error of a bin's median.
        trend: Mann-Kendall's z of the bins from the lowest on.
        fall: from the first bin to the lowest.
    """

    fires: bool
    minimum: float
    at: int
    last: float
    rise: float
    error: float
    trend: float
    fall: float


def rebound(value_n: np.ndarray) -> Rebound | None:
    """Whether a loss has risen since its minimum, beyond noise, and to stay."""
    bins = _Bins.of(value_n)
    if bins is None:
        return None
    minimum, last = float(bins.median_b[bins.lowest]), float(np.median(bins.median_b[-3:]))
    rise, fall = last - minimum, float(bins.median_b[0]) - minimum
    trend = mann_kendall(bins.median_b[bins.lowest :])
    fires = (
        bins.lowest <= len(bins.median_b) - 4
        and rise > SIGMAS * bins.error
        and rise > LEAST_RISE * fall
        and trend > TREND
    )
    return Rebound(fires, minimum, bins.middle(bins.lowest), last, rise, bins.error, trend, fall)


def falls(value_n: np.ndarray, start: int) -> bool:
    """Whether a series falls from an index on: a regulariser, while the loss rises."""
    median_b, _ = bin_medians(value_n[start:])
    return mann_kendall(median_b) < -TREND


@dataclass(frozen=True)
class Drop:
    """A bin that lies far below the one before, at index `at`, after a rise since the minimum."""

    at: int
    before: float
    after: float
    size: float
    rise: float
    error: float


def sudden_drops(value_n: np.ndarray) -> list[Drop]:
    """Bins that fall by more than six errors and by more than half of the rise before them."""
    bins = _Bins.of(value_n)
    if bins is None:
        return []
    median_b, drops, low = bins.median_b, [], 0
    peak = float(median_b[0])
    for i in range(1, len(median_b)):
        if median_b[i - 1] < median_b[low]:
            low, peak = i - 1, float(median_b[i - 1])
        peak = max(peak, float(median_b[i - 1]))
        rise, size = peak - float(median_b[low]), float(median_b[i - 1] - median_b[i])
        fall = float(median_b[0] - median_b[low])
        rebounded = low > 0 and rise > SIGMAS * bins.error and rise > LEAST_RISE * fall
        if rebounded and size > SIGMAS * bins.error and size > rise / 2:
            before, after = float(median_b[i - 1]), float(median_b[i])
            drops.append(Drop(bins.middle(i), before, after, size, rise, bins.error))
            peak = after  # a further one needs a further rise
    return drops


@dataclass(frozen=True)
class _Bins:
    """Medians of bins, after thinning; where they begin in the series as it was given."""

    median_b: np.ndarray
    start_b: np.ndarray
    error: float
    lowest: int

    @classmethod
    def of(cls, value_n: np.ndarray) -> "_Bins | None":
        kept_n, step = thinned(value_n)
        if len(kept_n) < LEAST_POINTS:
            return None
        median_b, start_b = bin_medians(kept_n)
        points = max(1, len(kept_n) // len(median_b))
        return cls(median_b, start_b * step, bin_error(kept_n, points), int(np.argmin(median_b)))

    def middle(self, number: int) -> int:
        return int(self.start_b[number] + self.start_b[number + 1] - 1) // 2


@dataclass(frozen=True)
class Divergence:
    """The last tenth of a run against its first value; `excess` is the difference."""

    fires: bool
    first: float
    last: float
    excess: float
    error: float


def divergence(value_n: np.ndarray) -> Divergence | None:
    """Whether a loss ends above where it began."""
    if len(value_n) < LEAST_POINTS:
        return None
    tenth_n = value_n[-max(1, len(value_n) // 10) :]
    first, last = float(value_n[0]), float(np.median(tenth_n))
    error = math.hypot(noise(value_n), bin_error(value_n, len(tenth_n)))
    return Divergence(last - first > SIGMAS * error, first, last, last - first, error)


@dataclass(frozen=True)
class Growth:
    """A gradient norm at its end against its middle half; `trend` is of the last third."""

    fires: bool
    middle: float
    last: float
    trend: float


def unbounded_growth(norm_n: np.ndarray) -> Growth | None:
    """Whether a gradient norm is ten times that of the middle of the run and still grows."""
    if len(norm_n) < BINS:
        return None
    quarter = len(norm_n) // 4
    middle = float(np.median(norm_n[quarter:-quarter]))
    last = float(np.median(norm_n[-max(1, len(norm_n) // 10) :]))
    trend = mann_kendall(bin_medians(norm_n)[0][-BINS // 3 :])
    return Growth(last > EXPLODED * middle > 0 and trend > TREND, middle, last, trend)


@dataclass(frozen=True)
class Beyond:
    """How far a run lies below a floor, or above a ceiling: `sigmas` of its error and the floor's."""

    fires: bool
    value: float
    limit: float
    distance: float
    sigmas: float


def below(value_n: np.ndarray, limit: float, limit_error: float = 0.0) -> Beyond | None:
    """Whether the lowest stretch of a run, a tenth of it, lies below a limit by more than 4 sigma."""
    if not len(value_n):
        return None
    median_b, _ = bin_medians(value_n, 10)
    lowest = float(median_b.min())
    error = math.hypot(bin_error(value_n, max(1, len(value_n) // 10)), limit_error)
    return _beyond(lowest, limit, limit - lowest, error)


def above(value_n: np.ndarray, limit: float, limit_error: float = 0.0) -> Beyond | None:
    """Whether the last tenth of a run lies above a limit by more than 4 sigma."""
    if not len(value_n):
        return None
    tenth_n = value_n[-max(1, len(value_n) // 10) :]
    last = float(np.median(tenth_n))
    error = math.hypot(bin_error(value_n, len(tenth_n)), limit_error)
    return _beyond(last, limit, last - limit, error)


def _beyond(value: float, limit: float, distance: float, error: float) -> Beyond:
    sigmas = distance / error if error else math.copysign(999.0, distance)
    return Beyond(distance > FLOOR_SIGMAS * error and distance > 0, value, limit, distance, sigmas)


def power_law(position_n: np.ndarray, value_n: np.ndarray) -> tuple[float, float] | None:
    """Exponent of a positive series as a power of its position, and its standard error.

    Least squares through the medians of bins of equal ratio, the error widened for the
    autocorrelation of what is left. None for less than a factor of 4 or 8 bins, or where the series
    is not positive.
    """
    if len(value_n) < LEAST_BLOCKS or position_n[0] <= 0 or position_n[-1] < 4 * position_n[0]:
        return None
    edge_b = np.geomspace(position_n[0], position_n[-1], BLOCKS + 1)
    bin_n = np.clip(np.searchsorted(edge_b, position_n, "right") - 1, 0, BLOCKS - 1)
    used = [b for b in range(BLOCKS) if (bin_n == b).any()]
    median_b = np.array([np.median(value_n[bin_n == b]) for b in used])
    if len(used) < LEAST_BLOCKS or median_b.min() <= 0:
        return None
    x_b = np.array([np.log(position_n[bin_n == b]).mean() for b in used])
    x_b, y_b = x_b - x_b.mean(), np.log(median_b)
    slope = float(x_b @ y_b / (x_b @ x_b))
    rest_b = y_b - y_b.mean() - slope * x_b
    squares = float(rest_b @ rest_b)
    correlation = float(np.clip(rest_b[1:] @ rest_b[:-1] / squares, 0, 0.99)) if squares else 0.0
    return slope, math.sqrt(squares / (len(used) - 2) / float(x_b @ x_b)) * inflation(correlation)
