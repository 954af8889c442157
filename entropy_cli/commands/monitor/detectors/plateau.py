"""Detect plateaus and losses that never moved, and fit the power law of a reducible loss.

Series are one-dimensional, finite, float64, in order of training.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import (
    BINS,
    MEDIAN_TO_MEAN_ERROR,
    Series,
    bin_medians,
    hidden_by_rounding,
    mann_kendall,
    spread,
    validate,
)
from entropy_cli.core.errors import ShapeError

BLOCKS, MIN_BLOCKS = 20, 8
LAST_SHARE = 0.25
TOLERANCE = 0.005  # nats per quarter of the run
MIN_RANGE = 4.0  # of x, from the first to the last bin of a power law
MIN_POINTS = MIN_BLOCKS * 4  # fewer say nothing of a plateau
STILL_SHARES = (2, 4, 8)  # a standstill lasts from a half, a quarter or an eighth of the run to its end
STILL = 0.1  # gain of a standstill beside that of a window before it, as long in log time
SIX = 6.0  # standard errors
UNMOVED = 0.02  # of its level: the range of a loss that never moved
NOISE_SPANS, VISIBLE = 5.5, 0.08  # standard errors of a bin; of its level
TREND_Z = 2.33  # one-sided 1 %


@dataclass(frozen=True)
class Plateau:
    """Result of `plateau`: the projected gain of a run that is a quarter longer."""

    fires: bool  # gain < tolerance, at its upper bound; also true of a rising curve
    rising: bool  # the gain is below -tolerance and its upper bound below 0
    gain: float  # projected fall over another quarter, in units of the curve; negative if it rises
    gain_error: float  # its standard error, autocorrelation of the blocks included
    tolerance: float  # a gain below it is not worth the time
    first: int  # row where the last quarter begins
    points: int  # its length
    blocks: int  # number of block means in the fit


@dataclass(frozen=True)
class Line:
    """Slope of a fitted line, its standard error, and the lag-1 autocorrelation of the residuals."""

    slope: float
    se: float
    rho: float


def plateau(y_n: Series, tolerance: float = TOLERANCE) -> Plateau | None:
    """Test whether the last 25 % have stopped falling; None below 32 points.

    A least-squares line through the means of 20 blocks (at least 8 in short curves), its standard error
    times sqrt((1 + rho) / (1 - rho)), with rho of the residuals corrected for the bias of the fit. What
    the rounding of printed values may hide is added to the upper bound. Of
    1000 runs of 4000 points with noise AR(1), phi 0/.9/.98: fires on curves that still fall .01 per
    last quarter in .003/.009/.029 at noise .05 (.02/.023/.037 at noise .2), and on flat ones in
    1.0/.50/.19 at noise .005.
    """
    y_n = validate(y_n)
    if len(y_n) < MIN_POINTS:
        return None
    first = len(y_n) - int(len(y_n) * LAST_SHARE)
    gain, error, bound_errors, blocks = projected_gain(y_n[first:])
    highest = gain + bound_errors * error + hidden_by_rounding(y_n)
    fires, rising = highest < tolerance, gain < -tolerance and highest < 0
    return Plateau(fires, rising, gain, error, tolerance, first, len(y_n) - first, blocks)


def projected_gain(y_n: Series) -> tuple[float, float, float, int]:
    """Return what another window like this one would gain, by a line through its block means.

    Returns:
        The gain, its standard error, the standard errors in its upper bound (2 with 20 blocks, slightly
        more with fewer), and the blocks.
    """
    points = len(y_n)
    blocks = min(BLOCKS, points)
    bounds_C = np.arange(blocks + 1) * points // blocks
    # Sums of differences keep the digits of a nearly constant curve.
    mean_B = np.add.reduceat(y_n - y_n[0], bounds_C[:-1]) / np.diff(bounds_C)
    line = _fit_line((bounds_C[1:] + bounds_C[:-1]) / 2, mean_B)
    # Student's to the Gaussian quantile at two sigma, to first order, relative to that of 20 blocks.
    bound_errors = 2 * (1 + 1.25 / (blocks - 2)) / (1 + 1.25 / (BLOCKS - 2))
    return 0.0 - line.slope * points, line.se * points, bound_errors, blocks


@dataclass(frozen=True)
class Standstill:
    """Result of `standstill`: a window to the end of the run in which the curve hardly falls."""

    fires: bool  # gain < a tenth of the least `earlier`, at its upper bound
    first: int  # row where the window begins
    before: int  # row where the window before it begins, which is as long in log time
    gain: float  # projected fall over another window, in units of the curve; negative if it rises
    gain_error: float  # its standard error
    earlier: float  # fall over the window before


def standstill(y_n: Series) -> Standstill | None:
    """Test whether the curve stands still, beside what it fell over as long in log time before.

    The windows last from 1/2, 1/4 or 1/8 of the run to its end; the longest that stands still counts.
    It needs no tolerance, so that it fires at any noise that is small beside the earlier fall, where
    `plateau` would need more points. None below 32 points. Of 200 runs each of 60 to 4000 points, noise
    .005 to .2 and AR(1), phi 0/.9/.98: fires on 5 + 3 t^-b with b up to .5 in at most .005, on b = 1,
    which ends .003 above its limit, in at most .08; on a fall of 3 in the first third that ends there,
    4000 points, noise .05, in 1.0/.97/.40 (`plateau` in .13/.04/.05).
    """
    y_n = validate(y_n)
    if len(y_n) < MIN_POINTS:
        return None
    found = [_still_window(y_n, share) for share in STILL_SHARES if len(y_n) >= 8 * share**2]
    return next((one for one in reversed(found) if one.fires), found[0])


def _still_window(y_n: Series, share: int) -> Standstill:
    first, before = len(y_n) // share, len(y_n) // share**2
    gain, error, bound_errors, _ = projected_gain(y_n[first:])
    rows = max(before // 4, 1)  # on either side of the start of the window before
    around_n = y_n[before - rows : before + rows + 1]
    earlier = float(np.median(around_n) - (y_n[first:].mean() + gain / 2))
    earlier_error = spread(y_n) * MEDIAN_TO_MEAN_ERROR / (2 * rows + 1) ** 0.5
    least = earlier - bound_errors * float(np.hypot(earlier_error, error))
    highest = gain + bound_errors * error + hidden_by_rounding(y_n)
    fires = highest < STILL * least and gain > -STILL * least
    return Standstill(fires, first, before, gain, error, earlier)


@dataclass(frozen=True)
class NeverMoved:
    """Result of `never_moved`, in units of the curve."""

    fires: bool  # neither fell nor rose beyond its noise: see the function
    start: float  # median of the first bin
    last: float  # median of the last three bins
    fall: float  # from the higher of the first bin and the first three points down to the lowest bin
    noise: float  # standard deviation of a point


def never_moved(y_n: Series) -> NeverMoved | None:
    """Test whether a curve is flat from its first to its last point; None below 32 points.

    Its bins lie within 2 % of its level; or they scatter as noise does (30 of them span 4 standard
    errors), show no trend, and would show a fall by 8 %. Fires on flat curves of white noise of 2 % of
    their level in .95 of 400 points and .99 of 1300 (of .5 %, from 100 points on, in .99), and on none
    that fell by 3 % along a line. Zeros are no such loss, but a part of one that is switched off.
    """
    binned = bin_medians(y_n) if len(y_n) >= MIN_POINTS else None
    if binned is None:
        return None
    median_B, sigma = binned.median_B, spread(y_n)
    start, last = float(median_B[0]), float(np.median(median_B[-3:]))
    early, lowest = float(np.median(y_n[:3])), float(median_B.min())
    needed = SIX * max(binned.se * 2**0.5, sigma * (early > start))
    fall, spans = max(start, early) - lowest, float(np.ptp(median_B))
    visible, level = SIX * binned.se * 2**0.5, abs(start)
    is_flat = fall <= needed and last - start <= visible and start != 0
    is_noise = len(median_B) == BINS and spans <= NOISE_SPANS * binned.se and visible <= VISIBLE * level
    fires = is_flat and (
        max(spans, fall) <= UNMOVED * level or (is_noise and abs(mann_kendall(median_B)) < TREND_Z)
    )
    return NeverMoved(fires, start, last, fall, sigma)


def _fit_line(x_B: Series, y_B: Series) -> Line:
    x_B = x_B - x_B.mean()
    y_B = y_B - y_B.mean()
    square = float(x_B @ x_B)
    slope = float(x_B @ y_B) / square
    residual_B = y_B - slope * x_B
    squares = float(residual_B @ residual_B)
    if squares <= 0:
        return Line(slope, 0.0, 0.0)
    rho = float(residual_B[1:] @ residual_B[:-1]) / squares
    rho = rho + (2 + 4 * rho) / len(y_B)  # first-order bias of the fit
    rho = min(max(rho, 0.0), 0.99)
    error = (squares / (len(y_B) - 2) / square * (1 + rho) / (1 - rho)) ** 0.5
    return Line(slope, error, rho)


def power_law_slope(x_n: Series, reducible_n: Series) -> Line | None:
    """Fit the slope of log(reducible loss) against log(x), to medians of bins of equal width in log x.

    x is the training time of each point, ascending; points at x <= 0 are ignored. None if fewer than
    eight bins hold points, if x spans less than a factor of four, or if the median of any bin is at or
    below zero, because the curve then meets its floor.

    Raises:
        ShapeError: the two differ in length.
        ValueError: x is not ascending.
    """
    x_n, reducible_n = validate(x_n), validate(reducible_n)
    if len(x_n) != len(reducible_n):
        raise ShapeError(f"got {len(reducible_n)} losses at {len(x_n)} steps, expected one each")
    if (np.diff(x_n) < 0).any():
        raise ValueError("got steps out of order, expected ascending steps")
    reducible_n, x_n = reducible_n[x_n > 0], x_n[x_n > 0]
    if len(x_n) < MIN_BLOCKS or x_n[-1] < MIN_RANGE * x_n[0]:
        return None
    edges_C = np.searchsorted(x_n, np.geomspace(x_n[0], x_n[-1], BLOCKS + 1)[1:-1])
    bounds_C = np.unique(np.concatenate([[0], edges_C, [len(x_n)]]))
    parts = [slice(*pair) for pair in pairwise(bounds_C)]
    x_B = np.array([np.median(x_n[part]) for part in parts])
    median_B = np.array([np.median(reducible_n[part]) for part in parts])
    if len(parts) < MIN_BLOCKS or median_B.min() <= 0 or x_B[-1] < MIN_RANGE * x_B[0]:
        return None
    return _fit_line(np.log(x_B), np.log(median_B))
