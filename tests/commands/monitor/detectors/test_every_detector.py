"""What all detectors have in common."""

import numpy as np
import pytest

from entropy_cli.commands.monitor.detectors.limits import (
    above_ceiling,
    below_floor,
    divergence,
    grows_without_bound,
)
from entropy_cli.commands.monitor.detectors.plateau import (
    plateau,
    standstill,
)
from entropy_cli.commands.monitor.detectors.rebound import rebound, sudden_drops
from entropy_cli.core.errors import ShapeError
from tests.curves import autoregressive, fires

DETECTORS = (plateau, standstill, rebound, sudden_drops, divergence, grows_without_bound)
ON_ONE_SERIES = (*DETECTORS, lambda y_n: below_floor(y_n, 0.0), lambda y_n: above_ceiling(y_n, 0.0))


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
