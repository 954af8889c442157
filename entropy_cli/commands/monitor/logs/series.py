"""The series of a training log."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from entropy_cli.results.floors import Level

Split = Literal["train", "val"]
Kind = Literal[
    "cross_entropy",
    "accuracy",
    "loss",
    "regulariser",
    "gradient_norm",
    "learning_rate",
    "tokens",
    "other",
]
# What a loss counts, and in which unit; None if the log does not say.
Unit = Literal[
    "nats per token",
    "bits per token",
    "nats per token, summed",  # over accumulated batches
    "nats per bit",
    "nats per byte",
    "bits per byte",
]
TOKEN_UNITS = (None, "nats per token", "bits per token")  # of what can be compared with a floor
# What a loss is a loss of. A sum has parts of several kinds.
Target = Literal[
    "tokens",
    "classes",
    "pixels",
    "latents",
    "noise",
    "adversary",
    "perception",
    "codebook",
    "sum",
    "unknown",
]
# What a value is of the training since the last one: of one batch, a mean, or the best so far.
Statistic = Literal["value", "mean", "best"]
LARGEST = 1e30  # larger values count as infinite
FEW_EPOCHS, FINER = 32, 10  # too few points for a plateau, and how many more finer ones have to be
START_SHARE = 0.05
LOSSES = ("cross_entropy", "loss", "regulariser")


@dataclass(frozen=True)
class Metric:
    """A quantity that a log records again and again."""

    name: str  # as in the log
    split: Split = "train"
    kind: Kind = "loss"  # cross-entropies are in nats per token
    # Tokens that it is the mean over, which select its floor: all ("mean"), those of the final scale
    # ("last"), or those of the scale with this side; None if the log does not say.
    scope: Literal["mean", "last"] | int | None = None
    description: str = ""  # for the reader
    unit: Unit | None = None
    target: Target = "unknown"
    statistic: Statistic = "value"

    def __hash__(self) -> int:
        """Hash by the name alone: long logs look up their metrics often."""
        return hash(self.name)

    @property
    def is_loss(self) -> bool:
        """True if training minimizes it."""
        return self.kind in LOSSES

    def is_loss_of(self, split: Split) -> bool:
        """Return whether it is a loss of a split."""
        return self.is_loss and self.split == split

    @property
    def is_proxy(self) -> bool:
        """True if its target moves with the model, so that a lower value need not be better."""
        return self.target == "latents"

    @property
    def has_floor(self) -> bool:
        """True if it could be a cross-entropy of tokens, in a unit that a floor can be given in."""
        return self.target in ("tokens", "latents", "unknown") and self.unit in TOKEN_UNITS

    @property
    def is_adversarial(self) -> bool:
        """True if a second network works against it, or against a part of it: its height says little."""
        return self.target in ("adversary", "sum")

    @property
    def is_shown(self) -> bool:
        """True for what is summarized: losses and accuracies."""
        return self.is_loss or self.kind == "accuracy"

    @property
    def is_main(self) -> bool:
        """True for a main training loss: neither of a single scale nor a regulariser."""
        is_train = self.split == "train" and not isinstance(self.scope, int)
        return is_train and self.kind in ("cross_entropy", "loss")


@dataclass(frozen=True)
class Series:
    """The values of one metric, one per epoch or step, in order; arrays are float64, (n,)."""

    metric: Metric
    value_n: np.ndarray  # NaN and infinity included
    epoch_n: np.ndarray  # NaN where the log has none
    step_n: np.ndarray  # NaN where the log has none
    untrained_value: float | None = None  # before any training, if the log has it beside the series
    nonfinite: int = 0  # number of values that are NaN or infinite, those of single steps included
    nonfinite_at: Mapping[str, float] = field(default_factory=dict)  # place of the first of them
    level: Level | None = None  # its floor; None if none applies
    finer: "Series | None" = None  # the same quantity at single steps, where this has means of epochs

    def __len__(self) -> int:
        """Return the number of points, finite or not."""
        return len(self.value_n)

    @cached_property
    def finite(self) -> "Series":
        """The series without NaN, infinity and values beyond `LARGEST`."""
        with np.errstate(invalid="ignore"):
            keep_n = np.abs(self.value_n) < LARGEST
        if keep_n.all() and (self.finer is None or self.finer.finite is self.finer):
            return self  # long series are not copied
        arrays = {name: getattr(self, name)[keep_n] for name in ("value_n", "epoch_n", "step_n")}
        return replace(self, **arrays, finer=self.finer and self.finer.finite)

    @property
    def initial(self) -> float:
        """The value before any training if the log has it, else the first finite one."""
        return float(self.finite.value_n[0]) if self.untrained_value is None else self.untrained_value

    def at(self, index: int) -> dict[str, float]:
        """Return epoch and step of a point, or its row if the log has neither."""
        place = {"epoch": self.epoch_n[index], "step": self.step_n[index]}
        found = {name: float(value) for name, value in place.items() if math.isfinite(value)}
        return found or {"row": float(index + 1)}

    @property
    def position_n(self) -> np.ndarray:
        """Training time of each point, (n,), in the unit of `position_unit`."""
        position_n = self.epoch_n if self.position_unit == "epoch" else self.step_n
        if not np.isfinite(position_n).all():
            return np.arange(1.0, len(self) + 1)
        if np.any(np.diff(position_n) <= 0) and np.isfinite(self.epoch_n).all():  # steps within epochs
            least, most = position_n.min(), position_n.max()
            epoch_n = self.epoch_n - self.epoch_n[0]
            if (epoch_n % 1).any():  # parts of epochs, which are rounded
                epoch_n = np.unique(epoch_n, return_inverse=True)[1]
            position_n = epoch_n * (most - least + 1) + position_n - least + 1
        return position_n

    @property
    def begins_at_start(self) -> bool:
        """True if it begins in the first twentieth of the training that it shows."""
        position_n = self.position_n
        return bool(len(self) and position_n[0] <= max(1.0, START_SHARE * position_n[-1]))

    @property
    def judged(self) -> "Series":
        """The series by which a run is judged: its finer values, if it has but few of whole epochs."""
        finer = self.finer
        if finer is None or len(self) >= FEW_EPOCHS or len(finer) < FINER * len(self):
            return self
        return replace(self, value_n=finer.value_n, epoch_n=finer.epoch_n, step_n=finer.step_n)

    @property
    def position_unit(self) -> str:
        """The unit of training time: epoch if the log has nothing finer, else step."""
        known = self.step_n[np.isfinite(self.step_n)]
        stands = len(known) == 0 or (len(known) > 1 and known.min() == known.max())
        return "epoch" if stands and np.isfinite(self.epoch_n).all() and len(self) else "step"


@dataclass(frozen=True)
class Log:
    """A training log."""

    format: str  # a key of `FORMATS`, or tensorboard
    series: Sequence[Series]  # of the run that is shown
    starts: int  # number of processes that wrote to it
    segments: int  # number of these that wrote a value
    left_out: int  # rows of other runs, and those that a resumed run replaced
    unreadable: int = 0  # lines and cells that should be values and are none
    arguments: Mapping[str, str] = field(default_factory=dict)  # of the program, if the log has them
    notes: Sequence[str] = ()  # what had to be guessed or mended to read it, in sentences

    def find(self, name: str, split: Split = "train") -> Series | None:
        """Return the series of a name and split, or None."""
        wanted = (name, split)
        found = (one for one in self.series if (one.metric.name, one.metric.split) == wanted)
        return next(found, None)
