"""Whether a curve has stopped falling, how its reducible part falls, and whether validation has turned.

Series are one-dimensional, finite, float64, in order of training.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import Series, checked, scatter
from entropy_cli.core.errors import ShapeError

BLOCKS, LEAST_BLOCKS = 20, 8
LAST_SHARE = 0.25
TOLERANCE, TOLERANCE_OF_FINALS = 0.005, 0.002  # nats
LEAST_EVALUATIONS, LAST_EVALUATIONS = 10, 3
MEDIANS_DIFFERENCE = 0.947  # standard error of the difference of two medians of three Gaussians
LEAST_RANGE = 4.0  # of x, from the first to the last bin of a power law


@dataclass(frozen=True)
class Plateau:
    """Whether the last quarter of a curve promises less than the tolerance from as many points again.

    Attributes:
        fires: gain + bound_errors * gain_error < tolerance. True of a curve that rises, too.
        rising: the gain is below -tolerance, and its bound below 0: not the end of a fall, but a rise.
        gain: what as many points again would lower the curve by, in its units; negative if it rises.
        gain_error: its standard error, autocorrelation of the blocks included.
        bound_errors: standard errors in the bound; 2 with 20 blocks, a little more with fewer.
        tolerance: the gain that is too small to wait for.
        first, points: where the last quarter begins, and its length.
        blocks, rho: block means that were fitted, and lag-1 autocorrelation of their residuals, not
            below 0.
    """

    fires: bool
    rising: bool
    gain: float
    gain_error: float
    bound_errors: float
    tolerance: float
    first: int
    points: int
    blocks: int
    rho: float


@dataclass(frozen=True)
class Line:
    """A fitted line: slope, its standard error with autocorrelation, and that of the residuals."""

    slope: float
    error: float
    rho: float


def plateau(y_n: Series, tolerance: float = TOLERANCE) -> Plateau | None:
    """Whether the last 25 % still fall; None below 32 points.

    Means of 20 blocks (down to 8 in short curves), a least-squares line, its error times
    sqrt((1 + rho) / (1 - rho)) with rho of the blocks' residuals, corrected for what the line takes
    away. Of 1000 runs of 4000 points with noise AR(1), phi 0/.9/.98: fires on curves that still fall
    .01 per last quarter in .003/.009/.029 at noise .05 (.02/.023/.037 at noise .2), and on flat ones in
    1.0/.50/.19 at noise .005.
    """
    y_n = checked(y_n)
    points = int(len(y_n) * LAST_SHARE)
    blocks = min(BLOCKS, points)
    if blocks < LEAST_BLOCKS:
        return None
    first = len(y_n) - points
    bounds_C = np.arange(blocks + 1) * points // blocks
    size_B = np.diff(bounds_C)
    level = y_n[first]  # sums of differences keep the digits of a curve that hardly moves
    mean_B = np.add.reduceat(y_n[first:] - level, bounds_C[:-1]) / size_B
    line = _line((bounds_C[1:] + bounds_C[:-1]) / 2, mean_B)
    gain, error = 0.0 - line.slope * points, line.error * points
    bound_errors = 2 * _student(blocks - 2) / _student(BLOCKS - 2)
    fires = gain + bound_errors * error < tolerance
    rising = gain < -tolerance and gain + bound_errors * error < 0
    return Plateau(fires, rising, gain, error, bound_errors, tolerance, first, points, blocks, line.rho)


def _student(freedom: int) -> float:
    """Student's quantile over the Gaussian's at two standard deviations, to first order."""
    return 1 + 1.25 / freedom


def _line(x_B: Series, y_B: Series) -> Line:
    x_B = x_B - x_B.mean()
    y_B = y_B - y_B.mean()
    square = float(x_B @ x_B)
    slope = float(x_B @ y_B) / square
    residual_B = y_B - slope * x_B
    left = float(residual_B @ residual_B)
    if left <= 0:
        return Line(slope, 0.0, 0.0)
    rho = float(residual_B[1:] @ residual_B[:-1]) / left
    rho = rho + (2 + 4 * rho) / len(y_B)  # what fitting the line takes away, to first order
    rho = min(max(rho, 0.0), 0.99)
    error = (left / (len(y_B) - 2) / square * (1 + rho) / (1 - rho)) ** 0.5
    return Line(slope, error, rho)


@dataclass(frozen=True)
class Overfitting:
    """Whether the validation loss has turned while the training loss went on falling.

    Attributes:
        fires: each of the last evaluations lies above best + margin, `rise` is above `rise_needed`, and
            training fell since the best.
        best, best_index: lowest validation loss and where among the evaluations.
        last: the last three evaluations, oldest first.
        margin: three standard deviations of the evaluations' noise.
        noise: that standard deviation.
        rise: median of the last three, minus that of the three about the best. The best of many alone is
            a lucky one.
        rise_needed: three standard errors of such a difference.
        train_at_best, train_last: training loss at the best and at the last evaluation.
    """

    fires: bool
    best: float
    best_index: int
    last: tuple[float, ...]
    margin: float
    noise: float
    rise: float
    rise_needed: float
    train_at_best: float
    train_last: float


def overfitting(val_n: Series, train_at_val_n: Series) -> Overfitting | None:
    """Whether the last three evaluations all lie above the best by 3 s while training fell.

    None below ten evaluations. Of 2500 runs with 10/20/40 evaluations and white noise s: fires on
    falling curves in at most .0004, on flat ones in .012/.008/.004 (without `rise_needed` .04), and in
    .11/.76/1.0 on those that rise by 9.5 s over the last 40 %.

    Args:
        val_n: validation losses.
        train_at_val_n: training losses at the same points, smoothed as the caller sees fit.

    Raises:
        ShapeError: the two differ in length.
    """
    val_n, train_at_val_n = checked(val_n), checked(train_at_val_n)
    if len(val_n) != len(train_at_val_n):
        raise ShapeError(
            f"{len(train_at_val_n)} training losses for {len(val_n)} evaluations, expected one each"
        )
    if len(val_n) < LEAST_EVALUATIONS:
        return None
    i = int(val_n.argmin())
    s = scatter(val_n)
    best, last_k = float(val_n[i]), val_n[-LAST_EVALUATIONS:]
    around = min(max(i - 1, 0), len(val_n) - LAST_EVALUATIONS)
    rise = float(np.median(last_k) - np.median(val_n[around : around + LAST_EVALUATIONS]))
    rise_needed = 3 * s * MEDIANS_DIFFERENCE
    train_at_best, train_last = float(train_at_val_n[i]), float(train_at_val_n[-1])
    fires = bool((last_k > best + 3 * s).all()) and rise > rise_needed and train_last < train_at_best
    return Overfitting(
        fires=fires,
        best=best,
        best_index=i,
        last=tuple(last_k.tolist()),
        margin=3 * s,
        noise=s,
        rise=rise,
        rise_needed=rise_needed,
        train_at_best=train_at_best,
        train_last=train_last,
    )


@dataclass(frozen=True)
class PowerLawSlope:
    """How a reducible loss falls: loss ~ x^slope.

    Attributes:
        slope, se: exponent and its standard error, autocorrelation of the bins included.
        bins: medians of bins of equal width in log x that were fitted.
        x_first, x_last: where the first and the last of them lie.
        rho: lag-1 autocorrelation of the residuals, not below 0; near 1 no power law fits.
    """

    slope: float
    se: float
    bins: int
    x_first: float
    x_last: float
    rho: float


def power_law_slope(x_n: Series, reducible_n: Series, bins: int = BLOCKS) -> PowerLawSlope | None:
    """Slope of log(reducible loss) against log(x).

    None where fewer than eight bins hold points, where x spans less than a factor of four, or where the
    median of any bin is not above zero: the floor is then not below the curve.

    Args:
        x_n: step, epoch or token count of each point, ascending; points at x <= 0 are left out.
        reducible_n: loss minus floor.
        bins: most bins to fit.

    Raises:
        ShapeError: the two differ in length.
        ValueError: x is not ascending.
    """
    x_n, reducible_n = checked(x_n), checked(reducible_n)
    if len(x_n) != len(reducible_n):
        raise ShapeError(f"{len(reducible_n)} losses at {len(x_n)} steps, expected one each")
    if (np.diff(x_n) < 0).any():
        raise ValueError("steps are not in ascending order")
    reducible_n, x_n = reducible_n[x_n > 0], x_n[x_n > 0]
    if len(x_n) < LEAST_BLOCKS or x_n[-1] < LEAST_RANGE * x_n[0]:
        return None
    edges_C = np.searchsorted(x_n, np.geomspace(x_n[0], x_n[-1], bins + 1)[1:-1])
    bounds_C = np.unique(np.concatenate([[0], edges_C, [len(x_n)]]))
    parts = [slice(*pair) for pair in pairwise(bounds_C)]
    x_B = np.array([np.median(x_n[part]) for part in parts])
    median_B = np.array([np.median(reducible_n[part]) for part in parts])
    if len(parts) < LEAST_BLOCKS or median_B.min() <= 0 or x_B[-1] < LEAST_RANGE * x_B[0]:
        return None
    line = _line(np.log(x_B), np.log(median_B))
    return PowerLawSlope(line.slope, line.error, len(parts), float(x_B[0]), float(x_B[-1]), line.rho)
