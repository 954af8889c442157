"""Read printed lines: each shape of a line is parsed once, each line costs one split at its numbers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from entropy_cli.commands.monitor.logs.dialect import Dialect
from entropy_cli.commands.monitor.logs.grammar import (
    NUMBER,
    Pair,
    Shape,
    is_of_validation,
    join_thousands,
    parse_shape,
)
from entropy_cli.commands.monitor.logs.names import TRAINING, Namer, infer_split, split_words
from entropy_cli.commands.monitor.logs.rows import MAX_PLACE, Rows
from entropy_cli.commands.monitor.logs.series import Metric
from entropy_cli.commands.monitor.logs.text import count_decimals

MAX_LINE = 20_000  # characters: longer lines are none that a training prints
MAX_SHAPES = 5_000  # that are kept at once
MAX_UNPLACED = 1_000  # lines after which a log is taken to have no positions
ARGUMENT = re.compile(r"^  (\w+)\s*: (.*)$")


class _Plan(NamedTuple):
    """What to take from the lines of one shape; indices are among the parts of a line."""

    epoch: int | None = None
    step: int | None = None
    values: Sequence[tuple[Metric, int]] = ()
    # Of some values, by their place in `values`: a factor, and where the best so far may stand instead.
    changed: Sequence[tuple[int, float, int]] = ()
    is_val: bool = False
    last: int | None = None  # decimals of the number that ends the line


NOTHING = _Plan()
THOUSANDS = _Plan(last=0)  # numbers have commas: such lines are split without these
SCALES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}  # behind a number of tokens


class LineReader:
    """Reads the lines of a log into rows.

    Args:
        namer: says what names stand for.

    Attributes:
        rows: what was read.
        names: all names of values, in their order.
        ranks: the processes that print lines; of equal ones those of one process are read.
        arguments: of the program, if it prints them when it starts.
    """

    def __init__(self, namer: Namer) -> None:
        self.namer, self.dialect = namer, namer.dialect or Dialect("lines", ())
        self.rows, self.names = Rows(), dict[str, None]()
        self.ranks: dict[str | None, None] = {}
        self.arguments: dict[str, str] = {}
        self._writers: dict[tuple[str, ...], str | None] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._epoch: float | None = None
        self._step: float | None = None
        self._head: float | None = None  # the epoch of a line above
        self._is_open = False  # whether the last row is at the position reached
        self._pending: list[list[tuple[Metric, float]]] | None = []  # None if the log has no positions
        self._in_arguments = False
        self._is_below_val = False  # whether the line above is a title such as "Validation:"
        self._is_val = False  # whether the last values are of validation
        self._dropped = 0  # values without a position of their own after one of the same name

    def read(self, text: str, *, is_end: bool = True) -> None:
        """Read a piece of whole lines; `is_end` if none follows, so that the last may be cut off."""
        lines = text.split("\n")
        last = lines.pop()
        starts, plans = self.dialect.starts, self._plans
        for line in lines:
            if starts and starts in line:
                self.rows.restart()
                self._epoch = self._step = self._head = None
                self._in_arguments = True
            elif self._in_arguments:
                self._argument(line)
            parts = NUMBER.split(line)
            if len(parts) == 1:
                self._is_below_val = line.rstrip().endswith(":") and is_of_validation(line)
                continue
            plan = plans.get(tuple(parts[::2])) or self._plan(parts)
            if plan is THOUSANDS:
                parts = NUMBER.split(join_thousands(line))
                plan = plans.get(tuple(parts[::2]), THOUSANDS)
                plan = self._plan(parts) if plan is THOUSANDS else plan
            if plan is not NOTHING:
                self._take(plan, parts)
        if last:
            self._read_cut(NUMBER.split(join_thousands(last)))
        if is_end:
            self._finish()

    def notes(self) -> list[str]:
        """Return what was left out, in sentences."""
        ranks = [rank for rank in self.ranks if rank is not None]
        notes = []
        if len(ranks) > 1:
            notes.append(f"{len(ranks)} ranks print the same lines: those of rank {ranks[0]} are read")
        if self._dropped:
            notes.append(
                f"{self._dropped} values left out: their lines have neither step nor epoch, and repeat "
                "a name of lines above. Print the step on them"
            )
        return notes

    def _argument(self, line: str) -> None:
        if found := ARGUMENT.match(line):
            self.arguments[found[1]] = found[2]
        self._in_arguments = line.strip() != "}"

    def _read_cut(self, parts: list[str]) -> None:
        """Read a line without an end, if it ends like the lines of its shape."""
        plan = self._plans.get(tuple(parts[::2]))
        if plan is None:
            plan = self._plan(parts)
            self.rows.unreadable += bool(plan.values)
        elif plan.last is None or count_decimals(parts[-2]) >= plan.last:
            self._take(plan, parts)
        else:
            self.rows.unreadable += bool(plan.values)

    def _plan(self, parts: list[str]) -> _Plan:
        """Plan what to take from lines of this shape."""
        if sum(map(len, parts)) > MAX_LINE:
            return NOTHING
        key = tuple(parts[::2])
        if "," in key and join_thousands(line := "".join(parts)) != line:
            self._plans[key] = THOUSANDS
            return THOUSANDS
        shape = parse_shape(parts, self.dialect.steps, self.dialect.epochs)
        values = [
            (self._of_split(metric, pair, shape), 2 * i + 1)
            for pair in shape.pairs
            for metric, i in self._values(pair, shape)
        ]
        epoch, step = (None if i is None else 2 * i + 1 for i in (shape.epoch, shape.step))
        is_val = any(metric.split == "val" for metric, _ in values)
        last = None if parts[-1] else count_decimals(parts[-2])
        plan = _Plan(epoch, step, values, self._changed(values, shape, parts), is_val, last)
        is_used = self._is_first(shape, values) if values else epoch is not None or step is not None
        if not is_used:
            plan = NOTHING
        if len(self._plans) >= MAX_SHAPES:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _values(self, pair: Pair, shape: Shape) -> list[tuple[Metric, int]]:
        """Return the metrics of a pair and the indices of their numbers."""
        self.names[pair.name] = None
        metrics = self.namer.metrics(pair.name)
        when = self.dialect.brackets
        is_taken = when == "always" or (when != "never" and shape.step is None)
        values = [*pair.values, *pair.second]
        if len(metrics) == len(pair.values) == 1 and pair.second and is_taken:
            values = pair.second
        found = zip(metrics, values, strict=False)
        return [(metric, i) for metric, i in found if metric is not None]

    def _changed(
        self, values: Sequence[tuple[Metric, int]], shape: Shape, parts: list[str]
    ) -> Sequence[tuple[int, float, int]]:
        """Return which values are counted in thousands, or are the worse of two."""
        best = {}
        if self.dialect.brackets == "worse" and shape.step is None:
            best = {2 * one.second[0] + 1: 2 * one.values[0] + 1 for one in shape.pairs if one.second}
        scales = [
            SCALES.get(parts[i + 1][:1], 1.0) if metric.kind == "tokens" else 1.0 for metric, i in values
        ]
        found = ((k, scales[k], best.get(i, i)) for k, (_, i) in enumerate(values))
        return [one for one in found if one[1] != 1 or one[2] != values[one[0]][1]]

    @staticmethod
    def _of_split(metric: Metric, pair: Pair, shape: Shape) -> Metric:
        """Return a metric with its split by the line: val Loss: 8.25 Acc: 0.25."""
        is_behind = metric.kind == "accuracy" and infer_split(shape.pairs[0].name) == "val"
        if not (pair.is_val or is_behind) or TRAINING & {*split_words(pair.name)}:
            return metric
        name = f"{metric.name}, test set" if shape.is_test else metric.name
        return replace(metric, name=name, split="val", description="")

    def _is_first(self, shape: Shape, values: Sequence[tuple[Metric, int]]) -> bool:
        """Return whether a line is of the first process that prints such lines."""
        self.ranks[shape.rank] = None
        names = tuple(f"{metric.split} {metric.name}" for metric, _ in values)
        return self._writers.setdefault(names, shape.rank) == shape.rank

    def _take(self, plan: _Plan, parts: list[str]) -> None:
        """Take the values of a line."""
        epoch, step, values, changed, is_val, _ = plan
        found = [(metric, float(parts[i])) for metric, i in values]
        for k, scale, other in changed:
            metric, value = found[k]
            found[k] = metric, _worse(metric, value, float(parts[other])) * scale
        if self.dialect.placeholders:
            found = [
                (metric, value) for metric, value in found if value not in self.dialect.placeholders
            ]
        at_epoch = None if epoch is None else _place(parts[epoch])
        at_step = None if step is None else _place(parts[step])
        if at_epoch is None and at_step is None:
            is_behind = self._is_val and bool(found) and found[0][0].kind == "accuracy"
            if self._is_below_val or (is_behind and not TRAINING & {*split_words(found[0][0].name)}):
                found = [(replace(metric, split="val"), value) for metric, value in found]
            self._is_val = is_val or is_behind
            if self.dialect.unplaced != "none":
                self._unplaced(found)
            return
        self._is_val = is_val
        pending = self._pending if found else None
        if pending:
            self._pending = []
            if at_step == 1 and self.dialect.unplaced == "previous":
                # Steps are counted from 1: what stands before the first is of the untrained model.
                self.rows.add(at_epoch, 0.0, [pair for values in pending for pair in values])
                pending = None
        self._move(at_epoch, at_step)
        if found:
            self.rows.add(at_epoch, at_step, found, self._head if at_epoch is None else None)
            self._is_open = True
            self._put(pair for values in pending or () for pair in values)
        elif at_step is None:
            self._head = at_epoch

    def _put(self, values: Iterable[tuple[Metric, float]]) -> None:
        """Add values to the last row."""
        for metric, value in values:
            self._dropped += not self.rows.put(metric, value, len(self.rows) - 1)

    def _move(self, epoch: float | None, step: float | None) -> None:
        """Note the position that the log has reached."""
        if (epoch, step) != (self._epoch, self._step):
            self._is_open = False
        self._epoch, self._step = epoch, step
        if self._pending is None:
            self._pending = []

    def _unplaced(self, values: list[tuple[Metric, float]]) -> None:
        """Take values that stand on a line without a position."""
        if not values:
            return
        if self._pending is None:
            self.rows.add(None, None, values)
        elif self._is_moved() and self.dialect.unplaced == "previous":
            if self._is_open:
                self._put(values)
            else:
                self.rows.add(
                    self._epoch, self._step, values, self._head if self._epoch is None else None
                )
                self._is_open = True
        else:
            self._pending.append(values)
            if len(self._pending) > MAX_UNPLACED and not self._is_moved():
                self._flush()

    def _is_moved(self) -> bool:
        return self._epoch is not None or self._step is not None

    def _flush(self) -> None:
        """Take the values that wait as rows of a log without positions."""
        for values in self._pending or ():
            self.rows.add(None, None, values)
        self._pending = None

    def _finish(self) -> None:
        if self._pending and not self._is_moved():
            self._flush()
        elif self._pending and len(self.rows):
            self._put(pair for values in self._pending for pair in values)


def read_lines(pieces: Iterable[str], reader: LineReader) -> Rows:
    """Read a log of printed lines."""
    for piece in pieces:
        reader.read(piece, is_end=False)
    reader.read("")
    return reader.rows


def _worse(metric: Metric, value: float, other: float) -> float:
    """Return the worse of two values, NaN if one is NaN."""
    if value != other:
        value = max(value, other) if metric.is_loss else min(value, other)
    return value if other == other else other


def _place(text: str) -> float | None:
    number = float(text)
    return number if abs(number) < MAX_PLACE else None
