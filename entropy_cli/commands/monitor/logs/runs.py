"""Rows of a training log in the order of the file, the run among them, and the series built from it."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from entropy_cli.commands.monitor.logs.series import LARGEST, Metric, Series

FEW_ROWS = 10  # a segment this short never replaces a longer one
MAX_PARENTS = 20  # how many segments back a resumed run may start from
LAG = 4  # rows by which concurrent writers may be apart at the end of a file
LOOK_AHEAD = 2  # rows: concurrent writers are out of order by fewer, a restart is not


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
    steps = {one.metric.name: one for one in series if one.metric.name.endswith("_step")}
    kept = []
    for one in series:
        base, _, end = one.metric.name.rpartition("_")
        finer = steps.get(f"{base}_step") if end == "epoch" and len(one) > 1 else None
        if finer is not None and finer.metric.name != loss_name:
            del steps[finer.metric.name]
            one = replace(one, finer=finer)
        kept.append(one)
    return [one for one in kept if not one.metric.name.endswith("_step") or one.metric.name in steps]


def _series(metric: Metric, points: Sequence[tuple[Row, float]]) -> Series:
    """Build a series from points in order; values of whole epochs are preferred to those of steps."""
    bad = _points(metric, [(row, value) for row, value in points if not abs(value) < LARGEST])
    of_epochs = [(row, value) for row, value in points if row.step is None]
    of_steps = [(row, value) for row, value in points if row.step is not None] if of_epochs else []
    first, first_value = points[0]
    is_untrained = bool(of_epochs) and first.step == 0 and math.isfinite(first_value)
    return replace(
        _points(metric, of_epochs or points),
        untrained_value=first_value if is_untrained else None,
        nonfinite=len(bad),
        nonfinite_at=bad.at(0) if len(bad) else {},
        finer=_points(metric, of_steps) if of_steps[1:] else None,
    )


def _points(metric: Metric, points: Sequence[tuple[Row, float]]) -> Series:
    cells = [(value, row.epoch, row.step) for row, value in points]
    return Series(metric, *np.array(cells, np.float64).reshape(-1, 3).T)
