"""The temperature that the latents themselves suggest, by maximum likelihood.

If latents were drawn as z = e_k + N(0, s^2 I) with k uniform over the codes, the posterior of k would be
softmax(-|z - e|^2 / T) at T = 2 s^2. That T is the fixed point of T = (2 / D) E_z E_q[d].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from entropy_cli.errors import EntropyCliError
from entropy_cli.functional.assign import Codebook, assign

TOLERANCE = 1e-6  # relative
SIGNIFICANT_DIGITS = 4
MOST_STEPS = 200
# Where the entropy is this share of ln V the assignment says nothing; the iteration stops there.
FLAT = 0.99


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature: its value, the biased hard start, and how the iteration ended."""

    value: float  # rounded
    hard: float  # from the nearest code only: too low where clusters overlap
    steps: int
    ended: Literal["converged", "flat", "slow"]  # flat: q became nearly uniform; slow: MOST_STEPS


def fit_temperature(z_batches: Sequence[Tensor], codebook: Codebook) -> TemperatureFit:
    """Fit one scale's temperature to its latents by expectation-maximisation.

    Args:
        z_batches: latents (B, l, C), in as many batches as convenient.
        codebook: the codes of that scale.

    Raises:
        EntropyCliError: every latent lies on a code, so that no temperature above zero is likelier.

    Source:
        Dempster, Laird & Rubin 1977 for a mixture with one shared variance and fixed, equal weights.
    """

    def means(temperature: float) -> tuple[float, float, float]:
        """Mean distance to the nearest code, expected distance, and entropy."""
        total, nearest, expected, entropy = 0, 0.0, 0.0, 0.0
        for z_BlC in z_batches:
            sums = assign(z_BlC, codebook, (temperature,))
            total += z_BlC.shape[0] * z_BlC.shape[1]
            nearest += sums.min_distance_B.sum().item()
            expected += sums.distance_BT.sum().item()
            entropy += sums.entropy_BT.sum().item()
        return nearest / total, expected / total, entropy / total

    per_distance = 2 / codebook.degrees_of_freedom
    hard = per_distance * means(1.0)[0]
    if hard <= 0:
        raise EntropyCliError(
            "temperature auto: every latent lies exactly on a code, so no temperature fits. "
            "Give a number."
        )
    value, step = hard, math.inf
    for steps in range(1, MOST_STEPS + 1):
        _, distance, entropy = means(value)
        if entropy > FLAT * math.log(codebook.size):
            return TemperatureFit(_rounded(value), _rounded(hard), steps, "flat")
        previous, step = step, per_distance * distance - value
        value += step
        # Steps shrink geometrically, so what is left to go is about step * ratio / (1 - ratio).
        ratio = abs(step / previous)
        if ratio < 1 and abs(step) * max(1, ratio / (1 - ratio)) <= TOLERANCE * value:
            return TemperatureFit(_rounded(value), _rounded(hard), steps, "converged")
    return TemperatureFit(_rounded(value), _rounded(hard), MOST_STEPS, "slow")


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
