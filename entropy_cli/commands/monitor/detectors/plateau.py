"""Detect plateaus and overfitting, and fit the power law of a reducible loss.

Series are one-dimensional, finite, float64, in order of training.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import Series, scatter, validate
from entropy_cli.core.errors import ShapeError

BLOCKS, MIN_BLOCKS = 20, 8
LAST_SHARE = 0.25
TOLERANCE = 0.005  # nats per quarter of the run
MIN_EVALUATIONS, LAST_EVALUATIONS = 10, 3
MEDIANS_DIFFERENCE = 0.947  # standard error of the difference of two medians of three Gaussians
MIN_RANGE = 4.0  # of x, from the first to the last bin of a power law


@dataclass(frozen=True)
class Plateau:
    """Result of `plateau`: the projected gain of a run that is a quarter longer."""

    fires: bool  # gain + bound_errors * gain_error < tolerance; also true of a rising curve
    rising: bool  # the gain is below -tolerance and its upper bound below 0
    gain: float  # projected fall over another quarter, in units of the curve; negative if it rises
    gain_error: float  # its standard error, autocorrelation of the blocks included
    bound_errors: float  # standard errors in the bound; 2 with 20 blocks, slightly more with fewer
    tolerance: float  # a gain below it is not worth the time
    first: int  # row where the last quarter begins
    points: int  # its length
    blocks: int  # number of block means in the fit
    rho: float  # lag-1 autocorrelation of their residuals, at least 0


@dataclass(frozen=True)
class Line:
    """Slope of a fitted line, its standard error, and the lag-1 autocorrelation of the residuals."""

    slope: float
    se: float
    rho: float


def plateau(y_n: Series, tolerance: float = TOLERANCE) -> Plateau | None:
    """Test whether the last 25 % have stopped falling; None below 32 points.

    A least-squares line through the means of 20 blocks (at least 8 in short curves), its standard error
    times sqrt((1 + rho) / (1 - rho)), with rho of the residuals corrected for the bias of the fit. Of
    1000 runs of 4000 points with noise AR(1), phi 0/.9/.98: fires on curves that still fall .01 per
    last quarter in .003/.009/.029 at noise .05 (.02/.023/.037 at noise .2), and on flat ones in
    1.0/.50/.19 at noise .005.
    """
    y_n = validate(y_n)
    points = int(len(y_n) * LAST_SHARE)
    blocks = min(BLOCKS, points)
    if blocks < MIN_BLOCKS:
        return None
    first = len(y_n) - points
    bounds_C = np.arange(blocks + 1) * points // blocks
    size_B = np.diff(bounds_C)
    level = y_n[first]  # sums of differences keep the digits of a nearly constant curve
    mean_B = np.add.reduceat(y_n[first:] - level, bounds_C[:-1]) / size_B
    line = _fit_line((bounds_C[1:] + bounds_C[:-1]) / 2, mean_B)
    gain, error = 0.0 - line.slope * points, line.se * points
    # Student's to the Gaussian quantile at two sigma, to first order, relative to that of 20 blocks.
    bound_errors = 2 * (1 + 1.25 / (blocks - 2)) / (1 + 1.25 / (BLOCKS - 2))
    highest = gain + bound_errors * error
    fires, rising = highest < tolerance, gain < -tolerance and highest < 0
    return Plateau(fires, rising, gain, error, bound_errors, tolerance, first, points, blocks, line.rho)


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


@dataclass(frozen=True)
class Overfitting:
    """Result of `overfitting`: whether validation rises while training falls."""

    # Each of the last evaluations lies above best + margin, `rise` is above `rise_needed`, and the
    # training loss fell since the best.
    fires: bool
    best: float  # lowest validation loss
    best_index: int  # its index among the evaluations
    last: tuple[float, ...]  # the last three evaluations, oldest first
    margin: float  # three standard deviations of the evaluations' noise
    noise: float  # that standard deviation
    rise: float  # median of the last three minus that of three around the best, which is biased low
    rise_needed: float  # three standard errors of that difference
    train_at_best: float  # training loss at the best evaluation
    train_last: float  # at the last


def overfitting(val_n: Series, train_at_val_n: Series) -> Overfitting | None:
    """Test whether the last three evaluations all exceed the best by 3 s while training fell.

    Both losses are those at the evaluations. None below ten. Of 2500 runs with 10/20/40 evaluations and
    white noise s: fires on falling curves in at most .0004, on flat ones in .012/.008/.004 (without
    `rise_needed` .04), and in .11/.76/1.0 on those that rise by 9.5 s over the last 40 %.

    Raises:
        ShapeError: the two differ in length.
    """
    val_n, train_at_val_n = validate(val_n), validate(train_at_val_n)
    if len(val_n) != len(train_at_val_n):
        raise ShapeError(
            f"got {len(train_at_val_n)} training losses for {len(val_n)} evaluations, expected one each"
        )
    if len(val_n) < MIN_EVALUATIONS:
        return None
    i = int(val_n.argmin())
    sigma = scatter(val_n)
    best, last_k = float(val_n[i]), val_n[-LAST_EVALUATIONS:]
    around = min(max(i - 1, 0), len(val_n) - LAST_EVALUATIONS)
    rise = float(np.median(last_k) - np.median(val_n[around : around + LAST_EVALUATIONS]))
    rise_needed = 3 * sigma * MEDIANS_DIFFERENCE
    train_at_best, train_last = float(train_at_val_n[i]), float(train_at_val_n[-1])
    fires = bool((last_k > best + 3 * sigma).all()) and rise > rise_needed and train_last < train_at_best
    last = tuple(last_k.tolist())
    return Overfitting(
        fires, best, i, last, 3 * sigma, sigma, rise, rise_needed, train_at_best, train_last
    )


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
