"""Mixtures of predictors: the weights under which given tokens are most likely."""

import numpy as np

GAP = 1e-5  # nats per token: how far the mixture may stay above the best one
MAX_STEPS = 10_000


def fit_weights(p_NJ: np.ndarray) -> np.ndarray:
    """Return the weights w of J predictors that maximise sum ln(p w), by expectation-maximisation.

    It ends once the mean of -ln(p w) is within 1e-5 nats of its least: the likelihood is concave, and
    the largest mean of p_j / (p w), less 1, bounds what is left to gain.

    Args:
        p_NJ: the probability that each predictor gives each token, float64, N > 0.

    Returns:
        float64, (J,), sum 1.
    """
    weight_J = np.full(p_NJ.shape[1], 1 / p_NJ.shape[1])
    for _ in range(MAX_STEPS):
        ratio_J = (1 / (p_NJ @ weight_J)) @ p_NJ / len(p_NJ)
        if ratio_J.max() - 1 <= GAP:
            break
        weight_J = weight_J * ratio_J
    return weight_J / weight_J.sum()
