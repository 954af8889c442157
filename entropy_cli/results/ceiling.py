"""The ceiling of a trained model's loss: the unigram entropy, or an upper bound of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.schema import Result, ScaleResult


class Ceiling(NamedTuple):
    """An upper limit of a unigram entropy and the half-width of its 95 % interval, in nats per token."""

    value: float
    half_width: float


def ceiling(result: Result, unigram: Estimate, scales: Sequence[ScaleResult]) -> Ceiling | None:
    """Return the ceiling that a unigram entropy sets, or None if it is only a lower bound.

    In an average over scales, those with only a lower bound count as ln V; if all have only a lower
    bound, there is no ceiling.

    Args:
        result: the result that holds the entropy.
        unigram: the unigram entropy of one scale, or the token-weighted average of several.
        scales: that scale, or those scales.
    """
    if unigram.half_width is not None:
        return Ceiling(unigram.known, unigram.half_width)
    if all(scale.unigram_entropy.half_width is None for scale in scales):
        return None
    log_vocab = math.log(result.tokenizer.vocab_size)
    tokens, value, half_width = sum(scale.tokens for scale in scales), 0.0, 0.0
    for scale in scales:
        estimate, weight = scale.unigram_entropy, scale.tokens / tokens
        value += weight * (log_vocab if estimate.half_width is None else estimate.known)
        half_width += weight * (estimate.half_width or 0.0)
    return Ceiling(value, half_width)
