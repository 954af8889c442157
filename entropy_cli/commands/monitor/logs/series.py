"""Rows of a training log in the order of the file, and the series built from them."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

from entropy_cli.results.floors import Level

Split = Literal["train", "val"]
Kind = Literal["cross_entropy", "accuracy", "loss", "regulariser", "gradient_norm"]
FEW_ROWS = 10  # a segment this short never replaces a longer one
LARGEST = 1e30  # larger values count as infinite
MAX_PARENTS = 20  # how many segments back a resumed run may start from
LOSSES = ("cross_entropy", "loss", "regulariser")
LAG = 4  # rows by which concurrent writers may be apart at the end of a file
LOOK_AHEAD = 2  # rows: concurrent writers are out of order by fewer, a restart is not


@dataclass(frozen=True)
class Metric:
    """A quantity that a log records again and again."""

    name: str  # as in the log
    split: Split = "train"
    kind: Kind = "loss"  # cross-entropies are in nats per token
    # Tokens that it is the mean over, which select its floor: all ("mean"), those of the final scale
    # ("last"), or those of the scale with this side; None if the log does not say.
    scope: Literal["mean", "last"] | int | None = None
    is_proxy: bool = False  # its target moves with the model, so that a lower value need not be better
    has_floor: bool = True  # it could be a cross-entropy; False for a sum of several losses
    description: str = ""  # for the reader

    def __hash__(self) -> int:
        """Hash by the name alone: long logs look up their metrics often."""
        return hash(self.name)

    @property
    def is_loss(self) -> bool:
        """True if training minimizes it."""
        return self.kind in LOSSES

    @property
    def is_main(self) -> bool:
        """True for a main training loss: neither of a single scale nor a regulariser."""
        is_train = self.split == "train" and not isinstance(self.scope, int)
        return is_train and self.kind in ("cross_entropy", "loss")


class Row(NamedTuple):
    """One line of a log.

    A step counts within its epoch if there is an epoch, else from the start of the run.
    """

    epoch: float | None
    step: float | None
    values: Mapping[Metric, float]
    is_global_step: bool = False  # the step counts from the start of the run although there is an epoch

    @property
    def key(self) -> tuple[float, float]:
        """The epoch and step to sort by; the values of a whole epoch come after its steps."""
        return (
            0.0 if self.epoch is None or self.is_global_step else self.epoch,
            math.inf if self.step is None else self.step,
        )


RESTART = Row(None, None, {})  # a process starts to write to the same file
UNREADABLE = Row(None, None, {})  # a line or cell that should be a value and is none


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

    def __len__(self) -> int:
        """Return the number of points, finite or not."""
        return len(self.value_n)

    @cached_property
    def finite(self) -> "Series":
        """The series without NaN, infinity and values beyond `LARGEST`."""
        with np.errstate(invalid="ignore"):
            keep_n = np.abs(self.value_n) < LARGEST
        arrays = {name: getattr(self, name)[keep_n] for name in ("value_n", "epoch_n", "step_n")}
        return replace(self, **arrays)

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
        """Training time of each point, (n,), above zero, in the unit of `position_unit`."""
        position_n = self.epoch_n if self.position_unit == "epoch" else self.step_n
        if not np.isfinite(position_n).all():
            return np.arange(1.0, len(self) + 1)
        if np.any(np.diff(position_n) <= 0) and np.isfinite(self.epoch_n).all():  # steps within epochs
            least, most = position_n.min(), position_n.max()
            position_n = (self.epoch_n - self.epoch_n[0]) * (most - least + 1) + position_n - least
        return position_n + (1.0 - position_n[0] if len(position_n) and position_n[0] < 1 else 0.0)

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

    def find(self, name: str, split: Split = "train") -> Series | None:
        """Return the series of a name and split, or None."""
        wanted = (name, split)
        found = (one for one in self.series if (one.metric.name, one.metric.split) == wanted)
        return next(found, None)


def select_run(rows: Sequence[Row]) -> tuple[list[Row], int, int]:
    """Select the run that gets farthest, of equals the last.

    A segment that starts within an earlier one, or soon after its end, resumes it and replaces what
    comes after; any other starts a new run. A run of a few rows never replaces a longer one, however
    far its step count is.

    Returns:
        The rows of the run, the number of segments, and the number of rows left out.
    """
    keys = [row.key for row in rows if row is not RESTART]
    if keys == sorted(keys, reverse=True) and keys[1:]:
        rows = rows[::-1]  # a table with the newest row on top
    segments: list[list[Row]] = []
    for is_restart, piece in groupby(rows, lambda row: row is RESTART):
        segments += [] if is_restart else _split_at_restarts([*piece])
    axis = 0 if any(row.epoch is not None for row in rows) else 1
    lineages: list[_Lineage] = []
    for segment in segments:
        one = _Lineage(segment)
        parents = (before.until(one.start) for before in lineages[: -MAX_PARENTS - 1 : -1])
        one.resume(next((before for before in parents if before and before.leads_to(one, axis)), None))
        lineages.append(one)
    if not lineages:
        return [], 0, 0
    enough = min(FEW_ROWS, max(map(len, lineages)))
    long = [i for i, lineage in enumerate(lineages) if len(lineage) >= enough]
    best = lineages[max(long, key=lambda i: (lineages[i].keys[-1], i))]
    return best.rows(), len(segments), sum(map(len, segments)) - len(best)


class _Lineage:
    """A segment and those that it resumes, each up to where the next one starts.

    It shares them with other lineages: a log may go back to an earlier step thousands of times. `jump`
    leads far back, so that an ancestor is found in a number of steps that grows with the logarithm.

    Source:
        Myers, An applicative random-access stack, Information Processing Letters 17 (1983).
    """

    def __init__(self, segment: list[Row]) -> None:
        self.segment, self.keys = segment, sorted(row.key for row in segment)
        self.start = self.first = self.keys[0]
        self.resume(None)

    def resume(self, parent: "_Lineage | None") -> None:
        """Follow the rows of another lineage that come before the start of this segment."""
        self.parent, self.jump = parent, parent
        self.before, self.depth = 0, 0
        if parent:
            self.first, self.depth = parent.first, parent.depth + 1
            self.before = parent.before + bisect_left(parent.keys, self.start)
            far = parent.jump
            if far and far.jump and parent.depth - far.depth == far.depth - far.jump.depth:
                self.jump = far.jump

    def __len__(self) -> int:
        return self.before + len(self.segment)

    def until(self, key: tuple[float, float]) -> "_Lineage | None":
        """Return the lineage of the last segment that starts before a key."""
        one: _Lineage | None = self
        while one and one.start >= key:
            one = one.jump if one.jump and one.jump.start >= key else one.parent
        return one

    def leads_to(self, after: "_Lineage", axis: int) -> bool:
        """Return whether the gap before a segment is at most as long as the rows before it."""
        last = self.keys[bisect_left(self.keys, after.start) - 1]
        return after.start[axis] - last[axis] <= max(1.0, last[axis] - self.first[axis])

    def rows(self) -> list[Row]:
        """Return the rows of all its segments, in the order of the log."""
        pieces, one = [self.segment], self
        while one.parent:
            pieces.append([row for row in one.parent.segment if row.key < one.start])
            one = one.parent
        return [row for piece in reversed(pieces) for row in piece]


def _split_at_restarts(rows: list[Row]) -> list[list[Row]]:
    """Split rows where epoch and step fall back for good."""
    keys = [row.key for row in rows]
    starts, farthest = [0], keys[0]
    for i, key in enumerate(keys):
        after = keys[i + 1 : i + 1 + LOOK_AHEAD]
        far_back = i >= LAG and key < keys[i - LAG]
        is_new = max(after) <= farthest if len(after) == LOOK_AHEAD else far_back
        if key < farthest and is_new:
            starts.append(i)
            farthest = key
        farthest = max(farthest, key)
    return [rows[start:end] for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


def build_series(rows: Iterable[Row], loss_name: str | None = None) -> list[Series]:
    """Build a series for each metric, in the order of their first values.

    Of several values at one epoch and step the last counts. If a metric has values of whole epochs, only
    those are kept. Of x_epoch and x_step, which Lightning logs, only the named loss keeps the latter.
    """
    found: dict[Metric, dict[tuple[float, float], tuple[Row, float]]] = {}
    for row in rows:
        for metric, value in row.values.items():
            found.setdefault(metric, {})[row.key] = row, value
    series = [
        _series(metric, [by_key[key] for key in sorted(by_key)]) for metric, by_key in found.items()
    ]
    epochs = {one.metric.name for one in series if len(one) > 1 and one.metric.name.endswith("_epoch")}

    def is_duplicate(name: str) -> bool:
        return name.endswith("_step") and f"{name[:-5]}_epoch" in epochs and name != loss_name

    return [one for one in series if not is_duplicate(one.metric.name)]


def _series(metric: Metric, points: Sequence[tuple[Row, float]]) -> Series:
    """Build a series from points in order; values of whole epochs are preferred to those of steps."""
    bad = _points(metric, [(row, value) for row, value in points if not abs(value) < LARGEST])
    of_epochs = [(row, value) for row, value in points if row.step is None]
    first, first_value = points[0]
    is_untrained = bool(of_epochs) and first.step == 0 and math.isfinite(first_value)
    return replace(
        _points(metric, of_epochs or points),
        untrained_value=first_value if is_untrained else None,
        nonfinite=len(bad),
        nonfinite_at=bad.at(0) if len(bad) else {},
    )


def _points(metric: Metric, points: Sequence[tuple[Row, float]]) -> Series:
    cells = [(value, row.epoch, row.step) for row, value in points]
    return Series(metric, *np.array(cells, np.float64).reshape(-1, 3).T)
