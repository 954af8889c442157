"""Curves that leave their bounds: divergence, gradients without bound, losses below a floor.

Series are one-dimensional, finite, float64, in order of training.
"""

from dataclasses import dataclass

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import (
    BINS,
    Bins,
    Series,
    binned,
    checked,
    mann_kendall,
    medians,
    spread,
)

DIVERGENCE_ERRORS = 6.0
GROWTH = 10.0  # last tenth over the middle half
TREND_Z = 2.33  # one-sided 1 %
# standard errors of the last tenth, and of the lowest bin, which of 30 lies two below the rest by chance
BEYOND_2 = np.array([4.0, 6.0])


@dataclass(frozen=True)
class Divergence:
    """Whether a curve ends above where it began.

    Attributes:
        fires: rise > 6 se.
        start: the first value.
        last: median of the last tenth; last_first: the row where it begins.
        rise: last - start.
        se: error of the difference: that of one point and that of the last tenth's median.
        start_se, last_se: these two.
    """

    fires: bool
    start: float
    last: float
    last_first: int
    rise: float
    se: float
    start_se: float
    last_se: float


def divergence(y_n: Series) -> Divergence | None:
    """Whether the last tenth lies above the first value by more than 6 se; None below ten rows.

    The error of the first value is that of one point, autocorrelation and all. Fires in .000 of flat
    curves and power laws of white noise, in .003 at phi .9 and 60 points, at phi .98 in .003 of 1000
    points and .07 of 60 (300 runs each); in all that rise by .5 at noise .05 (1000 points).
    """
    y_n = checked(y_n)
    cut = binned(y_n)
    if cut is None:
        return None
    last_first = len(y_n) - max(len(y_n) // 10, 1)
    start, last = float(y_n[0]), float(np.median(y_n[last_first:]))
    start_se, last_se = spread(y_n), _error_of_median(cut, len(y_n), len(y_n) - last_first)
    se = float(np.hypot(start_se, last_se))
    return Divergence(
        last - start > DIVERGENCE_ERRORS * se,
        start,
        last,
        last_first,
        last - start,
        se,
        start_se,
        last_se,
    )


def _error_of_median(cut: Bins, rows: int, points: int) -> float:
    """Standard error of the median of `points` of a series' rows, from that of its bins."""
    per_bin = rows / len(cut.median_B)
    return cut.se * (per_bin / points) ** 0.5


@dataclass(frozen=True)
class Growth:
    """Whether a gradient norm grows without bound.

    Attributes:
        fires: ratio > 10 and z > 2.33.
        ratio: median of the last tenth over the median of the middle half; None where that is zero.
        last, middle: these medians.
        z: Mann-Kendall z of the last third of 30 bins.
        first: the row where the last tenth begins.
    """

    fires: bool
    ratio: float | None
    last: float
    middle: float
    z: float
    first: int


def grows_without_bound(g_n: Series) -> Growth | None:
    """Whether a norm ends ten times above its middle half and is still rising; None below 30 rows.

    Fires in .000 of warm-ups, falls, threefold growth and log-normal norms (sigma 1; 500 runs each of 30
    to 10,000 points; .004 at sigma 2 and 100 points), and in all that grow as
    exp(10 t) over a run of 1000 points (.66 of 100, .36 of 30: the noise hides the trend).
    """
    g_n = checked(g_n)
    if len(g_n) < BINS:
        return None
    n = len(g_n)
    first = n - n // 10
    last, middle = float(np.median(g_n[first:])), float(np.median(g_n[n // 4 : n - n // 4]))
    median_B, _ = medians(g_n, BINS)
    z = mann_kendall(median_B[-BINS // 3 :])
    ratio = last / middle if middle > 0 else None
    return Growth(ratio is not None and ratio > GROWTH and z > TREND_Z, ratio, last, middle, z, first)


@dataclass(frozen=True)
class Beyond:
    """Whether a curve lies beyond a bound: below a floor, or above a ceiling.

    Attributes:
        fires: as said by the function.
        bound, bound_se: as given.
        last, last_se, last_first: median of the last tenth, its error, the row where it begins.
        last_deviations: standard errors (its own and the bound's) by which it lies beyond the bound,
            negative if it does not; None where both errors are zero.
        lowest, lowest_se, lowest_first, lowest_stop, lowest_deviations: the same of the lowest bin.
    """

    fires: bool
    bound: float
    bound_se: float
    last: float
    last_se: float
    last_first: int
    last_deviations: float | None
    lowest: float
    lowest_se: float
    lowest_first: int
    lowest_stop: int
    lowest_deviations: float | None


def below(y_n: Series, floor: float, floor_se: float = 0.0) -> Beyond | None:
    """Whether the last tenth lies below a floor by more than 4 standard errors, or the lowest bin by 6.

    None below ten rows. At a true floor it fires in none of 300 runs each of 60, 1000 and 3000 points of
    white noise, in .003 at phi .9 (1000 points) and .007 at .98 (3000 points). With few independent
    points it can't know the level: .12 at phi .98 and 1000 points, .10 at phi .9 and 60.
    """
    return _beyond(y_n, floor, floor_se, sign=-1)


def above(y_n: Series, ceiling: float, ceiling_se: float = 0.0) -> Beyond | None:
    """Whether the last tenth lies above a ceiling by more than 4 standard errors.

    None below ten rows.
    """
    return _beyond(y_n, ceiling, ceiling_se, sign=1)


def _beyond(y_n: Series, bound: float, bound_se: float, *, sign: int) -> Beyond | None:
    y_n = checked(y_n)
    cut = binned(y_n)
    if cut is None:
        return None
    i = int(cut.median_B.argmin())
    last_first = len(y_n) - max(len(y_n) // 10, 1)
    value_2 = np.array([np.median(y_n[last_first:]), cut.median_B[i]])
    se_2 = np.array([_error_of_median(cut, len(y_n), len(y_n) - last_first), cut.se])
    error_2 = np.hypot(se_2, bound_se)
    far_2 = sign * (value_2 - bound) > BEYOND_2 * error_2
    last, lowest = value_2.tolist()
    last_deviations, lowest_deviations = (
        float(sign * (value - bound) / error) if error > 0 else None
        for value, error in zip(value_2, error_2, strict=True)
    )
    return Beyond(
        fires=bool(far_2.any() if sign < 0 else far_2[0]),
        bound=bound,
        bound_se=bound_se,
        last=last,
        last_se=float(se_2[0]),
        last_first=last_first,
        last_deviations=last_deviations,
        lowest=lowest,
        lowest_se=float(se_2[1]),
        lowest_first=int(cut.bounds_C[i]),
        lowest_stop=int(cut.bounds_C[i + 1]),
        lowest_deviations=lowest_deviations,
    )
