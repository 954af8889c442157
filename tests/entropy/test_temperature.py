"""The fitted temperature, beside the same fixed point iterated at length in plain numpy."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ive

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.temperature import fit_temperature, matching_temperature


def unit(rows_NC):
    return rows_NC / np.linalg.norm(rows_NC, axis=1, keepdims=True)


def mean_cosine(temperature, dimension):
    """Mean of the cosine under the von Mises-Fisher distribution of concentration 2 / temperature."""
    return ive(dimension / 2, 2 / temperature) / ive(dimension / 2 - 1, 2 / temperature)


def matching(distance, dimension, rule):
    """The temperature whose distribution has a mean squared distance."""
    if rule == "l2":
        return 2 * distance / dimension
    return brentq(lambda t: 2 - 2 * mean_cosine(t, dimension) - distance, 1e-3, 1e3, rtol=1e-12)


def fixed_point(z_NC, code_VC, rule, steps=2000):
    """The temperature that expectation-maximisation ends at, and the first one."""
    d_NV = ((z_NC[:, None] - code_VC) ** 2).sum(2)
    hard = temperature = matching(d_NV.min(1).mean(), z_NC.shape[1], rule)
    for _ in range(steps):
        q_NV = np.exp((d_NV.min(1, keepdims=True) - d_NV) / temperature)
        q_NV /= q_NV.sum(1, keepdims=True)
        temperature = matching((q_NV * d_NV).sum(1).mean(), z_NC.shape[1], rule)
    return temperature, hard


@pytest.mark.parametrize("noise", [0.2, 0.8, 1.6])
@pytest.mark.parametrize("rule", ["l2", "cosine"])
def test_the_fit_is_the_fixed_point_of_maximum_likelihood(rule, noise):
    """Where clusters overlap the steps shrink slowly."""
    generator = np.random.default_rng(0)
    code_VC = generator.normal(size=(12, 3))
    z_NC = code_VC[generator.integers(12, size=300)] + noise * generator.normal(size=(300, 3))
    fit = fit_temperature(
        [torch.from_numpy(part)[:, None] for part in (z_NC[:100], z_NC[100:])],
        Codebook(torch.from_numpy(code_VC), rule),
    )
    if rule == "cosine":
        z_NC, code_VC = unit(z_NC), unit(code_VC)
    expected, hard = fixed_point(z_NC, code_VC, rule)
    assert fit.ended == "converged"
    assert fit.value == float(f"{expected:.4g}") > fit.hard == float(f"{hard:.4g}")


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 16, 64, 128])
def test_a_mean_distance_of_unit_vectors_has_one_temperature(dimension):
    """The ratio of scipy's Bessel functions, inverted, from small distances to right angles."""
    for temperature in (0.2, 1, 5, 100):
        distance = 2 - 2 * mean_cosine(temperature, dimension)
        found = matching_temperature(distance, dimension, "cosine")
        assert found == pytest.approx(temperature, rel=1e-8)
    if dimension > 1:  # 1 - cos is (D - 1) / (2 kappa) where it is small
        found = [matching_temperature(d, dimension, "cosine") for d in (1e-12, 1.9e-7, 2.1e-7, 1e-5)]
        expected = [2 * d / (dimension - 1) for d in (1e-12, 1.9e-7, 2.1e-7, 1e-5)]
        assert found == pytest.approx(expected, rel=1e-5)
    assert matching_temperature(0.0, dimension, "cosine") == 0
    assert matching_temperature(2.0, dimension, "cosine") == math.inf


def drawn_around_codes(generator, codes, tokens, dimension, temperature):
    """Unit vectors from the von Mises-Fisher distribution around codes, and the codes."""
    code_VC = unit(generator.normal(size=(codes, dimension)))
    mean_NC = code_VC[generator.integers(codes, size=tokens)]
    angle_X = np.linspace(0, np.pi, 200_001)[1:-1]
    log_density_X = (dimension - 2) * np.log(np.sin(angle_X)) + 2 / temperature * np.cos(angle_X)
    share_X = np.cumsum(np.exp(log_density_X - log_density_X.max()))
    angle_N1 = np.interp(generator.random((tokens, 1)), share_X / share_X[-1], angle_X)
    other_NC = generator.normal(size=(tokens, dimension))
    across_NC = unit(other_NC - (other_NC * mean_NC).sum(1, keepdims=True) * mean_NC)
    return np.cos(angle_N1) * mean_NC + np.sin(angle_N1) * across_NC, code_VC


@pytest.mark.parametrize(
    "dimension, temperature, codes, tokens",
    [
        (4, 0.005, 256, 20_000),
        (4, 1.0, 8, 50_000),
        (16, 0.2, 256, 50_000),
        (32, 0.05, 256, 10_000),
        (64, 0.1, 256, 10_000),
    ],
)
def test_the_temperature_of_unit_vectors_is_recovered(dimension, temperature, codes, tokens):
    generator = np.random.default_rng(dimension)
    z_NC, code_VC = drawn_around_codes(generator, codes, tokens, dimension, temperature)
    z_BlC = torch.from_numpy(z_NC)[None].float()
    codebook = Codebook(torch.from_numpy(code_VC).float(), "cosine")
    fit = fit_temperature([z_BlC], codebook)
    assert fit.ended == "converged" and fit.steps < 20
    assert fit.value == pytest.approx(temperature, rel=0.02)
    (truth, found) = (assign(z_BlC, codebook, (temperature, fit.value)).entropy_BT[0] / tokens).tolist()
    assert found == pytest.approx(truth, abs=0.05)


def test_unit_vectors_that_are_no_closer_than_at_right_angles_are_refused():
    code_VC = torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    with pytest.raises(EntropyCliError, match="right angles or more to their nearest codes"):
        fit_temperature([-code_VC[None]], Codebook(code_VC, "cosine"))


def test_a_fit_without_a_maximum_ends_where_the_assignment_is_uniform():
    """Directions that have nothing to do with the codes: the likelihood grows up to infinity."""
    code_VC = torch.eye(4)
    z_BlC = torch.tensor([[[-1.0, -1.0, -1.0, -0.9], [1.0, 1.0, 1.0, 1.0]]])
    fit = fit_temperature([z_BlC], Codebook(code_VC, "cosine"))
    assert fit.ended == "flat"
    A = assign(z_BlC, Codebook(code_VC, "cosine"), (fit.value,)).entropy_BT.mean().item() / 2
    assert 0.999 * math.log(4) < A < math.log(4)
