"""Losses set beside the assignment entropy and the ceilings of their tokens. Imports no torch."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from entropy_cli.core.errors import ShapeError
from entropy_cli.entropy.quantity import Averages
from entropy_cli.results.floors import Floor, Level

# Names of what is added to a dashboard beside the losses: it is none itself.
ADDED = re.compile(r"(?:^|/)(?:assignment_entropy|ce_minus_a|below_\w+|finding)/")


@dataclass(frozen=True)
class Excess:
    """A loss beside its assignment entropy A and its ceilings, in nats per token.

    Attributes:
        loss: the loss itself.
        assignment_entropy: A.
        ce_minus_a: the loss minus A: its distance to the floor of soft or sampled labels. Under hard
            labels A is no floor, and the difference may be negative.
        below: how far the loss lies below each ceiling, by the ceiling's name: uniform (ln V), unigram,
            and the other rungs of a ladder; negative above it.
    """

    loss: float
    assignment_entropy: float
    ce_minus_a: float
    below: Mapping[str, float]

    def metrics(self, series: str) -> dict[str, float]:
        """Return A and the differences by name, as for a dashboard; `series` is the loss's own name."""
        return {
            f"assignment_entropy/{series}": self.assignment_entropy,
            f"ce_minus_a/{series}": self.ce_minus_a,
            **{f"below_{name}/{series}": value for name, value in self.below.items()},
        }


@dataclass(frozen=True)
class ScaleExcess:
    """The losses of all scales, the coarsest first, and their averages."""

    scales: Sequence[Excess]
    average: Averages[Excess]


def excess(loss: float, level: Level, vocab_size: int | None = None) -> Excess:
    """Set a loss beside its floor and ceilings; `vocab_size` adds the uniform guess."""
    uniform = {} if vocab_size is None else {"uniform": math.log(vocab_size)}
    below = {name: ceiling - loss for name, ceiling in (uniform | level.ceilings).items()}
    return Excess(loss, level.floor, loss - level.floor, below)


def excess_of_scales(loss_S: Sequence[float], floor: Floor) -> ScaleExcess:
    """Set the losses of all scales, (S,), and their averages beside their floors.

    Raises:
        ShapeError: it is not one loss for each scale of the result.
    """
    tokens_S = [scale.tokens for scale in floor.by_scale]
    if len(loss_S) != len(tokens_S):
        raise ShapeError(
            f"losses_S: got {len(loss_S)} losses, expected {len(tokens_S)}, one for each scale of "
            f"{floor.source.partition(': ')[0]}. Average each scale's tokens."
        )
    token_weighted = sum(loss * tokens for loss, tokens in zip(loss_S, tokens_S, strict=True))
    means = (token_weighted / sum(tokens_S), sum(loss_S) / len(loss_S), loss_S[-1])
    levels = (floor.mean, floor.over_scales, floor.last)
    return ScaleExcess(
        [
            excess(loss, scale.level, floor.vocab_size)
            for loss, scale in zip(loss_S, floor.by_scale, strict=True)
        ],
        Averages(
            *(
                excess(mean, level, floor.vocab_size)
                for mean, level in zip(means, levels, strict=True)
                if level is not None  # all are known where the scales are
            )
        ),
    )
