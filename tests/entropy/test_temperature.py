"""The fitted temperature, beside the same fixed point iterated at length in plain numpy."""

import numpy as np
import pytest
import torch

from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.temperature import fit_temperature


def unit(rows_NC):
    return rows_NC / np.linalg.norm(rows_NC, axis=1, keepdims=True)


def fixed_point(z_NC, code_VC, freedom, steps=5000):
    """Temperature 2 / freedom times the expected squared distance under q, and the first one."""
    d_NV = ((z_NC[:, None] - code_VC) ** 2).sum(2)
    hard = temperature = 2 / freedom * d_NV.min(1).mean()
    for _ in range(steps):
        q_NV = np.exp((d_NV.min(1, keepdims=True) - d_NV) / temperature)
        q_NV /= q_NV.sum(1, keepdims=True)
        temperature = 2 / freedom * (q_NV * d_NV).sum(1).mean()
    return temperature, hard


@pytest.mark.parametrize("noise", [0.2, 0.8, 1.6])
@pytest.mark.parametrize(("rule", "freedom"), [("l2", 3), ("cosine", 2)])
def test_the_fit_is_the_fixed_point_of_maximum_likelihood(rule, freedom, noise):
    """Unit vectors have a dimension less; where clusters overlap the steps shrink slowly."""
    generator = np.random.default_rng(0)
    code_VC = generator.normal(size=(12, 3))
    z_NC = code_VC[generator.integers(12, size=300)] + noise * generator.normal(size=(300, 3))
    fit = fit_temperature(
        [torch.from_numpy(part)[:, None] for part in (z_NC[:100], z_NC[100:])],
        Codebook(torch.from_numpy(code_VC), rule),
    )
    if rule == "cosine":
        z_NC, code_VC = unit(z_NC), unit(code_VC)
    expected, hard = fixed_point(z_NC, code_VC, freedom)
    assert fit.ended == "converged"
    assert fit.value == float(f"{expected:.4g}") > fit.hard == float(f"{hard:.4g}")
