"""The rows of a training log as columns, in the order of the file: they may be millions."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from entropy_cli.commands.monitor.logs.series import Metric

MIN_EPOCHS = 3  # steps that start over this often, after equal numbers of rows, are epochs
NONE = math.nan
MAX_PLACE = 1e15  # larger epochs and steps are none


@dataclass
class Cells:
    """The values of one metric, and the rows that they stand in, in order."""

    row: "array[int]" = field(default_factory=lambda: array("I"))
    value: "array[float]" = field(default_factory=lambda: array("d"))


class Rows:
    """The positions and values of a log.

    Attributes:
        epoch, step: of each row, NaN where the log has none. A step counts within its epoch if there is
            an epoch, else from the start of the run.
        cells: the values of each metric.
        starts: the rows before which a process starts to write to the same file.
        unreadable: number of lines and cells that should be values and are none.
        is_global: whether the step counts from the start of the run although there are epochs.
    """

    def __init__(self) -> None:
        self.step = array("d")
        self.epoch = array("d")  # shorter than the steps if the last rows have none
        self.head = array("d")  # the epoch of a line above, of rows that have none themselves
        self.cells: dict[Metric, Cells] = {}
        self.starts: list[int] = []
        self.unreadable = 0
        self.is_global = False

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.step)

    @property
    def is_placed(self) -> bool:
        """True if a row has an epoch or a step."""
        return not all(map(math.isnan, (*self.step, *self.epoch)))

    def add(
        self,
        epoch: float | None,
        step: float | None,
        values: Iterable[tuple[Metric, float]],
        head: float | None = None,
    ) -> None:
        """Add a row."""
        row = len(self.step)
        if epoch is not None:
            _fill(self.epoch, row).append(epoch)
        if head is not None:
            _fill(self.head, row).append(head)
        self.step.append(NONE if step is None else step)
        for metric, value in values:
            cells = self.cells.get(metric)
            if cells is None or (cells.row and cells.row[-1] == row):
                self.put(metric, value, row)
            else:  # of the rows of long logs nearly all
                cells.row.append(row)
                cells.value.append(value)

    def put(self, metric: Metric, value: float, row: int) -> bool:
        """Add a value to a row; if it has one of this metric, the last one counts in validation.

        Returns whether it counts.
        """
        cells = self.cells.get(metric)
        if cells is None:
            cells = self.cells[metric] = Cells()
        if not cells.row or cells.row[-1] != row:
            cells.row.append(row)
            cells.value.append(value)
        elif metric.split == "val":
            cells.value[-1] = value
        else:
            return False
        return True

    def restart(self) -> None:
        """Note that a process starts."""
        self.starts.append(len(self))

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return epoch and step of each row, (n,), NaN where there is none."""
        n = len(self)
        if not len(self.epoch):
            return np.broadcast_to(np.float64(NONE), n), np.frombuffer(self.step)
        return np.frombuffer(_fill(self.epoch, n)), np.frombuffer(self.step)

    def settle(self) -> None:
        """Make positions that order the rows: epochs that all rows have, and steps where those are.

        Epochs are counted where steps start over regularly, steps where epochs hold several rows. Steps
        that go on from epoch to epoch order the rows alone, and values of a whole epoch belong to its
        last step. Rows without a position are counted.
        """
        self._drop_stale()
        epoch_n, step_n = self.positions()
        has_step, has_epoch = ~np.isnan(step_n), ~np.isnan(epoch_n)
        is_counted = bool((has_step & ~has_epoch).any())
        if is_counted:
            head_n = self._epochs_of_heads(epoch_n, step_n)
            is_counted = head_n is None
            epoch_n = _repeated_epochs(step_n) if head_n is None else head_n
            if is_counted and has_epoch.any() and not has_step.all():
                step_n = _last_known(step_n)  # of rows that only have an epoch
        elif has_epoch.any() and not has_step.any():
            step_n = self._counted(epoch_n)
        elif has_epoch.any():
            both = np.flatnonzero(has_step & has_epoch)
            is_next = np.diff(epoch_n[both]) > 0
            gaps = np.diff(step_n[both])[is_next]
            self.is_global = len(gaps) > 0 and bool(gaps.min() > 0)
            if self.is_global:
                step_n = _last_known(step_n)
        missing = ~np.isfinite(step_n) & (is_counted | ~np.isfinite(epoch_n))
        if missing.any():
            step_n = np.where(missing, np.arange(len(self), dtype=np.float64), step_n)
        self.epoch_n, self.step_n = epoch_n, step_n

    def _of_training(self) -> np.ndarray:
        """Return the rows of the training loss with the most values, (n,)."""
        of_train = [one.row for metric, one in self.cells.items() if metric.is_loss_of("train")]
        return np.frombuffer(max(of_train, key=len, default=array("I")), np.uint32)

    def _counted(self, epoch_n: np.ndarray) -> np.ndarray:
        """Count the rows within epochs, (n,), if most training losses stand beside others of theirs."""
        step_n, of_train = np.full(len(self), NONE), epoch_n[self._of_training()]
        if 2 * np.count_nonzero(np.diff(of_train) == 0) < max(len(of_train), 2):
            return step_n
        is_first = np.append(True, np.diff(epoch_n) != 0)
        return np.arange(len(self)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1] + 0.0

    def _drop_stale(self) -> None:
        """Drop what is no evaluation where validation is written beside most training losses.

        That is, the last value again and again, and NaN before the first or between most of the values.
        """
        train_n, is_stale = self._of_training(), False
        for metric in sorted(self.cells, key=lambda metric: not metric.is_loss_of("val")):
            row_n = np.frombuffer(self.cells[metric].row, np.uint32)
            is_asked = metric.split == "val" and (is_stale or metric.is_loss)
            if not is_asked or np.count_nonzero(train_n >= row_n[0]) > 2 * len(row_n):
                continue
            value_n = np.frombuffer(self.cells[metric].value)
            kept = np.append(True, value_n[1:] != value_n[:-1])
            known = np.flatnonzero(~np.isnan(value_n))
            gaps = int(known[-1]) + 1 - len(known) if len(known) else 0  # before the last value
            if gaps and (gaps == known[0] or 2 * gaps >= len(row_n)):
                kept &= ~np.isnan(value_n)
            if 2 * np.count_nonzero(kept) <= len(row_n):
                is_stale = True
                row, value = row_n[kept].tolist(), value_n[kept].tolist()
                self.cells[metric] = Cells(array("I", row), array("d", value))

    def _epochs_of_heads(self, epoch_n: np.ndarray, step_n: np.ndarray) -> np.ndarray | None:
        """Return the epochs of rows, or of the lines above them, if steps start over with these."""
        if not len(self.head):
            return None
        head_n = np.frombuffer(_fill(self.head, len(self)))
        head_n = _last_known(np.where(np.isnan(epoch_n), head_n, epoch_n))
        before = np.isnan(head_n)  # what stands before the first line with an epoch
        head_n = np.where(before, head_n[~before][0] - 1, head_n)
        stepped = np.flatnonzero(~np.isnan(step_n))
        is_next = np.diff(head_n[stepped]) > 0
        is_over = np.diff(step_n[stepped])[is_next] <= 0
        return head_n if len(is_over) and is_over.all() else None


def _fill(column: "array[float]", length: int) -> "array[float]":
    """Fill a column with none up to a length."""
    if len(column) < length:
        column.extend(array("d", [NONE]) * (length - len(column)))
    return column


def _last_known(position_n: np.ndarray) -> np.ndarray:
    """Return positions, (n,), each without one the last before it; none before the first remain."""
    at_n = np.where(np.isfinite(position_n), np.arange(len(position_n)), 0)
    return position_n[np.maximum.accumulate(at_n)]


def _repeated_epochs(step_n: np.ndarray) -> np.ndarray:
    """Count the epochs of steps that start over after equal numbers of rows; NaN for others."""
    none_n = np.broadcast_to(np.float64(NONE), len(step_n))
    starts = [0, *(np.flatnonzero(np.diff(step_n) < 0) + 1).tolist()]
    lengths = {b - a for a, b in pairwise(starts)}
    if len(starts) < MIN_EPOCHS or len(lengths) != 1 or len(set(step_n[starts].tolist())) != 1:
        return none_n
    return np.arange(len(step_n)) // starts[1] + 0.0
