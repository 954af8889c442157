"""Give the values of lines a place: their own position, or that of the lines around them."""

from collections.abc import Iterable

from entropy_cli.commands.monitor.logs.dialect import Unplaced
from entropy_cli.commands.monitor.logs.rows import Rows
from entropy_cli.commands.monitor.logs.series import Metric

FEW = 1_000  # rows that are forgotten once a position shows that they stand before the training
Values = Iterable[tuple[Metric, float]]


class Placer:
    """Adds the values of lines to rows.

    Args:
        unplaced: where the values of lines without a position belong.

    Attributes:
        rows: what was added.
        dropped: number of values without a position of their own after one of the same name.
        is_moved: whether a position was reached since the last start.
    """

    def __init__(self, unplaced: Unplaced) -> None:
        self.unplaced, self.rows, self.dropped = unplaced, Rows(), 0
        self._waiting: dict[Metric, float] = {}  # for a row that belongs to them
        self._is_placed = False  # whether any line had a position
        self._forget()

    def _forget(self) -> None:
        self.epoch: float | None = None
        self.step: float | None = None
        self.head: float | None = None  # the epoch of a line above
        self.is_moved = False
        self._shape: object = None  # of the line that began the row at the position reached

    def restart(self) -> None:
        """Note that a process starts."""
        self.rows.restart()
        self._forget()

    def place(self, epoch: float | None, step: float | None, values: Values, shape: object) -> None:
        """Add the values of a line with a position; of lines of other shapes there the first counts."""
        if (epoch, step) != (self.epoch, self.step):
            self.epoch, self.step, self.is_moved, self._shape = epoch, step, True, None
        if not values:
            self.head = epoch if step is None else self.head
            return
        if self._shape not in (None, shape):
            for metric, value in values:
                self.rows.put(metric, value, len(self.rows) - 1)
            return
        if not self._is_placed and 0 < len(self.rows) < FEW:
            self.dropped += len(self.rows)
            self.rows = Rows()
        self._shape, self._is_placed = shape, True
        waiting, self._waiting = self._waiting, {}
        if waiting and step == 1 and self.unplaced == "previous":
            # Steps are counted from 1: what stands before the first is of the untrained model.
            self.rows.add(epoch, 0.0, waiting.items())
            waiting = {}
        self.rows.add(epoch, step, values, self.head if epoch is None else None)
        self._put(waiting.items())

    def follow(self, values: Values) -> None:
        """Add the values of a line without a position."""
        if not values or self.unplaced == "none":
            return
        if self.is_moved and self.unplaced == "previous":
            if self._shape is None:
                self.place(self.epoch, self.step, values, self)
            else:
                self._put(values)
            return
        if not self.is_moved and any(metric in self._waiting for metric, _ in values):
            self.rows.add(None, None, self._waiting.items())
            self._waiting = {}
        self._waiting |= dict(values)

    def finish(self) -> None:
        """Add the values that still wait."""
        if self._waiting and self.is_moved:
            self._put(self._waiting.items())
        elif self._waiting:
            self.rows.add(None, None, self._waiting.items())
        self._waiting = {}

    def _put(self, values: Values) -> None:
        """Add values to the last row."""
        for metric, value in values:
            self.dropped += not self.rows.put(metric, value, len(self.rows) - 1)
