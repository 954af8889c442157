"""Fits of scaling laws: the objective against plain Python, known laws found again, traps avoided."""

import csv
import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from entropy_cli.commands.fit.scaling_law import (
    fit,
    log_prediction,
    make_data,
    minimise,
    objective,
    parameter_bounds,
    parameters,
    start_grid,
)

POWER = {"E": 5.0, "N0": 4e8, "alpha": 0.2}
CHINCHILLA = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
SIZES = np.geomspace(18e6, 2e9, 12)


def power(sizes, E, N0, alpha):
    return E + (N0 / sizes) ** alpha


def chinchilla(sizes, tokens, E, A, B, alpha, beta):
    return E + A / sizes**alpha + B / tokens**beta


def grid():
    sizes, tokens = np.meshgrid(np.geomspace(5e7, 1.6e10, 6), np.geomspace(3e8, 3e11, 6))
    return sizes.ravel(), tokens.ravel()


@pytest.fixture(scope="module")
def published(request):
    """Points of Chinchilla's figure without the five largest losses: sizes, tokens, losses."""
    shared = request.getfixturevalue("shared")
    with (shared / "scaling" / "chinchilla_svg_extracted_data.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: -float(row["loss"]))[5:]
    sizes = [float(row["Model Size"]) for row in rows]
    tokens = [float(row["Training FLOP"]) / 6 / size for row, size in zip(rows, sizes, strict=True)]
    return sizes, tokens, [float(row["loss"]) for row in rows]


def plain_objective(predicted, losses):
    """Sum of Huber's loss of log residuals, one point after the other."""
    total = 0.0
    for expected, measured in zip(predicted, losses, strict=True):
        r = abs(math.log(expected) - math.log(measured))
        total += r * r / 2 if r <= 1e-3 else 1e-3 * (r - 1e-3 / 2)
    return total


def theta_of(data, E, logs, exponents):
    theta = [math.log(E)]
    for log, exponent, centre in zip(logs, exponents, data.centre_T, strict=True):
        theta += [log - exponent * centre, exponent]
    return np.array(theta)


def test_the_objective_is_the_sum_of_hubers_loss_of_log_residuals():
    sizes, tokens = grid()
    losses = chinchilla(sizes, tokens, 1.7, 400, 2000, 0.34, 0.36)
    losses *= np.exp(0.002 * np.random.default_rng(0).standard_normal(36))
    data = make_data([sizes, tokens], losses)
    theta = theta_of(data, 1.8172, [math.log(482.01), math.log(2085.43)], [0.3478, 0.3658])
    predicted = [chinchilla(n, d, **CHINCHILLA) for n, d in zip(sizes, tokens, strict=True)]
    expected = plain_objective(predicted, losses)
    assert objective(theta, data)[0] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("threshold", [1e-3, 0.05, math.inf])
@pytest.mark.parametrize("terms", [1, 2])
def test_the_gradient_is_that_of_the_objective(terms, threshold):
    generator = np.random.default_rng(terms)
    data = make_data(np.exp(generator.uniform(15, 25, (terms, 20))), generator.uniform(2, 4, 20))
    theta = np.array([0.3, 0.2, 0.3, -0.4, 0.5])[: 1 + 2 * terms]
    _, gradient = objective(theta, data, threshold)
    step = 1e-6
    for i in range(len(theta)):
        ahead, behind = theta.copy(), theta.copy()
        ahead[i] += step
        behind[i] -= step
        slope = (objective(ahead, data, threshold)[0] - objective(behind, data, threshold)[0]) / step / 2
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "law", [POWER, {"E": 0.5, "N0": 3e10, "alpha": 0.5}, {"E": 3, "N0": 2e3, "alpha": 0.07}]
)
def test_a_power_law_is_found_again(law):
    found = fit(make_data([SIZES], power(SIZES, **law)))
    assert parameters(found.theta, found.data) == pytest.approx(law, rel=1e-3)
    assert found.objective < 1e-11


def test_a_law_of_model_and_data_size_is_found_again():
    sizes, tokens = grid()
    found = fit(make_data([sizes, tokens], chinchilla(sizes, tokens, **CHINCHILLA)))
    assert parameters(found.theta, found.data) == pytest.approx(CHINCHILLA, rel=2e-3)


def test_an_outlier_does_not_move_the_fit():
    losses = power(SIZES, **POWER)
    losses[3] *= 1.2
    found = fit(make_data([SIZES], losses))
    assert parameters(found.theta, found.data)["E"] == pytest.approx(5.0, abs=0.03)
    squares, _ = minimise(found.theta, found.data, parameter_bounds(found.data), math.inf)
    assert abs(parameters(squares, found.data)["E"] - 5.0) > 0.2


def test_a_given_floor_is_kept_and_the_rest_is_found():
    found = fit(make_data([SIZES], power(SIZES, **POWER)), math.log(5.0))
    assert parameters(found.theta, found.data) == pytest.approx(POWER, rel=1e-5)
    other = fit(make_data([SIZES], power(SIZES, **POWER)), math.log(4.5))
    assert parameters(other.theta, other.data)["E"] == pytest.approx(4.5, rel=1e-14)
    assert other.objective > 1e3 * found.objective


def test_the_unit_of_sizes_scales_n0_alone():
    noise = np.exp(0.001 * np.random.default_rng(5).standard_normal(12))
    losses = power(SIZES, **POWER) * noise
    found = [fit(make_data([SIZES / unit], losses)) for unit in (1.0, 1e6)]
    one, other = (parameters(at.theta, at.data) for at in found)
    assert other["E"] == pytest.approx(one["E"], rel=1e-6)
    assert other["alpha"] == pytest.approx(one["alpha"], rel=1e-5)
    assert other["N0"] * 1e6 == pytest.approx(one["N0"], rel=1e-4)


def test_no_other_floor_gives_a_better_fit():
    """The search against a scan over E with the rest fitted."""
    noise = np.exp(0.001 * np.random.default_rng(2).standard_normal(12))
    data = make_data([SIZES], power(SIZES, **POWER) * noise)
    found = fit(data)
    for E in np.linspace(3, 5.7, 60):
        start = np.array([math.log(E), *found.theta[1:]])
        held = parameter_bounds(data, math.log(E))
        assert minimise(start, data, held)[1] >= found.objective * (1 - 1e-9)


def test_the_grid_is_large_enough():
    data = make_data([SIZES], power(SIZES, **POWER))
    two = make_data(grid(), chinchilla(*grid(), **CHINCHILLA))
    for points in (data, two):
        assert len(start_grid(points)) >= 72
        assert len(start_grid(points, math.log(1.5))) >= 72


def test_chinchillas_points_give_the_replications_law(published):
    sizes, tokens, losses = published
    found = fit(make_data([sizes, tokens], losses))
    law = parameters(found.theta, found.data)
    assert law["E"] == pytest.approx(1.8172, abs=5e-4)
    assert law["alpha"] == pytest.approx(0.34731, abs=1e-3)
    assert law["beta"] == pytest.approx(0.36717, abs=2e-3)
    assert law["A"] == pytest.approx(477.83, abs=8)
    assert law["B"] == pytest.approx(2143.42, abs=90)
    assert found.objective <= 1.0184e-3
    predicted = [chinchilla(n, d, **law) for n, d in zip(sizes, tokens, strict=True)]
    assert plain_objective(predicted, losses) == pytest.approx(found.objective, rel=1e-9)
    assert found.optima.within_1_percent >= 36
    assert np.ptp(found.optima.E) < 1e-4


def test_the_mean_with_default_tolerances_would_stop_far_from_there(published):
    """The trap: an objective near 1e-6 meets the tolerances of the optimiser before the optimum."""
    sizes, tokens, losses = published
    data = make_data([sizes, tokens], losses).centred(np.zeros(2))

    def mean(theta):
        value, gradient = objective(theta, data)
        return value / len(losses), gradient / len(losses)

    start = np.array([math.log(0.7), 5.0, 0.1, 5.0, 0.1])
    stopped = minimize(mean, start, jac=True, method="L-BFGS-B")
    assert stopped.success
    trapped = parameters(stopped.x, data)
    found, value = minimise(start, data, parameter_bounds(data))
    assert abs(trapped["E"] - 1.8172) > 0.5
    assert objective(stopped.x, data)[0] > 2 * value
    assert parameters(found, data)["E"] == pytest.approx(1.8172, abs=5e-4)


def test_hoffmanns_own_parameters_are_worse(published):
    sizes, tokens, losses = published
    data = make_data([sizes, tokens], losses)
    hoffmann = theta_of(data, 1.69, [math.log(406.4), math.log(410.7)], [0.34, 0.28])
    assert objective(hoffmann, data)[0] == pytest.approx(4.12e-3, abs=5e-5)


def test_the_published_reducible_losses_of_var(shared):
    vectors = json.loads((shared / "design" / "test_vectors.json").read_text())["vectors"]
    vector = next(vector for vector in vectors if vector["id"] == "var_reducible")
    sizes = [vector["input"]["N"] * 1e9, 2e9]
    data = make_data([sizes], [6.0, 5.7])
    for name, factor, alpha in (("L_avg", 2.5, 0.2), ("L_last", 2.0, 0.23)):
        theta = theta_of(data, 5.0, [alpha * math.log(1e9 / factor)], [alpha])
        above = np.exp(log_prediction(theta, data)[0]) - 5.0
        expected = [vector["expected"][name], vector["expected"][f"{name}_2B"]]
        assert above == pytest.approx(expected, abs=vector["atol"])
        assert parameters(theta, data)["N0"] == pytest.approx(1e9 / factor)
