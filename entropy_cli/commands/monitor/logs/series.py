"""What a training log holds: rows in the order of the file, and the series that they make."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

Split = Literal["train", "val"]
Kind = Literal["cross_entropy", "accuracy", "loss", "regulariser", "gradient_norm"]
FEW_ROWS = 10  # of a start that does not stand for a longer one
LARGEST = 1e30  # what is larger is as good as infinite
MOST_PARENTS = 20  # starts back that one may go on from
LAG = 4  # rows that writers who share a file may be behind each other, at its end
LOOK_AHEAD = 2  # rows: writers that share a file are out of order by less, a restart is not


@dataclass(frozen=True)
class Metric:
    """One of the numbers that a log repeats.

    Attributes:
        name: as it stands in the log.
        split: of the data it is of.
        kind: what it is; cross-entropies are in nats per token.
        of: what it is the mean of, so that it meets its own floor: all tokens, those of the last
            scale, or those of the scale with this side; None if the log does not say.
        is_proxy: whether its target moves with the model, so that it does not tell how good that is.
        has_floor: whether it could be a cross-entropy; not what several losses add up to.
        words: what there is to know about it, for people.
    """

    name: str
    split: Split = "train"
    kind: Kind = "loss"
    of: Literal["mean", "last"] | int | None = None
    is_proxy: bool = False
    has_floor: bool = True
    words: str = ""

    def __hash__(self) -> int:
        """By the name alone, which is quick: rows of long logs are looked up by their metrics."""
        return hash(self.name)

    @property
    def is_loss(self) -> bool:
        """Whether it is what training makes small."""
        return self.kind in ("cross_entropy", "loss", "regulariser")


class Row(NamedTuple):
    """One line of a log.

    A step is of the whole run, or within its epoch where there is an epoch.
    """

    epoch: float | None
    step: float | None
    values: Mapping[Metric, float]
    of_run: bool = False  # whether the step is of the run although there is an epoch

    @property
    def key(self) -> tuple[float, float]:
        """Its place: what is said of an epoch as a whole comes after its steps."""
        return (
            0.0 if self.epoch is None or self.of_run else self.epoch,
            math.inf if self.step is None else self.step,
        )


MARK = Row(None, None, {})  # the start of a process that goes on writing the same file
UNREADABLE = Row(None, None, {})  # something that should be a value and is none


@dataclass(frozen=True)
class Series:
    """The values of one metric, one for each place, in order.

    Attributes:
        metric: which.
        value_n: float64; NaN and infinity are among them.
        epoch_n: NaN where the log names none.
        step_n: likewise.
        before: the value before any training, where the log has it beside the series.
        broken: how many values are NaN or infinite, finer ones included.
        broken_at: where the first of them is.
    """

    metric: Metric
    value_n: np.ndarray
    epoch_n: np.ndarray
    step_n: np.ndarray
    before: float | None = None
    broken: int = 0
    broken_at: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """Its points, finite or not."""
        return len(self.value_n)

    @property
    def finite(self) -> "Series":
        """Without NaN and infinity, and what is as good as that."""
        with np.errstate(invalid="ignore"):
            return self.part(np.abs(self.value_n) < LARGEST)

    def part(self, keep_n: np.ndarray) -> "Series":
        """Some of its points."""
        return replace(
            self,
            value_n=self.value_n[keep_n],
            epoch_n=self.epoch_n[keep_n],
            step_n=self.step_n[keep_n],
        )

    def at(self, index: int) -> dict[str, float]:
        """Where a point is, in the log's own terms."""
        place = {"epoch": self.epoch_n[index], "step": self.step_n[index]}
        found = {name: float(value) for name, value in place.items() if math.isfinite(value)}
        return found or {"row": float(index + 1)}

    @property
    def position_n(self) -> np.ndarray:
        """Training time of each point, from above zero, in the unit of `position_unit`."""
        if self.position_unit == "epoch":
            return self.epoch_n + (1.0 - self.epoch_n[0] if self.epoch_n[0] < 1 else 0.0)
        step_n = self.step_n
        if not np.isfinite(step_n).all():
            return np.arange(1.0, len(self) + 1)
        if np.any(np.diff(step_n) <= 0) and np.isfinite(self.epoch_n).all():  # steps within epochs
            least, most = step_n.min(), step_n.max()
            step_n = (self.epoch_n - self.epoch_n[0]) * (most - least + 1) + step_n - least
        return step_n + (1.0 - step_n[0] if len(step_n) and step_n[0] < 1 else 0.0)

    @property
    def position_unit(self) -> str:
        """Epochs if the log gives nothing finer."""
        known = self.step_n[np.isfinite(self.step_n)]
        stands = len(known) == 0 or (len(known) > 1 and known.min() == known.max())
        return "epoch" if stands and np.isfinite(self.epoch_n).all() and len(self) else "step"


@dataclass(frozen=True)
class Log:
    """A training log.

    Attributes:
        format: which.
        series: those of the run that is shown.
        starts: how often a process began to write into it.
        segments: how many of these got to a value.
        left_out: rows of other starts, and of those that a later start went over again.
        unreadable: lines that look like values and are none.
        facts: settings of the run that the log tells.
    """

    format: str
    series: Sequence[Series]
    starts: int
    segments: int
    left_out: int
    unreadable: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str, split: Split = "train") -> Series | None:
        """The series of a name."""
        for series in self.series:
            if (series.metric.name, series.metric.split) == (name, split):
                return series
        return None


def chosen_run(rows: Sequence[Row]) -> tuple[list[Row], int, int]:
    """The rows of the run that gets farthest, the last such; the number of segments; rows left out.

    A start of a few rows does not stand for a longer one, however far it says it is.

    A segment that begins where an earlier one had been, or soon after its end, goes on from it and
    replaces what comes after; one that begins anew is another run.
    """
    keys = [row.key for row in rows if row is not MARK]
    if keys == sorted(keys, reverse=True) and keys[1:]:
        rows = rows[::-1]  # a table with the newest on top
    segments = [segment for segment in _segments(rows) if segment]
    lineages: list[list[Row]] = []
    for segment in segments:
        start = min(row.key for row in segment)
        for before in lineages[: -MOST_PARENTS - 1 : -1]:
            kept = [row for row in before if row.key < start]
            if kept and _goes_on(kept, segment):
                lineages.append([*kept, *segment])
                break
        else:
            lineages.append(segment)
    if not lineages:
        return [], 0, 0
    enough = min(FEW_ROWS, max(map(len, lineages)))
    long = [i for i, lineage in enumerate(lineages) if len(lineage) >= enough]
    best = max(long, key=lambda i: (max(row.key for row in lineages[i]), i))
    return lineages[best], len(segments), sum(map(len, segments)) - len(lineages[best])


def _goes_on(before: Sequence[Row], after: Sequence[Row]) -> bool:
    """Whether the gap is not longer than all that came before it."""
    axis = 0 if any(row.epoch is not None for row in before) else 1
    first, last = (pick(row.key[axis] for row in before) for pick in (min, max))
    start = min(row.key[axis] for row in after)
    return start - last <= max(1.0, last - first)


def _segments(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows cut at marks, and where the place falls back for good."""
    pieces: list[list[Row]] = [[]]
    for row in rows:
        if row is MARK:
            pieces.append([])
        else:
            pieces[-1].append(row)
    return [segment for piece in pieces for segment in _cut(piece)]


def _cut(rows: list[Row]) -> list[list[Row]]:
    keys = [row.key for row in rows]
    starts, farthest = [0], keys[0] if keys else (0.0, 0.0)
    for i, key in enumerate(keys):
        after = keys[i + 1 : i + 1 + LOOK_AHEAD]
        far_back = i >= LAG and key < keys[i - LAG]
        is_new = max(after) <= farthest if len(after) == LOOK_AHEAD else far_back
        if key < farthest and is_new:
            starts.append(i)
            farthest = key
        farthest = max(farthest, key)
    return [rows[start:end] for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


def series_of(rows: Iterable[Row]) -> list[Series]:
    """A series for each metric, in the order of their first values; of one place the last counts.

    Where a metric has values of whole epochs, those are its series.
    """
    found: dict[Metric, dict[tuple[float, float], tuple[Row, float]]] = {}
    for row in rows:
        for metric, value in row.values.items():
            found.setdefault(metric, {})[row.key] = row, value
    return [_series(metric, [by_key[key] for key in sorted(by_key)]) for metric, by_key in found.items()]


def _series(metric: Metric, points: Sequence[tuple[Row, float]]) -> Series:
    """A series of points in order."""
    broken = [row for row, value in points if not abs(value) < LARGEST]
    whole = [(row, value) for row, value in points if row.step is None]
    first, before = points[0]
    is_start = bool(whole) and first.step == 0 and math.isfinite(before)
    kept = whole or points
    return Series(
        metric,
        np.array([value for _, value in kept], np.float64),
        np.array([_number(row.epoch) for row, _ in kept], np.float64),
        np.array([_number(row.step) for row, _ in kept], np.float64),
        before if is_start else None,
        len(broken),
        _place(broken[0]) if broken else {},
    )


def without_finer_twins(series: Sequence[Series], chosen: str | None) -> list[Series]:
    """Without the series of single steps whose metric has one of epochs, as Lightning logs both."""
    names = {one.metric.name for one in series if len(one) > 1}
    return [
        one
        for one in series
        if one.metric.name == chosen
        or not (one.metric.name.endswith("_step") and f"{one.metric.name[:-5]}_epoch" in names)
    ]


def _place(row: Row) -> dict[str, float]:
    place = {"epoch": row.epoch, "step": row.step}
    return {name: value for name, value in place.items() if value is not None}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
