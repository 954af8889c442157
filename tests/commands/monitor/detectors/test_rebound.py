"""Rebounds, sudden drops, and what a regulariser does meanwhile.

Rates are of seeded simulations; bounds allow for three binomial standard errors where a rate is stated.
"""

import csv
import re

import numpy as np
import pytest

from entropy_cli.commands.monitor.detectors.limits import (
    below_floor,
    divergence,
)
from entropy_cli.commands.monitor.detectors.noise import (
    noise,
)
from entropy_cli.commands.monitor.detectors.plateau import (
    plateau,
)
from entropy_cli.commands.monitor.detectors.rebound import rebound, regulariser_falls, sudden_drops
from tests.curves import at_most, autoregressive, fires, rate

T = np.arange(3000) / 3000
FALL = 1 - np.minimum(T / 0.2, 1)


@pytest.mark.parametrize(("phi", "flat", "power_law"), [(0, 0, 0), (0.9, 0.015, 0), (0.98, 0.065, 0.02)])
def test_rebound_and_drop_rates_on_noise(phi, flat, power_law):
    runs = 60
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
    assert rate(rebound, rise_n + autoregressive(40, 1120, 0, 0.14)) > 0.4
    assert rate(rebound, 3.7 + autoregressive(40, 1120, 0, 0.14)) == 0
    creeps_n = 3.66 + 0.09 * np.maximum(np.arange(2000) / 2000 - 0.1, 0)
    assert rate(rebound, creeps_n + autoregressive(40, 2000, 0, 0.1)) > 0.3
    assert rate(rebound, 3.7 + autoregressive(40, 2000, 0.9, 0.1)) == 0


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
