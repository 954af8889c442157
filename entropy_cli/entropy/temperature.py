"""Maximum-likelihood fit of the temperature to the latents.

If latents were drawn as z = e_k + N(0, s^2 I) with k uniform over the codes, the posterior of k would be
softmax(-|z - e|^2 / T) at T = 2 s^2. That T is the fixed point of T = (2 / D) E_z E_q[d].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook, Grid

TOLERANCE = 1e-6  # relative
SIGNIFICANT_DIGITS = 4
MAX_STEPS = 200
# Above this share of ln V the assignment is nearly uniform; the iteration stops there.
FLAT = 0.99


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature, its initial value, and how the iteration ended."""

    value: float  # rounded
    hard: float  # initial value, from the nearest codes only: too low where clusters overlap
    steps: int
    ended: Literal["converged", "flat", "slow"]  # flat: q became nearly uniform; slow: MAX_STEPS


def fit_temperature(
    z_batches: Sequence[Tensor],
    codebook: Codebook | Grid,
    all_reduce_sum: Callable[[Tensor], Tensor] = lambda sums_4: sums_4,
) -> TemperatureFit:
    """Fit one scale's temperature to its latents by expectation-maximisation.

    Args:
        z_batches: latents (B, l, C), in any number of batches.
        codebook: the codes of that scale.
        all_reduce_sum: adds up sums over the processes that share the latents.

    Raises:
        EntropyCliError: every latent lies on a code, so that the likelihood has no maximum above zero.

    Source:
        Dempster, Laird & Rubin 1977 for a mixture with one shared variance and fixed, equal weights.
    """

    def means(temperature: float) -> list[float]:
        """Return means over tokens: distance to the nearest code, expected distance, and entropy."""
        sums_4 = torch.zeros(4, dtype=torch.float64)
        for z_BlC in z_batches:
            sums = assign(z_BlC, codebook, (temperature,))
            parts = (sums.min_distance_B, sums.distance_BT, sums.entropy_BT)
            sums_4[0] += z_BlC[..., 0].numel()
            sums_4[1:] += torch.stack([part.sum() for part in parts]).cpu()
        tokens, *totals = all_reduce_sum(sums_4).tolist()
        return [total / tokens for total in totals]

    per_distance = 2 / codebook.degrees_of_freedom
    hard = per_distance * means(1.0)[0]
    if hard <= 0:
        raise EntropyCliError(
            "temperature auto: every latent lies exactly on a code, so no temperature fits. "
            "Give a number."
        )
    value, step = hard, math.inf
    ended: Literal["converged", "flat", "slow"] = "slow"
    for steps in range(1, MAX_STEPS + 1):  # noqa: B007 - read after the loop
        _, distance, entropy = means(value)
        if entropy > FLAT * math.log(codebook.vocabulary.size):
            ended = "flat"
            break
        previous, step = step, per_distance * distance - value
        value += step
        # Steps shrink geometrically, so the remaining distance is about step * ratio / (1 - ratio).
        ratio = abs(step / previous)
        if ratio < 1 and abs(step) * max(1, ratio / (1 - ratio)) <= TOLERANCE * value:
            ended = "converged"
            break
    value, hard = (float(f"{number:.{SIGNIFICANT_DIGITS}g}") for number in (value, hard))
    return TemperatureFit(value, hard, steps, ended)
