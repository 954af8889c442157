"""The noise of a curve: its size, its autocorrelation, and medians of bins."""

import itertools
import math

import numpy as np
import pytest

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
from tests.curves import autoregressive


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
