"""Divergence, gradients that grow, and losses beyond a bound."""

import math

import numpy as np
import pytest

from entropy_cli.commands.monitor.detectors.limits import (
    above_ceiling,
    below_floor,
    divergence,
    grows_without_bound,
)
from tests.curves import autoregressive, rate

T = np.arange(3000) / 3000


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
