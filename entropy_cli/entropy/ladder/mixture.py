"""Mixtures of predictors: the weights under which given tokens are most likely."""

import numpy as np

GAP = 1e-5  # nats per token: how far the mixture may stay above the best one
MAX_STEPS = 3_000
LEAST_SHRINKING = 0.1  # of a weight in one leap, which must not end at 0


def fit_weights(p_NJ: np.ndarray) -> np.ndarray:
    """Return the weights w of J predictors that maximise sum ln(p w), by expectation-maximisation.

    It ends once the mean of -ln(p w) is within 1e-5 nats of its least: the likelihood is concave, and
    the largest mean of p_j / (p w), less 1, bounds what is left to gain.

    Args:
        p_NJ: the probability that each predictor gives each token, float64, N > 0.

    Returns:
        float64, (J,), sum 1.

    Source:
        Varadhan & Roland, Simple and globally convergent methods for accelerating the convergence of any
        EM algorithm, Scandinavian Journal of Statistics 35 (2008), SqS3: two steps, then a leap.
    """
    weight_J = np.full(p_NJ.shape[1], 1 / p_NJ.shape[1])
    for _ in range(MAX_STEPS):
        ratio_J = _ratios(p_NJ, weight_J)
        if ratio_J.max() - 1 <= GAP:
            break
        first_J = weight_J * ratio_J
        second_J = first_J * _ratios(p_NJ, first_J)
        step_J = first_J - weight_J
        bend_J = second_J - first_J - step_J
        length = np.sqrt((step_J @ step_J) / max(bend_J @ bend_J, np.finfo(float).tiny))
        leap_J = weight_J + 2 * length * step_J + length**2 * bend_J
        leap_J = np.maximum(leap_J, LEAST_SHRINKING * second_J)
        leap_J /= leap_J.sum()
        gain = np.log(p_NJ @ leap_J).sum() - np.log(p_NJ @ second_J).sum()
        weight_J = leap_J if gain > 0 else second_J
    return weight_J / weight_J.sum()


def _ratios(p_NJ: np.ndarray, weight_J: np.ndarray) -> np.ndarray:
    """Return the mean of p_j / (p w): what a step of expectation-maximisation multiplies weights by."""
    ratio_J: np.ndarray = (1 / (p_NJ @ weight_J)) @ p_NJ / len(p_NJ)
    return ratio_J
