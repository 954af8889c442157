"""Maximum-likelihood fit of the temperature to the latents.

If latents were drawn around codes e_k, k uniform, as z = e_k + N(0, s^2 I), the posterior of k would be
softmax(-|z - e|^2 / T) at T = 2 s^2. Unit vectors drawn from the von Mises-Fisher distribution, whose
density is proportional to exp(kappa cos), would have it at T = 2 / kappa. That T is a fixed point: it is
the one that belongs to the mean squared distance E_z E_q[d] under the posterior q at T.
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
NEWTON_STEPS = 5  # from its start within a percent or two, to the last digits
# Above this share of ln V the assignment is nearly uniform; the iteration stops there. On the sphere a
# maximum can lie above the lower one: logits of T = 1 in 64 dimensions vary by a quarter only.
FLAT = {"l2": 0.99, "cosine": 0.999}


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature, its initial value, and how the iteration ended."""

    value: float  # rounded
    hard: float  # initial value, from the nearest codes only: too low where clusters overlap
    steps: int
    ended: Literal["converged", "flat", "slow"]  # flat: q became nearly uniform; slow: MAX_STEPS


def matching_temperature(distance: float, dimension: int, rule: str) -> float:
    """Return the maximum-likelihood temperature of latents whose codes are known.

    Args:
        distance: mean squared distance of a latent from its code; 2 - 2 cos of unit vectors.
        dimension: of the latents.
        rule: "cosine" for unit vectors, with the von Mises-Fisher distribution; any other for Gaussians.

    Returns:
        2 / D times the distance for Gaussians; for unit vectors 2 / kappa with A_D(kappa) = E[cos], and
        infinity where they are at right angles or more on average.

    Source:
        Banerjee, Dhillon, Ghosh & Sra 2005, JMLR 6, eq. 4.4: Newton's method starts from it. It is exact
        at both ends, where the relative error is below 1 - cos, or cos^2.
    """
    if rule != "cosine":
        return 2 / dimension * distance
    gap = distance / 2
    cosine = 1 - gap
    if gap <= 0 or cosine <= 0:
        return 0.0 if gap <= 0 else math.inf
    if dimension == 1:  # two points
        return 2 / math.atanh(cosine)
    temperature = 2 * gap * (1 + cosine) / (cosine * (dimension - cosine**2))
    # The log-odds of the mean of cos are nearly linear in ln T, from end to end.
    for _ in range(NEWTON_STEPS if min(gap, cosine) > 1e-7 else 0):
        kappa = 2 / temperature
        found = _mean_gap(kappa, dimension)
        slope = kappa * (found * (2 - found)) - (dimension - 1) * (1 - found)
        slope /= found * (1 - found)
        error = math.log(gap / cosine) - math.log(found / (1 - found))
        temperature *= math.exp(error / slope)
    return temperature


def _mean_gap(kappa: float, dimension: int) -> float:
    """Return the mean of 1 - cos under the von Mises-Fisher distribution, 1 - A_D(kappa).

    From A_D = I_{D/2} / I_{D/2-1} = 1 / (D / kappa + A_{D+2}), downwards in D: errors shrink at each
    step, and no digits are lost where A_D is nearly 1.

    Source:
        Amos 1974, Math. Comp. 28: bounds of the ratio, from which the recurrence starts.
    """
    terms = 20 + math.ceil(math.sqrt(40 * kappa))
    order = dimension / 2 + terms
    root = math.hypot(order + 0.5, kappa)
    above = order - 0.5 + (order + 0.5) ** 2 / (root + kappa)
    gap = above / (above + kappa)
    for d in range(dimension + 2 * terms - 2, dimension - 1, -2):
        gap = (d / kappa - gap) / (1 + d / kappa - gap)
    return gap


def fit_temperature(
    z_batches: Sequence[Tensor],
    codebook: Codebook | Grid,
    all_reduce_sum: Callable[[Tensor], Tensor] = lambda sums_4: sums_4,
) -> TemperatureFit:
    """Fit one scale's temperature to its latents by expectation-maximisation.

    Where clusters of unit vectors overlap, steps can shrink by 1 % or less at a time. There the
    iteration goes at once to where they would add up to.

    Args:
        z_batches: latents (B, l, C), in any number of batches.
        codebook: the codes of that scale.
        all_reduce_sum: adds up sums over the processes that share the latents.

    Raises:
        EntropyCliError: every latent lies on a code, or unit vectors are at right angles or more to
            their codes, so that the likelihood has no maximum between zero and infinity.

    Source:
        Dempster, Laird & Rubin 1977 for a mixture with one shared variance and fixed, equal weights;
        Banerjee et al. 2005 for unit vectors.
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

    rule, dimension = codebook.rule, codebook.latent_dim
    hard = matching_temperature(means(1.0)[0], dimension, rule)
    if not 0 < hard < math.inf:
        why = "every latent lies exactly on a code"
        if hard > 0:
            why = "latents are on average at right angles or more to their nearest codes"
        raise EntropyCliError(f"temperature auto: {why}, so no temperature fits. Give a number.")
    value, step, moved = hard, math.inf, math.inf
    ended: Literal["converged", "flat", "slow"] = "slow"
    for steps in range(1, MAX_STEPS + 1):
        _, distance, entropy = means(value)
        if entropy > FLAT[rule] * math.log(codebook.vocabulary.size):
            ended = "flat"
            break
        previous, step = step, matching_temperature(distance, dimension, rule) - value
        if rule == "cosine":
            step = min(step, value)  # it can be infinite
        # Steps shrink geometrically, so the remaining distance is about step * ratio / (1 - ratio).
        ratio = 1 + (step - previous) / moved if steps > 1 else 0.0
        moved = step
        if rule == "cosine" and ratio < 1:
            moved = max(-value / 2, min(value, step / (1 - ratio)))
        value += moved
        ratio = abs(ratio)
        if ratio < 1 and abs(step) * max(1, ratio / (1 - ratio)) <= TOLERANCE * value:
            ended = "converged"
            break
    value, hard = (float(f"{number:.{SIGNIFICANT_DIGITS}g}") for number in (value, hard))
    return TemperatureFit(value, hard, steps, ended)
