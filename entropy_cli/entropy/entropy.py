"""Entropy in nats of probabilities, weights or counts, in float64."""

import torch
from torch import Tensor


def entropy(weight_V: Tensor) -> Tensor:
    """Return the entropy of weights normalised over their last axis, in nats.

    Args:
        weight_V: probabilities, sums of probabilities or counts, (..., V), none negative.

    Returns:
        float64, (...), in [0, ln V]. NaN where the weights sum to zero.

    Source:
        Cover & Thomas, Elements of Information Theory, 2nd ed., eq. 2.1.

    >>> round(entropy(torch.tensor([1, 1, 1, 1])).item(), 6)      # uniform: ln 4
    1.386294
    """
    weight_V = weight_V.double()
    p_V = weight_V / weight_V.sum(-1, keepdim=True)
    return torch.special.entr(p_V).sum(-1)
