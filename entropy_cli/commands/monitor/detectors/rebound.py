"""Curves that turn: a rise after the minimum, and sudden falls after a rise.

Series are one-dimensional, finite, float64, in order of training. A rebound is usual where the target
moves (EMA teachers), and is no evidence of failure; a sudden fall after a rise may be a collapse.
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

ERRORS = 6.0  # standard errors of a bin's median
SHARE_OF_FALL = 0.02
TREND_Z = 2.33  # one-sided 1 %
LAST_BINS = 3


@dataclass(frozen=True)
class Rebound:
    """A rise after the minimum that lasts to the end.

    Attributes:
        fires: the minimum is at least four bins before the end, the rise is above `threshold`, and the
            curve rises (z > 2.33) from the minimum to the end, or to its peak if it falls again.
        falls_again: it fires only by its way to the peak, from which it has come down since.
        minimum: median of the lowest bin; first, stop: its rows, in the series as given.
        fine_minimum, fine_first, fine_stop: the same of the shortest blocks whose noise is a twentieth
            of the rise, within the series: long bins swallow an early, short minimum.
        last: median of the last three bins.
        rise: last - minimum.
        peak, peak_first, peak_stop: median of the highest three bins in a row after the minimum, and
            their rows.
        threshold: the larger of 6 se and 2 % of the initial drop.
        se: standard error of one bin's median.
        z, z_to_peak: Mann-Kendall z of the bins from the minimum to the end, and to the peak.
        drop: from the start down to the minimum, 0 if it never fell.
        bins, thinned_by: medians that were looked at, and rows merged to one before (1: none).
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
    """Whether the curve ends well above its minimum; None below ten rows.

    Of 300 runs of 3000 points with noise AR(1), phi 0/.9/.98: fires on a flat plateau in none (.00/.02/
    .08 if the error of a bin counts rows as independent), on a power law in none; on +.2 at white noise
    .05 in all, from 1000 points on. Short and strongly autocorrelated noise looks like rebounds: .09 at
    phi .98 and 1000 points (ten independent rows), .04 at phi .9 and 60 points.
    """
    y_n = checked(y_n)
    cut = binned(y_n)
    if cut is None:
        return None
    Y_B, n = cut.median_B, len(cut.median_B)
    i = int(Y_B.argmin())
    minimum, last = float(Y_B[i]), float(np.median(Y_B[-LAST_BINS:]))
    rise, drop = last - minimum, _initial_drop(y_n, cut, minimum)
    threshold = max(ERRORS * cut.se, SHARE_OF_FALL * drop)
    k, peak = _peak(Y_B, i)
    z, z_to_peak = mann_kendall(Y_B[i:]), mann_kendall(Y_B[i : k + 2])
    risen = i <= n - 4 and rise > threshold
    fires = risen and z > TREND_Z
    falls_again = risen and not fires and z_to_peak > TREND_Z
    fine_minimum, fine_first, fine_stop = _fine_minimum(y_n, cut, i, peak - minimum)
    return Rebound(
        fires=fires or falls_again,
        falls_again=falls_again,
        minimum=minimum,
        first=int(cut.bounds_C[i]),
        stop=int(cut.bounds_C[i + 1]),
        fine_minimum=fine_minimum,
        fine_first=fine_first,
        fine_stop=fine_stop,
        last=last,
        rise=rise,
        peak=peak,
        peak_first=int(cut.bounds_C[max(k - 1, i)]),
        peak_stop=int(cut.bounds_C[min(k + 2, n)]),
        threshold=threshold,
        se=cut.se,
        z=z,
        z_to_peak=z_to_peak,
        drop=drop,
        bins=n,
        thinned_by=cut.thinned_by,
    )


def _initial_drop(y_n: Series, cut: Bins, minimum: float) -> float:
    """From the start, which a long first bin may have swallowed, down to the minimum."""
    start = max(float(np.median(y_n[:LAST_BINS])), float(cut.median_B[0]))
    return max(start - minimum, 0.0)


def _peak(Y_B: Series, i: int) -> tuple[int, float]:
    """Middle of the highest three bins in a row from i on, and their median."""
    if len(Y_B) - i < LAST_BINS:
        k = i + int(Y_B[i:].argmax())
        return k, float(Y_B[k])
    smooth_W = np.median(np.lib.stride_tricks.sliding_window_view(Y_B[i:], LAST_BINS), axis=1)
    k = int(smooth_W.argmax())
    return i + k + 1, float(smooth_W[k])


def _fine_minimum(y_n: Series, cut: Bins, i: int, rise: float) -> tuple[float, int, int]:
    """Median, first row and end of the lowest short block."""
    rows = -(-len(y_n) // len(cut.median_B))
    if rise > 0:
        rows = min(rows, max(int(np.ceil((20 * 1.2533 * spread(y_n) / rise) ** 2)), 1))
    fine_B, bounds_C = medians(y_n, min(len(y_n) // rows, 1000))
    j = int(fine_B.argmin())
    if len(fine_B) <= len(cut.median_B) or fine_B[j] > cut.median_B[i]:
        return float(cut.median_B[i]), int(cut.bounds_C[i]), int(cut.bounds_C[i + 1])
    return float(fine_B[j]), int(bounds_C[j]), int(bounds_C[j + 1])


@dataclass(frozen=True)
class RegulariserTrend:
    """Where a regulariser goes while the loss rebounds.

    Attributes:
        falls: z < -2.33. A rebound beside it is one of a proxy loss.
        z: Mann-Kendall z of its bins from `first` on.
        first: the row it was looked at from.
        bins: medians that were compared.
    """

    falls: bool
    z: float
    first: int
    bins: int


def regulariser_falls(r_n: Series, first: int) -> RegulariserTrend | None:
    """Whether a regulariser falls from row `first` (the loss's minimum) on; None below ten rows."""
    cut = binned(checked(r_n)[first:])
    if cut is None:
        return None
    z = mann_kendall(cut.median_B)
    return RegulariserTrend(z < -TREND_Z, z, first, len(cut.median_B))


@dataclass(frozen=True)
class Drop:
    """One sudden fall after a rise.

    Attributes:
        fall: from one bin to the next, in the series' units.
        rise: highest bin since the minimum, minus that minimum, before the fall.
        before, after: medians of the two bins.
        first, stop: rows of the bin that fell, in the series as given.
        minimum: lowest bin before the fall.
        se: standard error of one bin's median.
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
    """All sudden falls; `fires` if there is any, `bins` of the finest cut that was looked at."""

    fires: bool
    drops: tuple[Drop, ...]
    bins: int


def sudden_drop(y_n: Series) -> SuddenDrops | None:
    """Falls from one bin to the next by more than 6 se and half of the rise, after a rebound.

    The rebound is what `rebound` says of the curve up to then; after the first drop the rise alone is
    asked for, not its trend. Looks at 30 bins, and at 60, 120 and 240 where they hold eight rows: 30
    smear drops that repeat. A spike shorter than three of the finest bins is none. None below ten rows.
    Of 300 runs each of 60, 1000 and 3000 points, flat, fallen to a plateau or a power law: fires in none
    with white or phi .9 noise, in at most .01 at phi .98.
    """
    y_n = checked(y_n)
    found: list[Drop] = []
    finest = 0
    for bins in (BINS, 2 * BINS, 4 * BINS, 8 * BINS):
        cut = binned(y_n, bins)
        if cut is None or (bins > BINS and cut.rows_per_bin < 8):
            break
        finest = len(cut.median_B)
        for drop in _drops(cut):
            if all(drop.first >= other.stop or other.first >= drop.stop for other in found):
                found.append(drop)
    if not finest:
        return None
    found.sort(key=lambda drop: drop.first)
    return SuddenDrops(bool(found), tuple(found), finest)


def _drops(cut: Bins) -> list[Drop]:
    Y_B = cut.median_B
    drops: list[Drop] = []
    candidates = np.flatnonzero(-np.diff(Y_B) > ERRORS * cut.se) + 1
    for j in candidates.tolist():
        i = int(Y_B[:j].argmin())
        rise = float(Y_B[i:j].max() - Y_B[i])
        fall = float(Y_B[j - 1] - Y_B[j])
        if fall > rise / 2 and _rebounded(Y_B[:j], i, cut.se, again=bool(drops)):
            rows = int(cut.bounds_C[j]), int(cut.bounds_C[j + 1])
            drops.append(
                Drop(fall, rise, float(Y_B[j - 1]), float(Y_B[j]), *rows, float(Y_B[i]), cut.se)
            )
    return drops


def _rebounded(Y_B: Series, i: int, se: float, *, again: bool) -> bool:
    rise = float(np.median(Y_B[-LAST_BINS:]) - Y_B[i])
    threshold = max(ERRORS * se, SHARE_OF_FALL * float(Y_B[0] - Y_B[i]))
    return i <= len(Y_B) - 4 and rise > threshold and (again or mann_kendall(Y_B[i:]) > TREND_Z)
