"""Detect rebounds after the minimum, and sudden drops after a rebound.

Series are one-dimensional, finite, float64, in order of training. A rebound is usual with a moving
target (EMA teacher) and no evidence of failure; a sudden drop after a rise may be a collapse.
"""

from dataclasses import dataclass, replace

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import (
    BINS,
    MEDIAN_TO_MEAN_ERROR,
    Bins,
    Series,
    autocorrelation,
    bin_medians,
    block_medians,
    mann_kendall,
    noise,
    spread,
)
from entropy_cli.commands.monitor.detectors.plateau import projected_gain

ERRORS = 6.0  # standard errors of a bin's median
SHARE_OF_FALL = 0.02
TREND_Z = 2.33  # one-sided 1 %
LAST_BINS = 3
FEW_BINS = 10
WALK_ERRORS, WALK_STEP = 4.0, 3**0.5  # the latter: a step of a random walk beside `noise` of it
NEARLY_INDEPENDENT = 0.7  # autocorrelation of rows up to which bins certainly are


@dataclass(frozen=True)
class Rebound:
    """Result of `rebound`: a rise after the minimum that lasts to the end.

    Rows are those of the original series; a stop is the row after the last.
    """

    # The minimum is at least four bins before the end, the rise is above `threshold`, and the curve
    # rises (z > 2.33) from the minimum to the end, or to its peak if it falls again.
    fires: bool
    falls_again: bool  # the curve rises to the peak only, and has come down since
    minimum: float  # median of the lowest bin, from `first` to `stop`
    first: int
    stop: int
    last: float  # median of the last three bins
    rise: float  # last - minimum
    peak: float  # median of the highest three consecutive bins after the minimum
    threshold: float  # the larger of 6 se and 2 % of the initial drop
    se: float  # standard error of a bin's median
    errors: float | None  # by how many standard errors it rises; None without noise
    drop: float  # from the start down to the minimum; 0 if the curve never fell
    z: float  # Mann-Kendall z of the bins from the minimum to the end
    z_to_peak: float  # to the peak
    # The minimum by the shortest blocks whose noise is a twentieth of the rise: long bins hide an early,
    # short one.
    fine_minimum: float
    fine_first: int
    fine_stop: int


def rebound(y_n: Series) -> Rebound | None:
    """Test whether the curve ends well above its minimum; None below ten rows.

    By 30 bins, by rows, by ten bins, and by a line through the last half; the latter two see a slow rise
    in more noise. A minimum within the first bin counts if it is six standard errors below all bins. By
    rows, it is a rise longer than a random walk of such steps would take: short smooth curves have too
    few bins. That fires on AR(1) noise of any phi in .02 of 12 points, .01 of 20 to 3000.
    Of 300 runs of 3000 points with noise AR(1), phi 0/.9/.98: fires on a flat plateau in none
    (.00/.02/.08 if rows were taken as independent), on a power law in none; on +.2 at white noise .05 in
    all, from 1000 points on. Short and strongly autocorrelated noise looks like rebounds: .09 at phi .98
    and 1000 points (ten independent rows), .04 at phi .9 and 60 points.
    """
    fine, coarse = bin_medians(y_n), bin_medians(y_n, FEW_BINS)
    if fine is None or coarse is None:
        return None
    found = _rebound_of(y_n, _split_at_early_minimum(y_n, fine))
    if not found.fires:
        found = _rebound_by_rows(y_n, found)
    if found.fires or len(fine.median_B) < BINS or autocorrelation(y_n) > NEARLY_INDEPENDENT:
        return found
    # Of so few bins the scatter is too rough an error; those of 30 are nearly independent.
    coarse = replace(coarse, se=fine.se * (len(coarse.median_B) / len(fine.median_B)) ** 0.5)
    slow = _rebound_of(y_n, _split_at_early_minimum(y_n, coarse))
    if slow.fires:
        return slow
    gain, error, *_ = projected_gain(y_n[len(y_n) // 2 :])
    rises = -gain > ERRORS * error and slow.z > TREND_Z and slow.rise > SHARE_OF_FALL * slow.drop
    return replace(slow, fires=True, errors=-gain / error) if rises and error > 0 else found


def _rebound_of(y_n: Series, binned: Bins) -> Rebound:
    median_B, n = binned.median_B, len(binned.median_B)
    i = int(median_B.argmin())
    minimum, last = float(median_B[i]), float(np.median(median_B[-LAST_BINS:]))
    start = max(float(np.median(y_n[:LAST_BINS])), float(median_B[0]))  # which a long first bin may hide
    rise, drop = last - minimum, max(start - minimum, 0.0)
    threshold = max(ERRORS * binned.se, SHARE_OF_FALL * drop)
    k, peak = _peak(median_B, i)
    stop = int(binned.bounds_C[min(k + 2, n)])
    z, z_to_peak = mann_kendall(median_B[i:]), mann_kendall(median_B[i : k + 2])
    if k - i < FEW_BINS and (phi := max(autocorrelation(y_n), 0.0)) <= NEARLY_INDEPENDENT:
        rows_n = y_n[binned.bounds_C[i] : stop]  # in bins that are too few to show a trend
        independent = int(len(rows_n) * (1 - phi) / (1 + phi))
        if independent >= FEW_BINS:
            z_to_peak = mann_kendall(block_medians(rows_n, min(independent, BINS))[0])
    risen = i <= n - 4 and rise > threshold
    falls_again = risen and z <= TREND_Z < z_to_peak
    fires, errors = falls_again or (risen and z > TREND_Z), rise / binned.se if binned.se > 0 else None
    (first, stop), fine = binned.rows(i), _fine_minimum(y_n, binned, i, peak - minimum)
    place, level = (minimum, first, stop, last, rise, peak), (threshold, binned.se, errors, drop)
    return Rebound(fires, falls_again, *place, *level, z, z_to_peak, *fine)


def _rebound_by_rows(y_n: Series, found: Rebound) -> Rebound:
    """Return the rebound of medians of three rows, if these rise farther than a random walk would."""
    median_n = np.median(np.lib.stride_tricks.sliding_window_view(y_n, LAST_BINS), axis=1)
    i, sigma = int(median_n.argmin()), noise(y_n)
    k = i + int(median_n[i:].argmax())
    minimum, peak = float(median_n[i]), float(median_n[k])
    end = len(y_n) - max(len(y_n) // 10, LAST_BINS)
    last = float(np.median(y_n[end:]))
    rise, drop = last - minimum, max(float(np.median(y_n[:LAST_BINS])) - minimum, 0.0)
    threshold = max(ERRORS * sigma, SHARE_OF_FALL * drop)
    walk = WALK_ERRORS * WALK_STEP * sigma * (k - i) ** 0.5
    if k - i <= LAST_BINS or rise <= threshold or peak - minimum <= walk:
        return found
    at = i + int(y_n[i : i + LAST_BINS].argmin())
    falls_again = k < end and peak - last > max(ERRORS * sigma, SHARE_OF_FALL * rise)
    errors = rise / sigma if sigma > 0 else None
    place, level = (minimum, i, i + LAST_BINS, last, rise, peak), (threshold, sigma, errors, drop)
    fine, fires = (float(y_n[at]), at, at + 1), True
    return Rebound(fires, falls_again, *place, *level, found.z, found.z_to_peak, *fine)


def _split_at_early_minimum(y_n: Series, binned: Bins) -> Bins:
    """Split the first bin at the lowest of its short blocks, if that is clearly below all bins.

    Blocks of 3, 6, 12 ... rows are tried; what comes before the lowest is left out.
    """
    _, end = binned.rows(0)
    phi, sigma = max(autocorrelation(y_n), 0.0), MEDIAN_TO_MEAN_ERROR * spread(y_n)
    best: tuple[float, float, int, int] | None = None
    size = LAST_BINS
    while 2 * size <= end:
        error = sigma / max(size * (1 - phi) / (1 + phi), 1.0) ** 0.5
        for first in range(0, end - 2 * size + 1, size):
            limit = float(np.median(y_n[first : first + size])) + ERRORS * error
            if best is None or limit < best[0]:
                best = limit, error, first, first + size
        size *= 2
    if best is None or best[0] >= binned.median_B.min():
        return binned
    _, error, first, stop = best
    split = [np.median(y_n[first:stop]), np.median(y_n[stop:end])]
    median_B = np.concatenate([split, binned.median_B[1:]])
    bounds_C = np.concatenate([[first, stop], binned.bounds_C[1:]])
    return replace(binned, median_B=median_B, bounds_C=bounds_C, se=max(binned.se, error))


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
        return float(binned.median_B[i]), *binned.rows(i)
    return float(fine_B[j]), int(bounds_C[j]), int(bounds_C[j + 1])


def regulariser_falls(r_n: Series, first: int) -> bool:
    """Return whether a regulariser falls (z < -2.33) from row `first` on; never below ten rows.

    A rebound of the loss beside it is then one of a proxy loss.
    """
    binned = bin_medians(r_n[first:])
    return binned is not None and mann_kendall(binned.median_B) < -TREND_Z


@dataclass(frozen=True)
class Drop:
    """A sudden drop after a rise, in units of the series."""

    fall: float  # from one bin to the next
    rise: float  # highest bin since the minimum, minus that minimum, before the drop
    before: float  # median of the bin before the drop
    after: float  # median of the one after it
    first: int  # first row of the bin after the drop
    stop: int  # the row after its last
    minimum: float  # lowest bin before the drop
    se: float  # standard error of a bin's median


def sudden_drops(y_n: Series) -> list[Drop] | None:
    """Find falls from one bin to the next by more than 6 se and half of the rise, after a rebound.

    The rebound is that of `rebound` on the curve so far; after the first drop the rise is enough,
    without its trend. Uses 30 bins, and 60, 120 and 240 if they hold eight rows, because 30 blur
    repeated drops. A spike shorter than three of the finest bins does not count. None below ten rows.
    Of 300 runs each of 60, 1000 and 3000 points, flat, fallen to a plateau or a power law: finds any in
    none with white or phi .9 noise, in at most .01 at phi .98.
    """
    found: list[Drop] = []
    for bins in (BINS, 2 * BINS, 4 * BINS, 8 * BINS):
        binned = bin_medians(y_n, bins)
        if binned is None:
            return None
        if bins > BINS and binned.rows_per_bin < 8:
            break
        for drop in _drops(y_n, binned):
            if all(drop.first >= other.stop or other.first >= drop.stop for other in found):
                found.append(drop)
    return sorted(found, key=lambda drop: drop.first)


def _drops(y_n: Series, binned: Bins) -> list[Drop]:
    median_B, se = binned.median_B, binned.se
    drops: list[Drop] = []
    candidates = np.flatnonzero(-np.diff(median_B) > ERRORS * se) + 1
    for j in candidates.tolist():
        before_B = median_B[:j]
        i = int(before_B.argmin())
        lowest, before, after = float(before_B[i]), float(before_B[-1]), float(median_B[j])
        rise, fall = float(before_B[i:].max() - lowest), before - after
        threshold = max(ERRORS * se, SHARE_OF_FALL * float(before_B[0] - lowest))
        has_risen = i <= j - 4 and float(np.median(before_B[-LAST_BINS:])) - lowest > threshold
        if fall > rise / 2 and has_risen and (drops or _has_rebounded(y_n, binned, j)):
            drops.append(Drop(fall, rise, before, after, *binned.rows(j), lowest, se))
    return drops


def _has_rebounded(y_n: Series, binned: Bins, j: int) -> bool:
    """Return whether the curve has rebounded, and not fallen again, before a bin."""
    found = rebound(y_n[: binned.rows(j)[0]])
    return found is not None and found.fires and not found.falls_again
