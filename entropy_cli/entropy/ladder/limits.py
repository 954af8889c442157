"""The limits of each rung, by the delete-a-group jackknife, and the bracket of the unigram."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile
from entropy_cli.entropy.ladder.ladder import Bound, Bracket, Gain, RungResult
from entropy_cli.entropy.ladder.rungs import Rung, Tokens
from entropy_cli.entropy.quantity import AVERAGES, Averages
from entropy_cli.entropy.summary import average_weights


def bound_rungs(rungs: Sequence[Rung], tokens: Tokens) -> list[RungResult]:
    """Return each rung with its limits.

    Args:
        rungs: from `climb`, the first one first.
        tokens: what they were climbed on, of images in at least two groups.
    """
    tokens_S = np.array(tokens.layout.tokens, np.float64)
    weights = {name: w_S.numpy() for name, w_S in average_weights(torch.from_numpy(tokens_S)).items()}
    found, before_MS = [], None
    for rung in rungs:
        mean_MS = rung.loss_MS / tokens_S
        gain = None
        if before_MS is not None:
            gain_M = (before_MS - mean_MS) @ weights["token_weighted"]
            value, se, half = _estimate(gain_M, tokens)
            gain = Gain(value, se, (value - half, value + half))
        scales = [_bound(mean_MS[:, s], tokens) for s in range(len(tokens_S))]
        average = Averages(*(_bound(mean_MS @ weights[name], tokens) for name in AVERAGES))
        found.append(RungResult(rung.id, rung.sees, scales, average, gain, rung.weights))
        before_MS = mean_MS
    return found


def _bound(mean_M: np.ndarray, tokens: Tokens) -> Bound:
    value, se, half = _estimate(mean_M, tokens)
    one_sided = t_quantile(len(np.unique(tokens.group_M)) - 1, 0.9)
    return Bound(value, se, (value - half, value + half), value + one_sided * se)


def _estimate(mean_M: np.ndarray, tokens: Tokens) -> tuple[float, float, float]:
    """Return the mean over images, its standard error, and half the width of its 95 % interval."""
    images_G = np.bincount(tokens.group_M)
    sum_G = np.bincount(tokens.group_M, mean_M)
    value = np.asarray(sum_G.sum() / images_G.sum())
    if np.ptp(mean_M) == 0:  # as of the uniform rung, where rounding would leave 1e-15
        return float(mean_M[0]), 0.0, 0.0
    others_G = images_G.sum() - images_G
    deleted_G = (sum_G.sum() - sum_G) / np.maximum(others_G, 1)
    se = math.sqrt(jackknife_variance(value, deleted_G, images_G, tokens.cluster))
    return float(value), se, t_quantile(int((images_G > 0).sum()) - 1) * se


def brackets(tokens: Tokens, unigram: Rung) -> list[Bracket]:
    """Return the plug-in and the held-out unigram entropy of each scale."""
    found = []
    for s, size in enumerate(tokens.layout.tokens):
        _, count_V = np.unique(tokens.idx_ML[:, tokens.layout.columns(s)], return_counts=True)
        held_out = unigram.loss_MS[:, s].mean() / size
        found.append(Bracket(entropy(torch.from_numpy(count_V)).item(), float(held_out)))
    return found
