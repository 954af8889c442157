"""Detect rebounds after the minimum, and sudden drops after a rebound.

Series are one-dimensional, finite, float64, in order of training. A rebound is usual with a moving
target (EMA teacher) and no evidence of failure; a sudden drop after a rise may be a collapse.
"""

from dataclasses import dataclass

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import (
    BINS,
    MEDIAN_TO_MEAN_ERROR,
    Bins,
    Series,
    bin_medians,
    block_medians,
    mann_kendall,
    spread,
    validate,
)

ERRORS = 6.0  # standard errors of a bin's median
SHARE_OF_FALL = 0.02
TREND_Z = 2.33  # one-sided 1 %
LAST_BINS = 3


@dataclass(frozen=True)
class Rebound:
    """Result of `rebound`: a rise after the minimum that lasts to the end.

    Attributes:
        fires: the minimum is at least four bins before the end, the rise is above `threshold`, and the
            curve rises (z > 2.33) from the minimum to the end, or to its peak if it falls again.
        falls_again: the curve rises to the peak only, and has come down since.
        minimum: median of the lowest bin.
        first: its first row in the original series; stop: the row after its last.
        fine_minimum: the same with the shortest blocks whose noise is a twentieth of the rise, because
            long bins hide an early, short minimum; fine_first and fine_stop are its rows.
        last: median of the last three bins.
        rise: last - minimum.
        peak: median of the highest three consecutive bins after the minimum; peak_first and peak_stop
            are their rows.
        threshold: the larger of 6 se and 2 % of the initial drop.
        se: standard error of a bin's median.
        z: Mann-Kendall z of the bins from the minimum to the end; z_to_peak: to the peak.
        drop: from the start down to the minimum; 0 if the curve never fell.
        bins: number of bins.
        thinned_by: rows per row after thinning; 1 without thinning.
    """

    fires: bool
    falls_again: bool
    minimum: float
    first: int
    stop: int
    fine_minimum: float
    fine_first: int
    fine_stop: int
    last: float
    rise: float
    peak: float
    peak_first: int
    peak_stop: int
    threshold: float
    se: float
    z: float
    z_to_peak: float
    drop: float
    bins: int
    thinned_by: int


def rebound(y_n: Series) -> Rebound | None:
    """Test whether the curve ends well above its minimum; None below ten rows.

    Of 300 runs of 3000 points with noise AR(1), phi 0/.9/.98: fires on a flat plateau in none (.00/.02/
    .08 if rows were taken as independent), on a power law in none; on +.2 at white noise .05 in all,
    from 1000 points on. Short and strongly autocorrelated noise looks like rebounds: .09 at phi .98 and
    1000 points (ten independent rows), .04 at phi .9 and 60 points.
    """
    y_n = validate(y_n)
    binned = bin_medians(y_n)
    if binned is None:
        return None
    median_B, n = binned.median_B, len(binned.median_B)
    i = int(median_B.argmin())
    minimum, last = float(median_B[i]), float(np.median(median_B[-LAST_BINS:]))
    rise, drop = last - minimum, _initial_drop(y_n, binned, minimum)
    threshold = max(ERRORS * binned.se, SHARE_OF_FALL * drop)
    k, peak = _peak(median_B, i)
    z, z_to_peak = mann_kendall(median_B[i:]), mann_kendall(median_B[i : k + 2])
    risen = i <= n - 4 and rise > threshold
    fires = risen and z > TREND_Z
    falls_again = risen and not fires and z_to_peak > TREND_Z
    fine_minimum, fine_first, fine_stop = _fine_minimum(y_n, binned, i, peak - minimum)
    return Rebound(
        fires=fires or falls_again,
        falls_again=falls_again,
        minimum=minimum,
        first=int(binned.bounds_C[i]),
        stop=int(binned.bounds_C[i + 1]),
        fine_minimum=fine_minimum,
        fine_first=fine_first,
        fine_stop=fine_stop,
        last=last,
        rise=rise,
        peak=peak,
        peak_first=int(binned.bounds_C[max(k - 1, i)]),
        peak_stop=int(binned.bounds_C[min(k + 2, n)]),
        threshold=threshold,
        se=binned.se,
        z=z,
        z_to_peak=z_to_peak,
        drop=drop,
        bins=n,
        thinned_by=binned.thinned_by,
    )


def _initial_drop(y_n: Series, binned: Bins, minimum: float) -> float:
    """Return the fall to the minimum from the start, which a long first bin may hide."""
    start = max(float(np.median(y_n[:LAST_BINS])), float(binned.median_B[0]))
    return max(start - minimum, 0.0)


def _peak(median_B: Series, i: int) -> tuple[int, float]:
    """Return the middle of the highest three consecutive bins from i on, and their median."""
    if len(median_B) - i < LAST_BINS:
        k = i + int(median_B[i:].argmax())
        return k, float(median_B[k])
    smooth_W = np.median(np.lib.stride_tricks.sliding_window_view(median_B[i:], LAST_BINS), axis=1)
    k = int(smooth_W.argmax())
    return i + k + 1, float(smooth_W[k])


def _fine_minimum(y_n: Series, binned: Bins, i: int, rise: float) -> tuple[float, int, int]:
    """Return the median of the lowest short block, its first row and the row after its last."""
    rows = -(-len(y_n) // len(binned.median_B))
    if rise > 0:
        rows = min(rows, max(int(np.ceil((20 * MEDIAN_TO_MEAN_ERROR * spread(y_n) / rise) ** 2)), 1))
    fine_B, bounds_C = block_medians(y_n, min(len(y_n) // rows, 1000))
    j = int(fine_B.argmin())
    if len(fine_B) <= len(binned.median_B) or fine_B[j] > binned.median_B[i]:
        return float(binned.median_B[i]), int(binned.bounds_C[i]), int(binned.bounds_C[i + 1])
    return float(fine_B[j]), int(bounds_C[j]), int(bounds_C[j + 1])


@dataclass(frozen=True)
class RegulariserTrend:
    """Result of `regulariser_falls`: the trend of a regulariser while the loss rebounds.

    Attributes:
        falls: z < -2.33; the rebound is then one of a proxy loss.
        z: Mann-Kendall z of the bins from `first` on.
        first: first row of the test.
        bins: number of bins.
    """

    falls: bool
    z: float
    first: int
    bins: int


def regulariser_falls(r_n: Series, first: int) -> RegulariserTrend | None:
    """Test whether a regulariser falls from row `first` on; None below ten rows."""
    binned = bin_medians(validate(r_n)[first:])
    if binned is None:
        return None
    z = mann_kendall(binned.median_B)
    return RegulariserTrend(z < -TREND_Z, z, first, len(binned.median_B))


@dataclass(frozen=True)
class Drop:
    """A sudden drop after a rise.

    Attributes:
        fall: from one bin to the next, in units of the series.
        rise: highest bin since the minimum, minus that minimum, before the drop.
        before: median of the bin before the drop; after: of the one after it.
        first: first row of the bin after the drop; stop: the row after its last.
        minimum: lowest bin before the drop.
        se: standard error of a bin's median.
    """

    fall: float
    rise: float
    before: float
    after: float
    first: int
    stop: int
    minimum: float
    se: float


@dataclass(frozen=True)
class SuddenDrops:
    """Result of `sudden_drop`: all drops, and the number of bins of the finest division."""

    fires: bool
    drops: tuple[Drop, ...]
    bins: int


def sudden_drop(y_n: Series) -> SuddenDrops | None:
    """Find falls from one bin to the next by more than 6 se and half of the rise, after a rebound.

    The rebound is that of `rebound` on the curve so far; after the first drop the rise is enough,
    without its trend. Uses 30 bins, and 60, 120 and 240 if they hold eight rows, because 30 blur
    repeated drops. A spike shorter than three of the finest bins does not count. None below ten rows.
    Of 300 runs each of 60, 1000 and 3000 points, flat, fallen to a plateau or a power law: fires in
    none with white or phi .9 noise, in at most .01 at phi .98.
    """
    y_n = validate(y_n)
    found: list[Drop] = []
    finest = 0
    for bins in (BINS, 2 * BINS, 4 * BINS, 8 * BINS):
        binned = bin_medians(y_n, bins)
        if binned is None or (bins > BINS and binned.rows_per_bin < 8):
            break
        finest = len(binned.median_B)
        for drop in _drops(binned):
            if all(drop.first >= other.stop or other.first >= drop.stop for other in found):
                found.append(drop)
    if not finest:
        return None
    found.sort(key=lambda drop: drop.first)
    return SuddenDrops(bool(found), tuple(found), finest)


def _drops(binned: Bins) -> list[Drop]:
    median_B = binned.median_B
    drops: list[Drop] = []
    candidates = np.flatnonzero(-np.diff(median_B) > ERRORS * binned.se) + 1
    for j in candidates.tolist():
        i = int(median_B[:j].argmin())
        rise = float(median_B[i:j].max() - median_B[i])
        fall = float(median_B[j - 1] - median_B[j])
        if fall > rise / 2 and _rebounded(median_B[:j], i, binned.se, again=bool(drops)):
            rows = int(binned.bounds_C[j]), int(binned.bounds_C[j + 1])
            drops.append(
                Drop(
                    fall,
                    rise,
                    float(median_B[j - 1]),
                    float(median_B[j]),
                    *rows,
                    float(median_B[i]),
                    binned.se,
                )
            )
    return drops


def _rebounded(median_B: Series, i: int, se: float, *, again: bool) -> bool:
    rise = float(np.median(median_B[-LAST_BINS:]) - median_B[i])
    threshold = max(ERRORS * se, SHARE_OF_FALL * float(median_B[0] - median_B[i]))
    return (
        i <= len(median_B) - 4 and rise > threshold and (again or mann_kendall(median_B[i:]) > TREND_Z)
    )
