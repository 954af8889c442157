"""What bounds the loss of hard tokens from below, or says nothing of it."""

import math
from dataclasses import dataclass

ALMOST_SURE = 4.743864518390578  # x with (1 + x) exp(-x) = 0.05


def collision_floor(images: int) -> float:
    """Return a lower bound of the entropy of an image's tokens, with 95 % confidence, in nats.

    It holds if no two of the images, which were drawn independently, have the same tokens: so many of a
    distribution p then say that sum p^2 is at most (x / lambda)^2, and the entropy at least -ln of it.

    Args:
        images: M, more than 16.

    Returns:
        2 ln(lambda / x) with lambda = M - 4 sqrt(M), which a Poisson number of images stays above, and
        (1 + x) exp(-x) = 0.05; at least 0.
    """
    return max(0.0, 2 * math.log((images - 4 * math.sqrt(images)) / ALMOST_SURE))


@dataclass(frozen=True)
class Memorisation:
    """What a model that memorises its training images reaches; no bound of anything else.

    Attributes:
        least_loss: ln(images) / tokens, the least average training loss, in nats per token.
        cliff_token: the token after which the ones before it tell which image it is:
            ceil(ln(images) / ln V).

    Source:
        arXiv:2605.06207.
    """

    least_loss: float
    cliff_token: int


def memorisation(images: int, tokens: int, vocab_size: int) -> Memorisation:
    """Return what memorising reaches with some training images of so many tokens each."""
    cliff = 0
    while vocab_size > 1 and vocab_size**cliff < images:  # logarithms would round
        cliff += 1
    return Memorisation(math.log(images) / tokens, cliff)
