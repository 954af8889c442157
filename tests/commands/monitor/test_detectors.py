"""Detectors of training curves: what they see in known curves, and how often they are wrong by chance.

Rates are of seeded simulations; bounds allow for three binomial standard errors where a rate is stated.
"""

import csv
import itertools
import math
import re

import numpy as np
import pytest

from entropy_cli.commands.monitor.detectors.limits import (
    above_ceiling,
    below_floor,
    divergence,
    grows_without_bound,
)
from entropy_cli.commands.monitor.detectors.noise import (
    autocorrelation,
    bin_medians,
    block_medians,
    mann_kendall,
    noise,
    noise_above_rounding,
    spread,
    thin,
)
from entropy_cli.commands.monitor.detectors.overfitting import overfitting
from entropy_cli.commands.monitor.detectors.plateau import (
    never_moved,
    plateau,
    power_law_slope,
    standstill,
)
from entropy_cli.commands.monitor.detectors.rebound import rebound, regulariser_falls, sudden_drops
from entropy_cli.core.errors import ShapeError

DETECTORS = (plateau, standstill, rebound, sudden_drops, divergence, grows_without_bound)
ON_ONE_SERIES = (*DETECTORS, lambda y_n: below_floor(y_n, 0.0), lambda y_n: above_ceiling(y_n, 0.0))


def autoregressive(runs, points, phi, sd, seed=0):
    """AR(1) noise of a given standard deviation, (runs, points)."""
    noise_nR = np.random.default_rng(seed).standard_normal((points, runs))
    for before, row in itertools.pairwise(noise_nR):
        row *= (1 - phi**2) ** 0.5
        row += phi * before
    return sd * noise_nR.T


def fires(detector, y_n):
    found = detector(y_n)
    return bool(found) if isinstance(found, list) else found.fires


def rate(detector, curves):
    return np.mean([fires(detector, curve) for curve in curves])


def at_most(stated, runs):
    """The stated rate and three standard errors of one measured in so many runs."""
    return stated + 3 * math.sqrt(stated * (1 - stated) / runs)


# Noise


def test_noise_is_that_of_white_noise_on_any_slow_trend():
    t = np.linspace(0, 1, 5000)
    white_n = np.random.default_rng(0).normal(0, 0.03, 5000)
    for trend_n in (0 * t, 50 * t, np.exp(-5 * t), 1e6 + t):
        assert noise(trend_n + white_n) == pytest.approx(0.03, rel=0.05)
        assert spread(trend_n + white_n) == pytest.approx(0.03, rel=0.1)


def test_noise_by_hand():
    # second differences of 0 1 0 3 0: -2 4 -6; about their median -2: 0 6 4, of which the median is 4
    assert noise(np.array([0.0, 1, 0, 3, 0])) == pytest.approx(1.4826 * 4 / math.sqrt(6))


def test_noise_of_rounded_values_is_not_zero():
    y_n = np.round(np.random.default_rng(1).normal(2, 0.0002, 3000), 3)
    assert np.median(np.diff(y_n, 2)) == 0
    assert 0 < noise(y_n) <= 0.001 / math.sqrt(12)


def test_noise_below_the_step_of_printed_values_is_not_given():
    noise_n = np.random.default_rng(1).normal(2, 1, 3000)
    assert noise_above_rounding(noise_n.round(3)) == pytest.approx(1, rel=0.05)
    for sd in (0.0002, 0.0005):
        assert noise_above_rounding((sd * noise_n).round(3)) is None
    assert noise_above_rounding(np.full(50, 2.5)) is None


@pytest.mark.parametrize("y_n", [np.full(50, 0.1), np.linspace(0.1, 8.3, 50), np.array([1.0, 9, 2])])
def test_noise_of_nothing_noisy_is_zero(y_n):
    assert noise(y_n) == 0


@pytest.mark.parametrize("phi", [0, 0.5, 0.9, 0.98])
def test_autocorrelation_is_that_of_the_noise_not_of_the_trend(phi):
    t = np.arange(1, 10_001)
    for trend_n in (0 * t, 8 * t**-0.3, 2e-9 * (t - 4000.0) ** 2):
        found = [autocorrelation(trend_n + y_n) for y_n in autoregressive(5, 10_000, phi, 0.05)]
        assert np.mean(found) == pytest.approx(phi, abs=0.015)


def test_thinning_is_for_strong_autocorrelation_only():
    weak_n, strong_n = (autoregressive(1, 10_000, phi, 1)[0] for phi in (0.9, 0.98))
    assert len(thin(weak_n)[0]) == 10_000
    row_n, start_C = thin(strong_n)
    assert 60 < len(row_n) < 160  # 10,000 (1 - phi) / (1 + phi) is 101
    assert start_C[-1] == 10_000
    assert row_n[7] == np.median(strong_n[start_C[7] : start_C[8]])


@pytest.mark.parametrize("points", [10, 29, 30, 31, 59, 1003])
def test_bins_hold_every_row_once(points):
    y_n = np.random.default_rng(0).random(points)
    median_B, bounds_C = block_medians(y_n, 30)
    assert bounds_C[0] == 0
    assert bounds_C[-1] == points
    assert set(np.diff(bounds_C)) <= {points // 30, points // 30 + 1, 1}
    parts = [y_n[a:b] for a, b in itertools.pairwise(bounds_C)]
    np.testing.assert_array_equal(median_B, [np.median(part) for part in parts])


@pytest.mark.parametrize("phi", [0, 0.5, 0.9, 0.98])
def test_the_error_of_a_bin_is_what_bins_scatter_by(phi):
    cuts = [bin_medians(y_n) for y_n in autoregressive(40, 10_000, phi, 1)]
    scatter = np.mean([binned.median_B.std() for binned in cuts])
    assert np.mean([binned.se for binned in cuts]) == pytest.approx(scatter, rel=0.15)


def test_mann_kendall_against_the_sum_over_pairs():
    y_n = np.round(np.random.default_rng(2).random(25) + np.linspace(0, 1, 25), 1)
    score = sum(np.sign(b - a) for a, b in itertools.combinations(y_n, 2))
    ties = [list(y_n).count(value) for value in set(y_n)]
    variance = (25 * 24 * 55 - sum(k * (k - 1) * (2 * k + 5) for k in ties)) / 18
    assert mann_kendall(y_n) == pytest.approx((score - 1) / math.sqrt(variance))
    assert mann_kendall(-y_n) == pytest.approx(-mann_kendall(y_n))
    assert mann_kendall(np.ones(9)) == 0


# What all have in common


@pytest.mark.parametrize("detector", ON_ONE_SERIES)
def test_too_few_points_are_no_judgement(detector):
    for points in (0, 1, 2, 3, 7):
        assert detector(np.arange(points, dtype=float)) is None


@pytest.mark.parametrize("detector", ON_ONE_SERIES)
@pytest.mark.parametrize("y_n", [np.full(400, 2.5), np.zeros(400), np.linspace(8, 2, 400)])
def test_without_noise_or_rise_nothing_alarms(detector, y_n):
    expected = detector is plateau and y_n[0] == y_n[-1]
    if detector is ON_ONE_SERIES[-1]:
        expected = y_n[0] > 0  # above zero, and no bin at it
    assert fires(detector, y_n) == expected


@pytest.mark.parametrize("detector", ON_ONE_SERIES)
def test_what_is_not_a_finite_series_is_refused(detector):
    with pytest.raises(ShapeError, match="one dimension"):
        detector(np.zeros((20, 20)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        detector(np.array([1.0] * 99 + [np.nan]))


@pytest.mark.parametrize("detector", ON_ONE_SERIES)
def test_units_do_not_matter(detector):
    t = np.arange(2000) / 2000
    y_n = np.abs(t - 0.4) + autoregressive(1, 2000, 0, 0.05)[0] + 1
    for scale in (1e-6, 1e6):
        scaled = (lambda y_n, s=scale: plateau(y_n, 0.005 * s)) if detector is plateau else detector
        assert fires(scaled, scale * y_n) == fires(detector, y_n)


# Plateau


@pytest.mark.parametrize(
    ("phi", "false", "power"), [(0, 0.007, 1), (0.9, 0.02, 0.46), (0.98, 0.047, 0.15)]
)
def test_plateaus_fire_as_often_as_stated(phi, false, power):
    runs, points = 300, 4000
    last_n = np.maximum(np.arange(points) / points - 0.75, 0) / 0.25
    falling = rate(plateau, autoregressive(runs, points, phi, 0.05, seed=1) - 0.01 * last_n)
    assert falling <= at_most(false, runs)
    flat = rate(plateau, autoregressive(runs, points, phi, 0.005, seed=2))
    assert flat >= power - (at_most(power, runs) - power)


def test_plateau_slope_against_numpy():
    y_n = autoregressive(1, 800, 0.5, 0.05)[0] - np.arange(800) * 1e-4
    found = plateau(y_n)
    mean_B = y_n[600:].reshape(20, 10).mean(1)
    slope, _ = np.polyfit(np.arange(20), mean_B, 1)
    assert (found.first, found.points, found.blocks) == (600, 200, 20)
    assert found.gain == pytest.approx(-slope * 20, rel=1e-9)
    assert not found.fires


@pytest.mark.parametrize(
    ("points", "blocks"), [(31, None), (32, 8), (60, 15), (79, 19), (80, 20), (200, 20)]
)
def test_plateau_of_short_curves(points, blocks):
    found = plateau(8 - np.arange(points) * 0.001)
    assert (found and found.blocks) == blocks
    if found:
        assert found.gain == pytest.approx(0.001 * found.points, rel=1e-6)


def test_plateau_tells_a_rise_from_the_end_of_a_fall():
    rising = plateau(np.arange(400) * 0.001)
    assert rising.rising
    assert rising.gain == pytest.approx(-0.1)
    assert not plateau(np.full(400, 3.0)).rising


@pytest.mark.parametrize("decimals", [1, 2])
def test_what_rounding_hides_is_no_plateau(decimals):
    for points, power in ((400, 0.3), (4000, 0.5), (40_000, 0.3)):
        curve_n = (4 + 4 * np.arange(1, points + 1) ** -power).round(decimals)
        assert not plateau(curve_n).fires and not standstill(curve_n).fires
    noisy_n = 4 + np.exp(-np.arange(40_000) / 40) + autoregressive(1, 40_000, 0, 0.02)[0]
    assert plateau(noisy_n.round(2)).fires  # noise shows what lies between two steps


def test_a_power_law_never_stands_still():
    for points, power, sd, phi in ((200, 0.1, 0.2, 0), (1000, 0.3, 0.05, 0.9), (4000, 0.5, 0.005, 0)):
        curve_n = 5 + 3 * np.arange(1, points + 1) ** -power
        assert rate(standstill, curve_n + autoregressive(100, points, phi, sd)) <= at_most(0.005, 100)


def test_a_standstill_shows_in_noise_that_hides_a_plateau():
    fall_n = np.maximum(8 - 9 * np.arange(4000) / 4000, 5)
    curves = fall_n + autoregressive(100, 4000, 0, 0.05)
    assert rate(standstill, curves) >= 0.95
    assert rate(plateau, curves) <= 0.3
    found = standstill(fall_n)
    assert (found.first, found.before) == (2000, 1000)
    assert found.earlier == pytest.approx(8 - 9 / 4 - 5, abs=1e-9)
    assert found.gain == 0
    assert not standstill(5 + np.abs(np.arange(400) / 200 - 1)).fires  # rises again


# Losses that never moved


@pytest.mark.parametrize(("points", "sd"), [(100, 0.005), (1000, 0.02), (1000, 0.0)])
def test_a_loss_that_never_moved(points, sd):
    flat = 5 + autoregressive(100, points, 0, sd)
    assert rate(never_moved, flat) >= 0.95
    t = np.arange(points) / points
    for moved_n in (-0.15 * t, 0.15 * t, 0.2 * np.exp(-50 * t), 0.3 * (np.arange(points) < 3)):
        assert rate(never_moved, flat + moved_n) == 0


def test_too_noisy_or_too_short_to_say_that_nothing_moved():
    assert rate(never_moved, 5 + autoregressive(100, 1000, 0, 0.5)) == 0
    noisy = 5 + autoregressive(100, 1000, 0, 0.1)
    assert rate(never_moved, noisy) >= 0.9
    assert rate(never_moved, noisy - 0.2 * np.arange(1000) / 1000) == 0
    assert never_moved(np.full(31, 5.0)) is None
    assert not never_moved(np.zeros(100)).fires  # a part that is switched off


# Overfitting


def validation(evaluations, rise, runs, seed):
    """Falls to 6 at 60 % of the run, rises from there; white noise .01; training falls to the end."""
    t = np.arange(1, evaluations + 1) / evaluations
    mean_n = 6 + 2 * np.exp(-5 * t / 0.6) + rise * np.maximum(t - 0.6, 0) / 0.4
    return mean_n + autoregressive(runs, evaluations, 0, 0.01, seed)


@pytest.mark.parametrize(("evaluations", "power"), [(10, 0.04), (20, 0.67), (40, 1.0)])
def test_overfitting_fires_as_often_as_stated(evaluations, power):
    runs, train_n = 500, np.linspace(7, 6, evaluations)

    def fires(curves):
        return np.mean([overfitting(curve, train_n).fires for curve in curves])

    slack = at_most(power, runs) - power + 0.005
    assert fires(validation(evaluations, 0.095, runs, 0)) >= power - slack
    assert fires(validation(evaluations, 0.0, runs, 1)) <= at_most(0.002, runs)
    falling_n = 5 + 2 * (200 * np.arange(1, evaluations + 1) / evaluations) ** -0.3
    assert fires(falling_n + autoregressive(runs, evaluations, 0, 0.01)) <= at_most(0.002, runs)
    assert fires(autoregressive(runs, evaluations, 0, 0.01)) <= at_most(0.01, runs)
    assert fires(autoregressive(runs, evaluations, 0.5, 0.01)) <= at_most(0.05, runs)


def test_many_evaluations_are_judged_by_medians():
    t = np.arange(30_000) / 30_000  # all pairs of them would take gigabytes
    val_n = 5 + np.abs(t - 0.4) + autoregressive(1, 30_000, 0.5, 0.3)[0]
    found = overfitting(val_n, 3 - t)
    assert found.fires and found.rows == 300
    assert found.best == np.median(val_n[300 * (found.best_index // 300) :][:300])
    assert found.best_index == pytest.approx(12_000, abs=1500)
    assert not overfitting(val_n - np.abs(t - 0.4), 3 - t).fires


def test_overfitting_that_alternates():
    """A published run's: all after the fifth lie above the best, every other one far above."""
    val_n = [0.45, 0.436, 0.445, 0.452, 0.441, 0.53, 0.555, 0.51, 0.527, 0.55, 0.643, 0.537, 0.694]
    val_n = np.array([*val_n, 0.54, 0.661, 0.547, 0.709, 0.731])
    train_n = np.linspace(0.5, 0.12, 18)
    found = overfitting(val_n, train_n)
    assert found.fires and found.best_index == 1
    assert found.z > 3.09
    t, swing = np.arange(20) / 20, 0.05 * (-1.0) ** np.arange(20)
    rising, flat = ([c + swing + w for w in autoregressive(200, 20, 0, 0.03)] for c in (0.4 * t, 0 * t))
    falling_n = np.linspace(7, 6, 20)
    assert np.mean([overfitting(curve, falling_n).fires for curve in rising]) > 0.7
    assert np.mean([overfitting(curve, falling_n).fires for curve in flat]) <= 0.01


def test_overfitting_needs_ten_evaluations_and_a_training_loss_that_falls():
    val_n = validation(40, 0.2, 1, 0)[0]
    found = overfitting(val_n, np.linspace(7, 6, 40))
    assert found.fires
    assert found.best == val_n.min() == val_n[found.best_index]
    assert found.last == tuple(val_n[-3:])
    assert not overfitting(val_n, np.linspace(6, 7, 40)).fires
    assert overfitting(val_n[:9], np.linspace(7, 6, 9)) is None
    with pytest.raises(ShapeError, match="39 training losses for 40"):
        overfitting(val_n, np.zeros(39))


# Rebound and drops

T = np.arange(3000) / 3000
FALL = 1 - np.minimum(T / 0.2, 1)


@pytest.mark.parametrize(("phi", "flat", "power_law"), [(0, 0, 0), (0.9, 0.015, 0), (0.98, 0.065, 0.02)])
def test_rebound_and_drop_rates_on_noise(phi, flat, power_law):
    runs = 150
    noise_Rn = autoregressive(runs, 3000, phi, 0.05, seed=3)
    falling_n = 4 + 4 * np.arange(1, 3001) ** -0.3
    assert rate(rebound, noise_Rn) <= at_most(flat, runs)
    assert rate(rebound, falling_n + noise_Rn) <= at_most(power_law, runs)
    for curves in (noise_Rn, falling_n + noise_Rn):
        assert rate(sudden_drops, curves) <= at_most(0.015 if phi else 0, runs)
        assert rate(divergence, curves) <= at_most(0.003 if phi else 0, runs)
    assert rate(lambda y_n: below_floor(y_n, 0.0), noise_Rn) <= at_most(0.008 if phi else 0, runs)


@pytest.mark.parametrize("points", [1000, 3000])
def test_every_rise_of_four_sigma_is_seen(points):
    curves = (FALL + 0.2 * np.maximum(T - 0.4, 0) / 0.6)[:: 3000 // points] + autoregressive(
        100, points, 0, 0.05
    )
    assert rate(rebound, curves) == 1
    assert rate(sudden_drops, curves) == 0


def test_rebound_of_a_curve_by_hand():
    found = rebound(FALL + np.maximum(T - 0.4, 0))
    assert found.fires
    assert not found.falls_again
    assert found.first <= 1200 <= found.stop + 900  # the lowest is flat, from 600 on
    assert found.minimum == pytest.approx(0, abs=1e-12)
    assert found.rise == pytest.approx(0.55, abs=2e-3)  # the last three bins are centred at .95
    assert found.drop == pytest.approx(1, abs=0.1)


def test_a_minimum_in_the_third_row():
    """Down in two rows, up in twenty, then slowly down again, but by far not to the minimum."""
    level_n = np.interp(np.arange(600), [0, 2, 20, 60, 599], [0.179, 0.083, 0.186, 0.243, 0.145])
    for curve_n in level_n + autoregressive(20, 600, 0, 0.001):
        found = rebound(curve_n)
        assert found.fires and found.falls_again
        assert (found.fine_first, found.fine_stop) == (2, 3)
        assert found.fine_minimum == curve_n[2]
    falls_n = np.interp(np.arange(600), [0, 2, 20, 60, 599], [0.179, 0.083, 0.186, 0.243, 0.07])
    assert not rebound(falls_n + autoregressive(1, 600, 0, 0.001)[0]).fires


@pytest.mark.parametrize("points", [40, 60, 100, 200])
def test_a_short_curve_without_much_noise(points):
    """Down in a few rows, up in ten more, then slowly down: too few bins to show a trend."""
    peak = max(16, points // 10)
    level_n = np.interp(np.arange(points), [0, 6, peak, points - 1], [0.18, 0.083, 0.24, 0.145])
    for curve_n in level_n + autoregressive(20, points, 0, 0.002):
        found = rebound(curve_n)
        assert found.fires and found.falls_again
        assert found.fine_minimum == curve_n[found.fine_first]
        assert found.fine_first == pytest.approx(6, abs=1)
        assert found.last - found.minimum == found.rise
    for phi in (0.9, 0.98, 0.999):  # a random walk of the same steps does not rise as far
        for curve_n in autoregressive(50, points, phi, 1.0, seed=5):
            found = rebound(curve_n)
            assert not found.fires or found.z > 2.33 or found.z_to_peak > 2.33
    level_n = np.interp(np.arange(points), [0, 6, peak, points - 1], [0.18, 0.083, 0.24, 0.06])
    assert rate(rebound, level_n + autoregressive(20, points, 0, 0.002)) == 0


def test_a_slow_rise_in_noise():
    rise_n = np.repeat([3.69, 3.6, 3.72], [300, 220, 600])
    assert rate(rebound, rise_n + autoregressive(100, 1120, 0, 0.14)) > 0.4
    assert rate(rebound, 3.7 + autoregressive(100, 1120, 0, 0.14)) == 0
    creeps_n = 3.66 + 0.09 * np.maximum(np.arange(2000) / 2000 - 0.1, 0)
    assert rate(rebound, creeps_n + autoregressive(100, 2000, 0, 0.1)) > 0.3
    assert rate(rebound, 3.7 + autoregressive(100, 2000, 0.9, 0.1)) == 0


def test_an_early_short_minimum_and_a_late_fall():
    """The curve of an EMA-target run: down in 1 % of it, up until 40 %, then slowly down again."""
    epoch = [0, 3, 7, 50, 100, 150, 200, 250, 300, 400, 500, 600]
    level = [0.47, 0.06, 0.0322, 0.102, 0.083, 0.125, 0.188, 0.208, 0.208, 0.190, 0.166, 0.152]
    at = np.arange(60_000) / 100
    found = rebound(np.interp(at, epoch, level) + autoregressive(1, 60_000, 0, 0.01)[0])
    assert found.fires
    assert found.falls_again
    assert found.minimum == pytest.approx(0.034, abs=0.002)  # not that of twenty epochs
    assert found.fine_minimum == pytest.approx(0.0322, abs=0.002)
    assert 600 <= found.fine_first < found.fine_stop <= 800
    assert found.peak == pytest.approx(0.208, abs=0.002)
    assert found.last == pytest.approx(0.156, abs=0.002)


def test_a_regulariser_that_falls_beside_a_rebound():
    white_n = autoregressive(1, 3000, 0, 0.05)[0]
    assert regulariser_falls(-T + white_n, 1000)
    assert not regulariser_falls(T + white_n, 1000)
    assert not regulariser_falls(white_n, 1000)
    assert not regulariser_falls(FALL + white_n, 700)  # it fell before
    assert not regulariser_falls(-T + white_n, 2995)  # too few


@pytest.mark.parametrize("points", [100, 3000])
def test_one_drop_is_found_where_it_is(points):
    collapse_n = np.interp(np.arange(points) / points, [0, 0.1, 0.6, 0.6], [0.5, 0.2, 0.5, 0.002])
    (drop,) = sudden_drops(collapse_n + autoregressive(1, points, 0, 0.002)[0])
    assert drop.first <= 0.62 * points and drop.before == pytest.approx(0.5, abs=0.04)
    curve_n = FALL + 0.2 * np.clip((T - 0.3) / 0.4, 0, 1) * (T < 0.7)
    found = [sudden_drops(curve_n + white_n) for white_n in autoregressive(50, 3000, 0, 0.05)]
    for drops in found:
        assert drops
        for drop in drops:
            assert drop.first <= 2150
            assert drop.stop >= 2050
            assert drop.fall > drop.rise / 2


def test_drops_that_repeat_are_all_found():
    step = np.arange(40_000)
    saw_n = np.where(step < 4000, 0.5 - 0.3 * np.minimum(step / 2000, 1), 0.2)
    saw_n = saw_n + 0.15 * (np.maximum(step - 4000, 0) % 4000) / 4000
    drops = sudden_drops(saw_n + autoregressive(1, 40_000, 0, 0.01)[0])
    ends = np.arange(8000, 40_000, 4000)
    assert len(drops) == len(ends)
    for drop, end in zip(drops, ends, strict=True):
        assert drop.first - 700 <= end <= drop.stop


def test_a_spike_is_no_drop():
    curve_n = FALL + 0.5 * ((T > 0.6) & (T < 0.606)) + autoregressive(1, 3000, 0, 0.05)[0]
    assert not sudden_drops(curve_n)
    assert not rebound(curve_n).fires


# Divergence, growth, bounds


def test_divergence_is_a_rise_above_the_start():
    white_Rn = autoregressive(50, 1000, 0, 0.05)
    t = np.arange(1000) / 1000
    assert rate(divergence, 0.5 * t + white_Rn) == 1
    assert rate(divergence, 0.5 * (1 - t) + white_Rn) == 0
    for rise in np.linspace(0.1, 0.6, 40):  # around six errors
        found = divergence(rise * t + white_Rn[0])
        assert found.rise == found.last - found.start
        assert found.se == pytest.approx(math.hypot(found.start_se, found.last_se))
        assert found.fires == (found.rise > 6 * found.se)
    assert found.start_se == pytest.approx(0.05, rel=0.1)
    found = divergence(0.5 * t)
    assert (found.start, found.last_first) == (0, 900)
    assert found.last == pytest.approx(0.47475)


@pytest.mark.parametrize(
    ("shape", "fires"),
    [
        (lambda t: t * 0 + 1, 0),
        (lambda t: 3**t, 0),
        (lambda t: np.minimum(t / 0.05, 1), 0),
        (lambda t: np.where(t < 0.2, 0, 1), 0),
        (lambda t: np.where(t < 0.9, 0, 1), 0),
        (lambda t: 1 / (t + 0.02), 0),
        (lambda t: np.exp(10 * t), 1),
        (lambda t: np.exp(np.maximum(t - 0.8, 0) * 40), 1),
    ],
)
def test_growth_without_bound_among_heavy_tailed_norms(shape, fires):
    norms_Rn = shape(np.arange(1000) / 1000) * np.exp(autoregressive(200, 1000, 0, 1))
    assert rate(grows_without_bound, norms_Rn) == fires


def test_below_and_above_count_standard_errors():
    white_n = autoregressive(1, 3000, 0, 0.05)[0]
    error = 1.2533 * 0.05 / math.sqrt(300)
    found = below_floor(white_n + 5, 5.1)
    assert found.fires
    assert found.last_se == pytest.approx(error, rel=0.3)
    assert found.last_deviations == pytest.approx((5.1 - found.last) / found.last_se)
    assert not below_floor(white_n + 5, 5.1, floor_se=0.03).fires
    assert above_ceiling(white_n + 5, 4.9).fires
    assert not above_ceiling(white_n + 5, 5.1).fires
    assert above_ceiling(white_n + 5 + np.maximum(T - 0.5, 0), 5.2).fires  # at the end
    assert not above_ceiling(white_n + 5.5 - np.maximum(T - 0.5, 0), 5.2).fires  # only before
    exact = below_floor(np.full(100, 2.0), 2.5)
    assert exact.fires
    assert exact.last_deviations is None


def test_power_law_slope_of_a_power_law():
    step = np.arange(1.0, 20_001)
    found = power_law_slope(step, 3 * step**-0.31)
    assert found.slope == pytest.approx(-0.31, abs=1e-3)
    loss_Rn = 3 * step**-0.31 + autoregressive(40, 20_000, 0.9, 0.02)
    fits = [power_law_slope(step, loss_n) for loss_n in loss_Rn]
    far = [abs(fit.slope + 0.31) / fit.se for fit in fits]
    assert np.mean(np.array(far) < 2.5) >= 0.9
    assert power_law_slope(step, 3 * step**-0.31 - 0.2) is None  # falls below the floor
    assert power_law_slope(step[10_000:], step[10_000:] ** -0.31) is None  # less than a factor of four
    assert power_law_slope(step[:6], step[:6] ** -0.31) is None
    with pytest.raises(ValueError, match="ascending"):
        power_law_slope(step[::-1], step)


# Real logs


def test_a_healthy_training_has_neither_rebound_nor_plateau(shared):
    path = shared / "logs" / "varclip_class_conditional_imagenet.log"
    lines = re.findall(r"\(training \)\s+Lm: [\d.]+ \(([\d.]+)\)", path.read_text(errors="replace"))
    y_n = np.array(lines, dtype=float)
    assert len(y_n) == 200
    assert noise(y_n) == pytest.approx(0.0094, abs=2e-4)
    found = plateau(y_n)
    assert found.gain == pytest.approx(0.053, abs=0.002)
    assert found.gain_error == pytest.approx(0.005, abs=0.0015)
    assert not any(fires(d, y_n) for d in (plateau, rebound, sudden_drops, divergence))
    assert not below_floor(y_n, 5.1, 0.02).fires
    assert below_floor(y_n, 6.2, 0.02).fires


def test_a_rebound_of_a_real_training_is_found_by_row_and_by_epoch(shared):
    with (shared / "logs" / "lazaros_tin_r0.csv").open() as file:
        rows = [row for row in csv.reader(file) if row and row[0] != "epoch"]
    epoch_n = np.array([int(row[0]) for row in rows])
    loss_n = np.array([float(row[2]) for row in rows])
    mean_n = np.array([loss_n[epoch_n == epoch].mean() for epoch in range(1, 43)])
    found = rebound(loss_n)
    assert found.fires
    assert not found.falls_again
    assert 17 <= epoch_n[found.first] <= epoch_n[found.stop - 1] <= 18
    assert found.minimum == pytest.approx(0.0263, abs=0.001)
    by_epoch = rebound(mean_n)
    assert by_epoch.fires
    assert by_epoch.first <= mean_n.argmin() < by_epoch.stop
    assert plateau(loss_n).rising
    assert not sudden_drops(loss_n)
