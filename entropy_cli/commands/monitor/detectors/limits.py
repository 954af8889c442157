"""Detect curves out of bounds: divergence, growing gradients, losses below a floor.

Series are one-dimensional, finite, float64, in order of training.
"""

from dataclasses import dataclass

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import (
    BINS,
    Series,
    bin_medians,
    block_medians,
    mann_kendall,
    spread,
    validate,
)

DIVERGENCE_ERRORS = 6.0
GROWTH = 10.0  # ratio of the last tenth to the middle half
TREND_Z = 2.33  # one-sided 1 %
# Standard errors for the last tenth, and for the lowest of 30 bins, which is 2 below the rest by chance.
DEVIATIONS = (4.0, 6.0)


@dataclass(frozen=True)
class Divergence:
    """Result of `divergence`: whether a curve ends above its first value."""

    fires: bool  # rise > 6 se
    start: float  # the first value
    last: float  # median of the last tenth
    last_first: int  # row where the last tenth begins
    rise: float  # last - start
    se: float  # standard error of the rise
    start_se: float  # standard deviation of a single point
    last_se: float


def divergence(y_n: Series) -> Divergence | None:
    """Test whether the last tenth lies above the first value by more than 6 se; None below ten rows.

    The error of the first value is that of a single point, autocorrelation included. Fires in .000 of
    flat curves and power laws of white noise, in .003 at phi .9 and 60 points, at phi .98 in .003 of
    1000 points and .07 of 60 (300 runs each); in all that rise by .5 at noise .05 (1000 points).
    """
    binned = bin_medians(y_n)
    if binned is None:
        return None
    first, last, last_se = binned.last_tenth(y_n)
    start, start_se = float(y_n[0]), spread(y_n)
    rise, se = last - start, float(np.hypot(start_se, last_se))
    return Divergence(rise > DIVERGENCE_ERRORS * se, start, last, first, rise, se, start_se, last_se)


@dataclass(frozen=True)
class Growth:
    """Result of `grows_without_bound` for a gradient norm."""

    fires: bool  # ratio > 10 and z > 2.33
    ratio: float | None  # of last to middle; None if the latter is zero
    last: float  # median of the last tenth
    middle: float  # median of the middle half
    z: float  # Mann-Kendall z of the last third of 30 bins
    first: int  # row where the last tenth begins


def grows_without_bound(g_n: Series) -> Growth | None:
    """Test whether a norm ends ten times above its middle half and still rises; None below 30 rows.

    Fires in .000 of warm-ups, falls, threefold growth and log-normal norms (sigma 1; 500 runs each of 30
    to 10,000 points; .004 at sigma 2 and 100 points), and in all that grow as
    exp(10 t) over a run of 1000 points (.66 of 100, .36 of 30: the noise hides the trend).
    """
    g_n = validate(g_n)
    if len(g_n) < BINS:
        return None
    n = len(g_n)
    first = n - n // 10
    last, middle = float(np.median(g_n[first:])), float(np.median(g_n[n // 4 : n - n // 4]))
    median_B, _ = block_medians(g_n, BINS)
    z = mann_kendall(median_B[-BINS // 3 :])
    ratio = last / middle if middle > 0 else None
    return Growth(ratio is not None and ratio > GROWTH and z > TREND_Z, ratio, last, middle, z, first)


@dataclass(frozen=True)
class BoundViolation:
    """Result of `below_floor` or `above_ceiling`.

    Deviations are in standard errors of the level and the bound, negative on the right side of the
    bound; None if both errors are zero.
    """

    fires: bool  # see the function
    bound: float  # the floor or ceiling
    bound_se: float
    last: float  # median of the last tenth
    last_se: float
    last_deviations: float | None
    lowest: float  # median of the lowest bin
    lowest_se: float
    lowest_deviations: float | None


def below_floor(y_n: Series, floor: float, floor_se: float = 0.0) -> BoundViolation | None:
    """Test whether the last tenth lies 4 standard errors below a floor, or the lowest bin 6.

    None below ten rows. At a true floor it fires in none of 300 runs each of 60, 1000 and 3000 points of
    white noise, in .003 at phi .9 (1000 points) and .007 at .98 (3000 points). With few independent
    points the level is uncertain: .12 at phi .98 and 1000 points, .10 at phi .9 and 60.
    """
    return _bound_violation(y_n, floor, floor_se, sign=-1)


def above_ceiling(y_n: Series, ceiling: float, ceiling_se: float = 0.0) -> BoundViolation | None:
    """Test whether the last tenth lies 4 standard errors above a ceiling; None below ten rows."""
    return _bound_violation(y_n, ceiling, ceiling_se, sign=1)


def _bound_violation(y_n: Series, bound: float, bound_se: float, *, sign: int) -> BoundViolation | None:
    binned = bin_medians(y_n)
    if binned is None:
        return None
    (_, last, last_se), lowest, se = binned.last_tenth(y_n), float(binned.median_B.min()), binned.se
    errors = [float(np.hypot(one, bound_se)) for one in (last_se, se)]
    beyond = [sign * (value - bound) for value in (last, lowest)]
    far = [by > times * error for by, times, error in zip(beyond, DEVIATIONS, errors, strict=True)]
    last_by, lowest_by = (
        by / error if error > 0 else None for by, error in zip(beyond, errors, strict=True)
    )
    fires = any(far) if sign < 0 else far[0]
    return BoundViolation(fires, bound, bound_se, last, last_se, last_by, lowest, se, lowest_by)
