"""Predictions from counts: interpolated absolute discounting, each fold coded by the other folds."""

from collections.abc import Sequence

import numpy as np

LEAST_DISCOUNT, LARGEST_DISCOUNT, DEFAULT_DISCOUNT = 0.01, 0.99, 0.5
SPARSE = 4  # pairs that are possible, per token, from which a sort is cheaper than a table of all


def discounted(
    code_N: np.ndarray, context_N: np.ndarray, below_N: np.ndarray, folds: Sequence[slice]
) -> np.ndarray:
    """Return the probability of each token's code in its context, by the counts of the other folds.

    With n(c, k) the tokens of code k in context c, N(c) their sum over codes and t(c) the number of
    codes seen in c, p(k | c) = (max(n(c, k) - d, 0) + d t(c) below(k)) / N(c); below(k) if N(c) = 0.
    The discount d is n1 / (n1 + 2 n2), from the pairs (c, k) seen once and twice, within [.01, .99]; .5
    without any. The probabilities of all codes sum to 1 if those of `below_N` do.

    Args:
        code_N: codes, int64, at least 0.
        context_N: contexts, int64, at least 0; max(context_N) (max(code_N) + 1) is below 2^63.
        below_N: probability of each token's code in a shorter context, float64.
        folds: where the tokens of each fold are; together all of them.

    Returns:
        float64, (N,).

    Source:
        Ney, Essen & Kneser, On structuring probabilistic dependences in stochastic language modelling,
        Computer Speech and Language 8 (1994), section 4.
    """
    pair_N, context_P = _pairs(code_N, context_N)
    total_P = np.bincount(pair_N, minlength=len(context_P))
    p_N = np.empty(len(code_N))
    for fold in folds:
        count_P = total_P - np.bincount(pair_N[fold], minlength=len(context_P))
        discount = discount_of(count_P)
        tokens_C, codes_C = np.bincount(context_P, count_P), np.bincount(context_P, count_P > 0)
        pair_F = pair_N[fold]
        context_F, below_F = context_P[pair_F], below_N[fold]
        tokens_F = tokens_C[context_F]
        kept_F = np.maximum(count_P[pair_F] - discount, 0) + discount * codes_C[context_F] * below_F
        p_N[fold] = np.divide(kept_F, tokens_F, out=below_F.copy(), where=tokens_F > 0)
    return p_N


def discount_of(count_P: np.ndarray) -> float:
    """Return what to take off each count: n1 / (n1 + 2 n2), n1 and n2 being how many are 1 and 2."""
    once, twice = int((count_P == 1).sum()), int((count_P == 2).sum())
    if not once + twice:
        return DEFAULT_DISCOUNT
    return float(np.clip(once / (once + 2 * twice), LEAST_DISCOUNT, LARGEST_DISCOUNT))


def _pairs(code_N: np.ndarray, context_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each token's pair of context and code, and each pair's context.

    Both are numbered from 0. Every pair that is possible has a number if there are few of them.
    """
    codes, contexts = int(code_N.max()) + 1, int(context_N.max()) + 1
    key_N = context_N * codes + code_N
    if codes * contexts <= SPARSE * len(code_N):
        return key_N, np.arange(codes * contexts) // codes
    key_P, pair_N = np.unique(key_N, return_inverse=True)
    context_P = key_P // codes
    return pair_N, np.cumsum(np.diff(context_P, prepend=context_P[0]) != 0)
