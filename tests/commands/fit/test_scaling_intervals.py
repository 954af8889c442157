"""Intervals of scaling laws cover as promised, and verdicts are as stated."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit

from entropy_cli.commands.fit.intervals import (
    bootstrap,
    central_interval,
    likelihood,
    profile_interval,
    profile_statistic,
)
from entropy_cli.commands.fit.scaling_law import (
    Fit,
    Optima,
    fit,
    make_data,
    minimise,
    parameter_bounds,
    parameters,
    residuals,
    start_grid,
)
from entropy_cli.commands.fit.verdict import judge_fit, judge_points

E, N0, ALPHA = 5.0, 4e8, 0.2
VAR = np.array([310e6, 600e6, 1e9, 2e9])


def sizes_of(count):
    return np.geomspace(18e6, 2e9, count)


def drawn(sizes, noise, generator):
    """A fit to points of the true law with so many nats of noise."""
    return fit_from_the_truth(
        sizes, E + (N0 / sizes) ** ALPHA + noise * generator.standard_normal(len(sizes))
    )


def fit_from_the_truth(sizes, losses):
    """A fit by one search, which starts at the true law instead of a grid."""
    data = make_data([sizes], losses)
    start = np.array([math.log(E), ALPHA * (math.log(N0) - data.centre_T[0]), ALPHA])
    theta, value = minimise(start, data, parameter_bounds(data))
    return Fit(data, theta, None, value, Optima(1, 1, (0.0, 0.0)))


def estimates_of(sizes, noise, runs):
    generator = np.random.default_rng(0)
    return [math.exp(drawn(sizes, noise, generator).theta[0]) for _ in range(runs)]


@pytest.mark.parametrize(
    ("sizes", "noise", "low", "high"),
    [
        (sizes_of(12), 0.001, 4.988, 5.012),
        (sizes_of(12), 0.005, 4.927, 5.072),
        (sizes_of(12), 0.02, 4.744, 5.220),
        (sizes_of(6), 0.005, 4.95, 5.08),
        (VAR, 0.001, 4.91, 5.09),
    ],
)
def test_estimates_spread_as_they_should(sizes, noise, low, high):
    """The 5 to 95 % range of E; its ends are known to about a third of its width."""
    found = np.quantile(estimates_of(sizes, noise, 150), [0.05, 0.95])
    assert found == pytest.approx([low, high], abs=(high - low) / 3)


@pytest.mark.parametrize("count", [12])
def test_profile_intervals_cover_the_truth(count):
    """Of 300 runs 95 % should: two standard errors are 2.5 %. The ends are tested below."""
    generator = np.random.default_rng(count)
    inside = 0
    for _ in range(300):
        found = drawn(sizes_of(count), 0.005, generator)
        working = likelihood(found)
        critical = stdtrit(working.degrees, 0.975) ** 2
        inside += profile_statistic(found, working, "E", E) < critical
    assert 0.925 < inside / 300 < 0.98


def test_the_profile_is_nearly_the_f_interval_of_least_squares_when_nothing_is_far_off():
    """At E few residuals pass the threshold, so it is nearly the textbook's."""
    sizes = sizes_of(10)
    losses = (E + (N0 / sizes) ** ALPHA) * np.exp(1e-3 * np.array([1, -1, -1, 1, 1, -1, 1, -1, -1, 1]))
    data = make_data([sizes], losses)
    found = fit(data)
    working = likelihood(found)
    low, high = profile_interval(found, working, "E")
    assert np.all(abs(residuals(found.theta, data)) < working.threshold)
    _, best = minimise(found.theta, data, parameter_bounds(data), math.inf)
    for end in (low, high):
        start = np.array([math.log(end), *found.theta[1:]])
        _, there = minimise(start, data, parameter_bounds(data, math.log(end)), math.inf)
        ratio = (there - best) / (best / (10 - 3))
        assert ratio == pytest.approx(stdtrit(7, 0.975) ** 2, rel=0.1)


def test_the_gain_is_that_of_the_likelihood_ratio_type_test():
    """Huber & Ronchetti, sec. 13.3: the mean of psi' over that of psi^2, of which some are clipped."""
    found = drawn(sizes_of(12), 0.02, np.random.default_rng(3))
    working = likelihood(found)
    residual_P = residuals(working.theta, found.data)
    is_inside_P = abs(residual_P) < working.threshold
    assert 0 < is_inside_P.sum() < 12
    psi_P = np.where(is_inside_P, residual_P, np.sign(residual_P) * working.threshold)
    expected = 2 * is_inside_P.mean() / ((psi_P**2).sum() / (12 - 3))
    assert working.gain == pytest.approx(expected)


@pytest.mark.parametrize("name", ["E", "N0", "alpha"])
def test_each_parameter_has_an_interval_around_it(name):
    found = drawn(sizes_of(8), 0.005, np.random.default_rng(1))
    working = likelihood(found)
    low, high = profile_interval(found, working, name)
    narrow = profile_interval(found, working, name, 0.5)
    ends = [profile_statistic(found, working, name, end) for end in (low, high)]
    assert ends == pytest.approx([stdtrit(5, 0.975) ** 2] * 2, rel=0.01)
    assert low < narrow[0] < parameters(found.theta, found.data)[name] < narrow[1] < high


def test_intervals_of_a_law_of_model_and_data_size():
    sizes, tokens = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(5e7, 1e10, 6), np.geomspace(1e9, 3e11, 6))
    )
    losses = 1.8 + 480 / sizes**0.35 + 2100 / tokens**0.37
    data = make_data(
        [sizes, tokens], losses * np.exp(0.002 * np.random.default_rng(0).standard_normal(36))
    )
    found = fit(data)
    working = likelihood(found)
    for name, truth in {"E": 1.8, "A": 480, "B": 2100, "alpha": 0.35, "beta": 0.37}.items():
        low, high = profile_interval(found, working, name, 0.99)
        assert low < truth < high
        assert low < parameters(found.theta, data)[name] < high


def test_points_on_the_curve_leave_nothing_open():
    sizes = sizes_of(6)
    found = fit(make_data([sizes], E + (N0 / sizes) ** ALPHA))
    low, high = profile_interval(found, likelihood(found), "E")
    assert low == pytest.approx(E, abs=1e-3)
    assert high == pytest.approx(E, abs=1e-3)


def test_as_many_points_as_parameters_have_no_likelihood():
    sizes = sizes_of(3)
    assert likelihood(fit(make_data([sizes], E + (N0 / sizes) ** ALPHA))) is None


def test_the_bootstrap_is_seeded_and_of_the_same_size_as_the_profile():
    found = drawn(sizes_of(12), 0.005, np.random.default_rng(3))
    told = []
    first = bootstrap(found, 60, 1, told.append)
    again = bootstrap(found, 60, 1, lambda _: None)
    other = bootstrap(found, 60, 2, lambda _: None)
    assert sum(told) == 60
    assert np.array_equal(first["E"], again["E"])
    assert not np.array_equal(first["E"], other["E"])
    low, high = central_interval(first["E"], 0.95)
    wide = np.subtract(*profile_interval(found, likelihood(found), "E")[::-1])
    assert wide / 3 < high - low < 3 * wide


def test_a_given_floor_has_no_interval_and_the_rest_has():
    sizes = sizes_of(12)
    noise = 0.005 * np.random.default_rng(0).standard_normal(12)
    found = fit(make_data([sizes], E + (N0 / sizes) ** ALPHA + noise), math.log(E))
    working = likelihood(found)
    assert working.degrees == 10
    low, high = profile_interval(found, working, "alpha")
    assert low < ALPHA < high
    assert high - low < 0.02
    assert bootstrap(found, 10, 0, lambda _: None)["E"] == pytest.approx([E] * 10)


def test_exponents_at_a_bound_are_told():
    sizes = sizes_of(8)
    assert fit(make_data([sizes], 5 + (1.8e7 / sizes) ** 6)).at_bound == "alpha"
    assert fit(make_data([sizes], E + (N0 / sizes) ** ALPHA)).at_bound is None


LOSSES = E + (N0 / sizes_of(8)) ** ALPHA


@pytest.mark.parametrize(
    ("sizes", "losses", "given", "words"),
    [
        ([1e7, 1e8, 1e9], [7, 6, 5.5], False, "distinct sizes: 3, at least 4"),
        ([1e7, 1e8, 1e9] * 2, [7, 6, 5.5] * 2, False, "distinct sizes: 3"),
        (VAR, [6.05, 5.92, 5.83, 5.72], False, "0.81 decades"),
        (VAR, [6.05, 5.92, 5.83, 5.72], True, None),
        ([1e8, 1.5e8, 2e8], [6.05, 5.92, 5.83], True, "a factor of 2"),
        ([1e8, 1e9], [6.05, 5.9], True, "distinct sizes: 2, at least 3"),
        (sizes_of(8), LOSSES[::-1], False, "does not fall"),
        ([1e7, 2e7, 5e7, 1e8], [6.5, 6.2, 6.0, 5.9], False, None),
    ],
)
def test_points_that_say_too_little_are_refused(sizes, losses, given, words):
    judgement = judge_points(make_data([sizes], losses), E_is_fixed=given)
    if words is None:
        assert judgement is None
    else:
        assert judgement.verdict == "refused"
        assert words in judgement.reason


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (20 * sizes_of(8), "grow together"),
        (1e10 * np.array([1, 2, 3, 1, 2, 3, 1, 2.0]), "data sizes span a factor of 3,"),
        (1e9 * np.array([1, 30, 10, 3, 1, 30, 10, 3.0]), None),
    ],
)
def test_data_sizes_that_say_too_little_are_refused(tokens, words):
    judgement = judge_points(make_data([sizes_of(8), tokens], LOSSES), E_is_fixed=False)
    assert judgement is None if words is None else words in judgement.reason


@pytest.mark.parametrize(
    ("low", "high", "E", "verdict"),
    [
        (4.9, 5.1, 5.0, "ok"),
        (4.8, 5.11, 5.0, "weak"),
        (4.0, 5.1, 5.0, "refused"),
        (2.0, 2.2, 2.1, "weak"),
    ],
)
def test_the_width_of_the_interval_decides(low, high, E, verdict):
    found = drawn(sizes_of(8), 0.0, np.random.default_rng(0))
    assert judge_fit(found, {"E": E}, {"E": (low, high)}).verdict == verdict


def test_small_losses_are_refused_by_their_own_size():
    sizes = sizes_of(8)
    found = fit(make_data([sizes], 0.1 + 0.1 * (1.8e7 / sizes) ** 0.3))
    assert judge_fit(found, {"E": 0.1}, {"E": (0.03, 0.12)}).verdict == "refused"
    assert judge_fit(found, {"E": 0.1}, {"E": (0.08, 0.11)}).verdict == "ok"


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_profile_finds_the_best_of_the_rest_far_from_the_estimate(share):
    """Against a search from the whole grid: the nearest minimum can be far above the best."""
    noise = np.array([-0.004, 0.006, 0.002, -0.005])
    data = make_data([VAR], E + (N0 / VAR) ** ALPHA + noise)
    found = fit(data)
    working = likelihood(found)
    log_floor = math.log(share * data.least_loss)
    held = parameter_bounds(data, log_floor)
    best = min(minimise(at, data, held, working.threshold)[1] for at in start_grid(data, log_floor))
    statistic = profile_statistic(found, working, "E", share * data.least_loss)
    assert statistic == pytest.approx(working.gain * (best - working.objective), rel=1e-3, abs=1e-6)


def test_an_outlier_does_not_pull_the_interval_from_the_truth():
    """Least squares would follow it; 8 sizes, one loss ten times too large, 20 runs."""
    sizes = np.geomspace(2e7, 4e9, 8)
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(20):
        losses = 5 + (4e8 / sizes) ** 0.2 + generator.normal(0, 0.005, 8)
        losses[generator.integers(8)] *= 10
        found = fit_from_the_truth(sizes, losses)
        low, high = profile_interval(found, likelihood(found), "E")
        inside += low <= 5 <= high
    assert inside >= 17
