"""The run in a log that several processes may have written, and the series built from it."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from entropy_cli.commands.monitor.logs.rows import Rows
from entropy_cli.commands.monitor.logs.series import LARGEST, Metric, Series

FEW_ROWS = 10  # a segment this short never replaces a longer one
MAX_PARENTS = 20  # how many segments back a resumed run may start from
LAG = 4  # rows by which concurrent writers may be apart at the end of a file
LOOK_AHEAD = 2  # rows: concurrent writers are out of order by fewer, a restart is not


class Run(NamedTuple):
    """The rows of a run, in the order of the log."""

    row_n: np.ndarray | None  # None for all rows, in order
    rank_n: np.ndarray | None  # the order of all rows by epoch and step; None if that of the log
    segments: int
    left_out: int  # rows of other runs


def select_run(rows: Rows) -> Run:
    """Select the run that gets farthest, of equals the last.

    A segment that starts within an earlier one, or soon after its end, resumes it and replaces what
    comes after; any other starts a new run. A run of a few rows never replaces a longer one, however
    far its step count is. `rows` are settled.
    """
    n = len(rows)
    if not n:
        return Run(None, None, 0, 0)
    epoch_n, step_n = _filled(rows.epoch_n, 0.0), _filled(rows.step_n, math.inf)
    if rows.is_global:
        epoch_n = np.broadcast_to(np.float64(0), n)
    starts = sorted({at for at in rows.starts if 0 < at < n})
    if not starts and _is_sorted(epoch_n, step_n):
        return Run(None, None, 1, 0)
    rank_n, keys = _ranks(epoch_n, step_n)
    order_n = np.arange(n)
    if (np.diff(rank_n) <= 0).all() and rank_n[0] > rank_n[-1]:
        order_n, starts = order_n[::-1], []  # a table with the newest row on top
    writers = max(1, n // len(keys))
    segments = []
    for piece in np.split(order_n, starts):
        for begin, end in _split_at_restarts(rank_n[piece], writers):
            segments.append(piece[begin:end])
    axis = 0 if np.isfinite(rows.epoch_n).any() else 1
    run_n, left_out = _farthest(segments, rank_n, keys[:, axis])
    return Run(run_n, rank_n, len(segments), left_out)


def _filled(position_n: np.ndarray, value: float) -> np.ndarray:
    """Return positions with this value for none; they are not copied if there is nothing to fill."""
    if position_n.strides == (0,) and len(position_n):
        is_none = bool(np.isnan(position_n[0]))
        return np.broadcast_to(np.float64(value), len(position_n)) if is_none else position_n
    missing_n = np.isnan(position_n)
    return np.where(missing_n, value, position_n) if missing_n.any() else position_n


def _is_sorted(epoch_n: np.ndarray, step_n: np.ndarray) -> bool:
    more_n = epoch_n[1:] > epoch_n[:-1]
    same_n = epoch_n[1:] == epoch_n[:-1]
    return bool((more_n | (same_n & (step_n[1:] >= step_n[:-1]))).all())


def _ranks(epoch_n: np.ndarray, step_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each row by epoch and step, (n,), and both of each rank, (ranks, 2)."""
    order_n = np.lexsort((step_n, epoch_n))
    keys = np.stack([epoch_n[order_n], step_n[order_n]], axis=1)
    is_new = np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)])
    rank_n = np.empty(len(order_n), np.int64)
    rank_n[order_n] = np.cumsum(is_new) - 1
    return rank_n, keys[is_new]


def _split_at_restarts(rank_n: np.ndarray, writers: int) -> list[tuple[int, int]]:
    """Split rows where their positions fall back for good, with so many writers of each row."""
    ranks, (ahead, lag) = rank_n.tolist(), (LOOK_AHEAD * writers, LAG * writers)
    starts, farthest = [0], ranks[0]
    for i, rank in enumerate(ranks):
        if rank < farthest:
            after = ranks[i + 1 : i + 1 + ahead]
            far_back = i >= lag and rank < ranks[i - lag]
            if max(after) <= farthest if len(after) == ahead else far_back:
                starts.append(i)
                farthest = rank
        farthest = max(farthest, rank)
    return list(zip(starts, [*starts[1:], len(ranks)], strict=True))


def _farthest(
    segments: list[np.ndarray], rank_n: np.ndarray, axis_r: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the rows of the run that gets farthest, and how many are left out."""
    lineages: list[_Lineage] = []
    for segment in segments:
        one = _Lineage(segment, rank_n)
        parents = (before.until(one.start) for before in lineages[: -MAX_PARENTS - 1 : -1])
        near = (before for before in parents if before and before.leads_to(one, axis_r))
        one.resume(next(near, None))
        lineages.append(one)
    enough = min(FEW_ROWS, max(map(len, lineages)))
    long = [i for i, lineage in enumerate(lineages) if len(lineage) >= enough]
    best = lineages[max(long, key=lambda i: (lineages[i].key_n[-1], i))]
    return best.rows(rank_n), sum(map(len, segments)) - len(best)


class _Lineage:
    """A segment and those that it resumes, each up to where the next one starts.

    It shares them with other lineages: a log may go back to an earlier step thousands of times. `jump`
    leads far back, so that an ancestor is found in a number of steps that grows with the logarithm.

    Source:
        Myers, An applicative random-access stack, Information Processing Letters 17 (1983).
    """

    def __init__(self, segment: np.ndarray, rank_n: np.ndarray) -> None:
        self.segment, self.key_n = segment, np.sort(rank_n[segment])
        self.start = self.first = int(self.key_n[0])
        self.resume(None)

    def resume(self, parent: "_Lineage | None") -> None:
        """Follow the rows of another lineage that come before the start of this segment."""
        self.parent, self.jump = parent, parent
        self.before, self.depth = 0, 0
        if parent:
            self.first, self.depth = parent.first, parent.depth + 1
            self.before = parent.before + int(np.searchsorted(parent.key_n, self.start))
            far = parent.jump
            if far and far.jump and parent.depth - far.depth == far.depth - far.jump.depth:
                self.jump = far.jump

    def __len__(self) -> int:
        return self.before + len(self.segment)

    def until(self, key: int) -> "_Lineage | None":
        """Return the lineage of the last segment that starts before a key."""
        one: _Lineage | None = self
        while one and one.start >= key:
            one = one.jump if one.jump and one.jump.start >= key else one.parent
        return one

    def leads_to(self, after: "_Lineage", axis_r: np.ndarray) -> bool:
        """Return whether the gap before a segment is at most as long as the rows before it."""
        last = axis_r[self.key_n[np.searchsorted(self.key_n, after.start) - 1]]
        return bool(axis_r[after.start] - last <= max(1.0, last - axis_r[self.first]))

    def rows(self, rank_n: np.ndarray) -> np.ndarray:
        """Return the rows of all its segments, in the order of the log."""
        pieces, one = [self.segment], self
        while one.parent:
            earlier = one.parent.segment
            pieces.append(earlier[rank_n[earlier] < one.start])
            one = one.parent
        return np.concatenate(pieces[::-1])


def build_series(rows: Rows, run: Run, loss_name: str | None = None) -> list[Series]:
    """Build a series for each metric, in the order of their first values.

    Of several values at one epoch and step the last counts. If a metric has values of whole epochs, its
    series is of those, and has those of steps as its finer one. The same holds for x_epoch and x_step,
    which Lightning logs, unless one of them is the named loss.
    """
    found = [_series(*points) for points in _points(rows, run)]
    return _with_finer([one for one in found if len(one)], loss_name)


def _points(rows: Rows, run: Run) -> Iterator[tuple[Metric, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield each metric with its values, epochs and steps in the run, one per position, (n,) each.

    The cells of a metric are freed; metrics in the same rows share their positions.
    """
    chosen = np.full(0 if run.row_n is None else len(rows), -1)
    if run.row_n is not None:
        chosen[run.row_n] = np.arange(len(run.row_n))
    known_n, places = np.zeros(0, np.uint32), (rows.epoch_n, rows.step_n)
    for metric in sorted(rows.cells, key=lambda metric: rows.cells[metric].row[0]):
        cells = rows.cells.pop(metric)
        row_n, value_n = np.frombuffer(cells.row, np.uint32), np.frombuffer(cells.value)
        if not np.array_equal(row_n, known_n):
            if run.rank_n is None:
                keep_n = _last_of_equal(row_n, places)
            else:
                keep_n = _chosen(run.rank_n[row_n], chosen[row_n])
            kept_n, is_all = row_n[keep_n], isinstance(keep_n, slice) and len(row_n) == len(rows)
            epoch_n, step_n = (place_n if is_all else _at(kept_n, place_n) for place_n in places)
            known_n = row_n
        yield metric, value_n[keep_n], epoch_n, step_n


def _chosen(rank_n: np.ndarray, chosen_n: np.ndarray) -> np.ndarray:
    """Return which points are of the run, in order: of equal positions the last one."""
    order_n = np.lexsort((chosen_n, rank_n))
    order_n = order_n[chosen_n[order_n] >= 0]
    is_last = np.append(np.diff(rank_n[order_n]) != 0, np.ones(min(len(order_n), 1), bool))
    return order_n[is_last]


def _last_of_equal(row_n: np.ndarray, places: Iterable[np.ndarray]) -> np.ndarray | slice:
    """Return which points to keep where all are of the run: of equal positions the last one."""
    is_last = np.zeros(max(0, len(row_n) - 1), bool)
    for place_n in places:
        if place_n.strides != (0,):
            here_n = _at(row_n, place_n)
            is_last |= (here_n[1:] != here_n[:-1]) & ~(np.isnan(here_n[1:]) & np.isnan(here_n[:-1]))
    return slice(None) if is_last.all() else np.append(is_last, True)


def _at(row_n: np.ndarray, place_n: np.ndarray) -> np.ndarray:
    """Return the positions of rows; equal ones take no memory."""
    return place_n[: len(row_n)] if place_n.strides == (0,) else place_n[row_n]


def _series(metric: Metric, value_n: np.ndarray, epoch_n: np.ndarray, step_n: np.ndarray) -> Series:
    """Build a series from points in order; values of whole epochs are preferred to those of steps."""
    whole = Series(metric, value_n, epoch_n, step_n)
    with np.errstate(invalid="ignore"):
        bad_n = np.flatnonzero(~(np.abs(value_n) < LARGEST))
    place = whole.at(int(bad_n[0])) if len(bad_n) else {}
    of_epoch = np.isnan(step_n)
    if not of_epoch.any():
        return replace(whole, nonfinite=len(bad_n), nonfinite_at=place)
    series, finer = (
        Series(metric, value_n[keep], epoch_n[keep], step_n[keep]) for keep in (of_epoch, ~of_epoch)
    )
    is_untrained = step_n[0] == 0 and math.isfinite(value_n[0])
    return replace(
        series,
        untrained_value=float(value_n[0]) if is_untrained else None,
        nonfinite=len(bad_n),
        nonfinite_at=place,
        finer=finer if len(finer) > 1 else None,
    )


def _with_finer(series: list[Series], loss_name: str | None) -> list[Series]:
    """Attach each x_step to its x_epoch, unless it is the named loss."""
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
