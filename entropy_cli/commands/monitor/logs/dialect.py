"""The form of a dialect: what a program's log looks like, and what the names in it stand for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from entropy_cli.commands.monitor.logs.series import Metric

# Where pairs of names and values stand: in printed lines, in a table below a head, in an object per line
# (JSON, or a Python dict), in one JSON document, or in the events of TensorBoard.
Container = Literal["lines", "table", "records", "document", "events"]
Unplaced = Literal["previous", "next", "none"]
ANY = (-math.inf, math.inf)
Named = Metric | Sequence[Metric | None] | None


@dataclass(frozen=True)
class Dialect:
    """Describe what the log of a program looks like.

    A new one is a row of `DIALECTS` and a fixture, no code.

    Attributes:
        container: where its pairs of names and values stand.
        signs: texts that all occur in it; a tuple is any of several. Of dialects whose signs occur, the
            one with the most is taken, of equals the one that knows the most names.
        names: what a name stands for; several metrics for the several values of one name, None for
            nothing. A metric without a name of its own keeps the one in the log, and then its split is
            validation if the name or the line says so. Names that are not listed are read by what is
            usual; in tables, records and events `stem` of a name counts, without the split and the
            averaging, if the name itself is not listed.
        losses: what a loss is whose name is not listed; None to go by its name.
        brackets: when the value in brackets is taken in place of the one before them: on lines without
            a step, where the first is of a few batches; always; never; or on lines without a step the
            worse of both, where one is the best so far. A name that stands for several metrics has its
            own for the value in brackets.
        steps, epochs: names of the position beyond the usual ones, such as `step` and `iter`.
        ignored: names of positions that are none.
        unplaced: whether a value on a line without a position belongs to the previous one, the next
            one, or none, as in summaries at the end.
        starts: a text on a line that each process writes when it starts.
        placeholders: values that stand for none.
        first: the range of the first loss; the dialect is another if the log begins outside.
    """

    container: Container
    signs: Sequence[str | tuple[str, ...]]
    names: Mapping[str, Named] = field(default_factory=dict)
    losses: Metric | None = None
    brackets: Literal["without step", "always", "never", "worse"] = "without step"
    steps: Sequence[str] = ()
    epochs: Sequence[str] = ()
    ignored: Sequence[str] = ()
    unplaced: Unplaced = "previous"
    starts: str = ""
    placeholders: Sequence[float] = ()
    first: tuple[float, float] = ANY

    def count_signs(self, text: str) -> int:
        """Return the number of signs if all occur in a text, else 0."""
        choices = ((sign,) if isinstance(sign, str) else sign for sign in self.signs)
        return len(self.signs) if all(any(one in text for one in some) for some in choices) else 0


# Kinds of metrics, to be changed by `like`. Cross-entropies of tokens may have a floor, others none.
TOKENS = Metric("", kind="cross_entropy", unit="nats per token", target="tokens")
TOKEN_BITS = replace(TOKENS, unit="bits per token")
TOKEN_SUMS = replace(TOKENS, unit="nats per token, summed")
BYTE_BITS = replace(TOKENS, unit="bits per byte")
CODE_BITS = replace(TOKENS, unit="nats per bit")
ACCURACY = Metric("", kind="accuracy")
GRADIENT = Metric("", kind="gradient_norm")
LATENTS = Metric("", target="latents")
CLASSES = Metric("", target="classes", description="of the classes of whole images")
NOISE = Metric("", target="noise", description="of predicted noise: no cross-entropy")
PIXELS = Metric("", target="pixels", description="of pixels: no cross-entropy of codes")
ADVERSARY = Metric("", target="adversary", description="of a game of two networks: no cross-entropy")
PERCEPTION = Metric("", target="perception", description="of features of images: no cross-entropy")
CODEBOOK = Metric("", kind="regulariser", target="codebook", description="between latents and codes")
SUM = Metric("", target="sum", description="sum of several losses, no cross-entropy")


def like(metric: Metric, name: str = "", **changes: Any) -> Metric:  # noqa: ANN401 - fields of Metric
    """Return a metric that differs in some fields, and has this name if one is given."""
    return replace(metric, name=name or metric.name, **changes)
