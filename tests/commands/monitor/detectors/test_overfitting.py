"""Validation that rises while training falls.

Rates are of seeded simulations; bounds allow for three binomial standard errors where a rate is stated.
"""

import numpy as np
import pytest

from entropy_cli.commands.monitor.detectors.overfitting import overfitting
from entropy_cli.core.errors import ShapeError
from tests.curves import at_most, autoregressive


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


def test_overfitting_whose_noise_grows():
    """The last evaluations lie 70 % above the best and more, and scatter as much."""
    val_n = [0.45, 0.43, 0.45, 0.44, 0.46, 0.51, 0.47, 0.53, 0.53, 0.56, 0.65, 0.64, 0.67, 0.74, 0.86]
    found = overfitting(np.array([*val_n, 1.3, 0.74, 1.03, 1.12]), np.linspace(0.5, 0.04, 19))
    assert found.fires and found.best_index == 1
    assert found.rise == pytest.approx(1.03 - 0.45)


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
    begins = np.arange(20) > 2
    far = [c + (swing + 0.05) * 1.5 * begins + 0.3 * t for c in autoregressive(100, 20, 0, 0.01)]
    assert np.mean([overfitting(curve, falling_n).fires for curve in far]) > 0.9
    assert not any(overfitting(curve - 0.3 * t, falling_n).fires for curve in far)
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
