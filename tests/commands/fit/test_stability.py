"""Curves that no power law fits are not called ok; laws that hold are; and no error is nonsense."""

import json
import math
import time

import numpy as np
import pytest

from entropy_cli.commands.fit.intervals import likelihood, profile_interval
from entropy_cli.commands.fit.points import read_points
from entropy_cli.commands.fit.scaling_law import (
    Fit,
    Optima,
    fit,
    make_data,
    minimise,
    parameter_bounds,
)
from entropy_cli.commands.fit.stability import unstable_E

POWER = ("--form", "power", "--bootstrap", 0)
MISSED = {"class0": "does not hold for all sizes", "twoscale1": "reaches the smallest loss"}


@pytest.fixture
def fitted(cli, tmp_path):
    """Run `fit --json` on rows; gives the result."""

    def run(head, *columns, options=()):
        path = tmp_path / "points.csv"
        rows = [",".join(f"{cell:.9g}" for cell in row) for row in zip(*columns, strict=True)]
        path.write_text("\n".join([head, *rows]) + "\n")
        code, out, err = cli("fit", path, "--json", *options)
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.mark.parametrize("name", MISSED)
def test_curves_whose_limit_is_known_and_missed_are_not_ok(fitted, shared, name):
    vectors = json.loads((shared / "design" / "ladder_vectors.json").read_text())["vectors"]
    (vector,) = (vector for vector in vectors if vector["id"] == "extrapolation_refused")
    (curve,) = (curve for curve in vector["expected"] if curve["curve"] == name)
    found = fitted("N,loss", *zip(*curve["points"], strict=True))
    low, high = found["ci95"]["E"]
    assert not low <= curve["truth"] <= high
    assert found["verdict"] == "weak" and MISSED[name] in found["reason"]


def test_laws_that_hold_are_stable():
    """6 runs of L = 5 + (4e8/N)^0.2 with 8 sizes and a noise of 0.005 nats."""
    sizes, generator, unstable = np.geomspace(18e6, 2e9, 8), np.random.default_rng(8), 0
    for _ in range(6):
        losses = 5 + (4e8 / sizes) ** 0.2 + 0.005 * generator.standard_normal(8)
        data = make_data([sizes], losses)
        start = np.array([math.log(5), 0.2 * (math.log(4e8) - data.centre_T[0]), 0.2])
        theta, value = minimise(start, data, parameter_bounds(data))
        found = Fit(data, theta, None, value, Optima(1, 1, (0.0, 0.0)))
        unstable += unstable_E(found, profile_interval(found, likelihood(found), "E")) is not None
    assert unstable <= 1


def test_a_law_that_bends_is_told():
    """The largest models fall below the law of the others."""
    sizes = np.geomspace(1e7, 1e10, 8)
    losses = 3 + (1e8 / sizes) ** 0.3
    losses[-1] -= 0.2
    found = fit(make_data([sizes], losses))
    E = math.exp(found.theta[0])
    assert "without the largest model size" in unstable_E(found, (E - 0.05, E + 0.05))
    assert unstable_E(fit(make_data([sizes[:-1]], losses[:-1])), (2.99, 3.01)) is None


@pytest.mark.parametrize(
    "head, data, sizes",
    [
        ("N,loss,D", (1e9, 2e9), 2),
        ("N,loss,train FLOPs", (6e17, 12e18), 2),
        ("N,loss,D", (1e9, 1e9), 1),  # all trained alike: a law of the model size
        ("N,loss,epochs", (1, 2), 1),
    ],
)
def test_data_sizes_are_read_where_they_are_and_differ(tmp_path, head, data, sizes):
    path = tmp_path / "points.csv"
    path.write_text(f"{head}\n1e8,3.5,{data[0]}\n1e9,3.1,{data[1]}\n")
    found = read_points(path, {}, with_data_size=None)
    assert len(found.size_TP) == sizes and len(found.columns) == 1 + sizes
    if sizes == 2:
        assert found.size_TP[1] == pytest.approx((1e9, 2e9))


def test_a_table_with_data_sizes_is_fitted_with_them(fitted):
    sizes = np.geomspace(1e8, 1e10, 5)
    found = fitted("N,D,loss", sizes, 20 * sizes, 3 + (4e8 / sizes) ** 0.3)
    assert (found["form"], found["verdict"]) == ("chinchilla", "refused")
    assert "--form power" in " ".join(found["notes"])
    assert (
        fitted("N,D,loss", sizes, 20 * sizes, 3 + (4e8 / sizes) ** 0.3, options=POWER)["form"] == "power"
    )


def test_no_standard_error_is_above_its_value(fitted):
    """Resamples with an exponent near 0 have an N0 beyond all numbers."""
    sizes = np.geomspace(18e6, 2e9, 32)
    noise = 0.05 * np.random.default_rng(0).standard_normal(32)
    found = fitted("N,loss", sizes, 5 + (1e6 / sizes) ** 0.1 + noise, options=("--bootstrap", 40))
    low, high = found["intervals"]["bootstrap"]["ci95"]["N0"]
    assert high > 1e3 * low
    assert "N0" not in found["intervals"]["bootstrap"]["se"]


def test_thousands_of_points_are_fitted_in_seconds(fitted):
    generator = np.random.default_rng(0)
    sizes, tokens = np.exp(generator.uniform([[16], [20]], [[23], [27]], (2, 2600)))
    losses = 1.8 + 480 / sizes**0.35 + 2100 / tokens**0.37
    start = time.process_time()
    found = fitted("N,D,loss", sizes, tokens, losses * np.exp(0.005 * generator.standard_normal(2600)))
    assert time.process_time() - start < 10
    assert found["intervals"]["bootstrap"]["resamples"] == 200 and found["verdict"] == "ok"
    assert found["ci95"]["E"][0] < 1.8 < found["ci95"]["E"][1]
