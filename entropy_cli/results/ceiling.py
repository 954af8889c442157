"""What a trained model's loss must stay below: the unigram entropy, if it is known from above."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.schema import Result, ScaleResult


class Ceiling(NamedTuple):
    """What a unigram entropy is at most, in nats per token, and the half-width of the 95 % interval."""

    value: float
    half_width: float


def ceiling(result: Result, unigram: Estimate, scales: Sequence[ScaleResult]) -> Ceiling | None:
    """The ceiling that a unigram entropy is.

    A lower bound is none. In an average over scales, those of which there is only a lower bound count
    as ln V; if there is no more of any of them, the average is none either.

    Args:
        result: what it is of.
        unigram: of one scale, or the token-weighted average of several.
        scales: these.
    """
    if unigram.half_width is not None:
        return Ceiling(unigram.known, unigram.half_width)
    if all(scale.unigram_entropy.half_width is None for scale in scales):
        return None
    largest = math.log(result.tokenizer.vocab_size)
    tokens, value, half_width = sum(scale.tokens for scale in scales), 0.0, 0.0
    for scale in scales:
        of, weight = scale.unigram_entropy, scale.tokens / tokens
        value += weight * (largest if of.half_width is None else of.known)
        half_width += weight * (of.half_width or 0.0)
    return Ceiling(value, half_width)
