"""Plateaus, losses that never moved, and power laws of time.

Rates are of seeded simulations; bounds allow for three binomial standard errors where a rate is stated.
"""

import numpy as np
import pytest

from entropy_cli.commands.monitor.detectors.plateau import (
    never_moved,
    plateau,
    power_law_slope,
    standstill,
)
from tests.curves import at_most, autoregressive, rate


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
