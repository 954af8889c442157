"""The ladder of some hard tokens: every rung with its limits, and what bounds them from below."""

from dataclasses import dataclass
from typing import Any, Literal

from entropy_cli.entropy.ladder.lower_bounds import Memorisation
from entropy_cli.entropy.quantity import Averages, Cluster

SCHEMA, SCHEMA_VERSION = "entropy-cli/ladder", 1
Context = Literal["var", "raster", "depth", "none"]


@dataclass(frozen=True)
class Bound:
    """An upper bound of an irreducible loss in expectation, in nats per token.

    Attributes:
        value: the mean held-out code length.
        se: its standard error, by the delete-a-group jackknife with the predictors held.
        ci95: its 95 % interval.
        upper95: the one-sided 95 % limit: the loss is at most this.
    """

    value: float
    se: float
    ci95: tuple[float, float]
    upper95: float


@dataclass(frozen=True)
class Gain:
    """The distance of a rung below the one before it, paired by images, in nats per token."""

    value: float
    se: float
    ci95: tuple[float, float]

    @property
    def is_none(self) -> bool:
        """Return whether the interval reaches 0."""
        return self.ci95[0] <= 0


@dataclass(frozen=True)
class RungResult:
    """One rung; `weights` are the mean weights of its predictors at each scale."""

    id: str
    sees: str
    scales: list[Bound]
    average: Averages[Bound]  # each with the error of an average
    gain: Gain | None  # None for the first
    weights: list[dict[str, float]]


@dataclass(frozen=True)
class Bracket:
    """The unigram entropy of a scale: the truth lies between, in expectation; nats per token."""

    plug_in: float
    held_out: float


@dataclass(frozen=True)
class Lowest:
    """The lowest rung's token-weighted average."""

    rung: str
    value: float
    upper95: float


@dataclass(frozen=True)
class CollisionFloor:
    """A lower bound without assumptions, in nats per token; `value` holds given the class too."""

    value: float
    without_class: float
    confidence: float


@dataclass(frozen=True)
class Refusal:
    """A bound that is often asked for, and why it isn't given."""

    id: str
    reason: str


@dataclass(frozen=True)
class TokenCounts:
    """What the ladder was made of: images used, tokens of an image, codes, and different rows."""

    images: int
    tokens: int
    vocab_size: int
    distinct_rows: int


@dataclass(frozen=True)
class ProbeSettings:
    """How the probe was trained; its rung depends on it."""

    steps: int  # the most that were asked for
    steps_done: list[int]  # of each half's net, at its least loss on images kept for stopping
    width: int
    images: int
    sees: str
    seconds: float
    seconds_cap: float | None
    was_cut: bool  # by the cap: another run may get further


@dataclass(frozen=True)
class LadderSettings:
    """What changes the numbers."""

    context: Context
    classes: int | None  # the number of classes that a rung sees
    cluster: Cluster
    folds: int
    groups: int
    seed: int
    probe: ProbeSettings | None


@dataclass(frozen=True)
class ModelLoss:
    """A model's measured cross-entropy on these tokens, in nats per token, and what the rungs say."""

    source: str
    cross_entropy: float
    message: str


@dataclass(frozen=True)
class Ladder:
    """Upper bounds of the irreducible loss of hard tokens, and a small bound from below."""

    schema: str
    schema_version: int
    units: str
    tokens: TokenCounts
    settings: LadderSettings
    patch_nums: list[int | None]
    scale_tokens: list[int]
    rungs: list[RungResult]
    bracket: list[Bracket]
    lowest: Lowest
    floor: CollisionFloor | None
    memorisation: Memorisation | None
    refused: list[Refusal]
    notes: list[str]
    provenance: dict[str, Any]
    model: ModelLoss | None = None
