"""Read printed lines: each shape of a line is parsed once, each line costs one split at its numbers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from entropy_cli.commands.monitor.logs.dialect import Dialect
from entropy_cli.commands.monitor.logs.grammar import (
    NUMBER,
    UNIT,
    Pair,
    Shape,
    is_of_validation,
    join_thousands,
    parse_shape,
)
from entropy_cli.commands.monitor.logs.names import Namer, infer_split, is_split, names_training
from entropy_cli.commands.monitor.logs.places import Placer
from entropy_cli.commands.monitor.logs.rows import MAX_PLACE, Rows
from entropy_cli.commands.monitor.logs.run_names import RunNames
from entropy_cli.commands.monitor.logs.series import Metric
from entropy_cli.commands.monitor.logs.text import count_decimals

MAX_LINE = 20_000  # characters: longer lines are none that a training prints
MAX_SHAPES = 5_000  # that are kept at once
ARGUMENT = re.compile(r"^  (\w+)\s*: (.*)$")
THOUSANDS = re.compile(r"[kKMBGT](?![\w])")  # after a number


class _Plan(NamedTuple):
    """Say what to take from the lines of one shape; indices are among the parts of a line."""

    epoch: int | None = None
    step: int | None = None
    values: Sequence[tuple[Metric, int]] = ()
    others: Sequence[tuple[int, int]] = ()  # places in `values`, and where the best so far may stand
    is_val: bool = False
    last: int | None = None  # decimals of the number that ends the line


NOTHING = _Plan()
COMMAS = _Plan(last=0)  # numbers have commas: such lines are split without these


class LineReader:
    """Reads the lines of a log into rows.

    Args:
        namer: says what names stand for.

    Attributes:
        names: all names of values, in their order.
        ranks: the processes that print lines; of equal ones those of one process are read.
        runs: none, as lines don't tell.
        arguments: of the program, if it prints them when it starts.
    """

    runs = RunNames((), ())

    def __init__(self, namer: Namer) -> None:
        self.namer, self.dialect = namer, namer.dialect or Dialect("lines", ())
        self.names = dict[str, None]()
        self.ranks: dict[str | None, None] = {}
        self.arguments: dict[str, str] = {}
        self._placer = Placer(self.dialect.unplaced)
        self._validated: set[str] = set()  # what lines of validation hold
        self._writers: dict[tuple[str, ...], str | None] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._in_arguments = False
        self._is_below_val = False  # whether the line above is a title such as "Validation:"
        self._is_val = False  # whether the last values are of validation

    def read(self, pieces: Iterable[str]) -> Rows:
        """Read the pieces of a log, which end with whole lines but for a last line that was cut off."""
        for piece in pieces:
            *lines, last = piece.split("\n")
            self._read_lines(lines)
            if last:
                self._read_cut(NUMBER.split(join_thousands(last)))
        self._placer.finish()
        return self._placer.rows

    def _read_lines(self, lines: Sequence[str]) -> None:
        starts, plans = self.dialect.starts, self._plans
        for line in lines:
            if starts and starts in line:
                self._placer.restart()
                self._in_arguments = True
            elif self._in_arguments:
                self._argument(line)
            parts = NUMBER.split(line)
            if len(parts) == 1:
                self._is_below_val = line.rstrip().endswith(":") and is_of_validation(line)
                continue
            plan = plans.get(tuple(parts[::2])) or self._plan(parts)
            if plan is COMMAS:
                parts = NUMBER.split(join_thousands(line))
                plan = plans.get(tuple(parts[::2]), COMMAS)
                plan = self._plan(parts) if plan is COMMAS else plan
            if plan is not NOTHING:
                self._take(plan, parts)

    @property
    def notes(self) -> Sequence[str]:
        """Sentences on what was left out."""
        ranks = [rank for rank in self.ranks if rank is not None]
        notes = []
        if len(ranks) > 1:
            notes.append(f"{len(ranks)} ranks print the same lines: those of rank {ranks[0]} are read")
        if self._placer.dropped:
            notes.append(
                f"{self._placer.dropped} values left out: their lines have neither step nor epoch, and "
                "repeat a name of lines above. Print the step on them"
            )
        return notes

    def _argument(self, line: str) -> None:
        if found := ARGUMENT.match(line):
            self.arguments[found[1]] = found[2]
        self._in_arguments = line.strip() != "}"

    def _read_cut(self, parts: list[str]) -> None:
        """Read a line without an end, if it ends like the lines of its shape."""
        known = self._plans.get(tuple(parts[::2]))
        plan = known or self._plan(parts)
        if known and (plan.last is None or count_decimals(parts[-2]) >= plan.last):
            self._take(plan, parts)
        else:
            self._placer.rows.unreadable += bool(plan.values)

    def _plan(self, parts: list[str]) -> _Plan:
        """Plan what to take from lines of this shape."""
        if sum(map(len, parts)) > MAX_LINE:
            return NOTHING
        key = tuple(parts[::2])
        if "," in key and join_thousands(line := "".join(parts)) != line:
            self._plans[key] = COMMAS
            return COMMAS
        shape = parse_shape(parts, self.dialect.steps, self.dialect.epochs)
        found = [value for pair in shape.pairs for value in self._values(pair, shape, parts)]
        values = [(metric, i) for metric, i, _ in found]
        others = [(k, other) for k, (_, _, other) in enumerate(found) if other]
        epoch, step = (None if i is None else 2 * i + 1 for i in (shape.epoch, shape.step))
        is_val = any(metric.split == "val" for metric, _ in values)
        last = None if parts[-1] else count_decimals(parts[-2])
        plan = _Plan(epoch, step, values, others, is_val, last)
        is_used = self._is_first(shape, values) if values else epoch is not None or step is not None
        if len(self._plans) >= MAX_SHAPES:
            self._plans.clear()
        self._plans[key] = plan if is_used else NOTHING
        return self._plans[key]

    def _values(self, pair: Pair, shape: Shape, parts: list[str]) -> list[tuple[Metric, int, int]]:
        """Return the metrics of a pair, where their numbers are, and another that may be the current."""
        name, indices, when = pair.name, [*pair.values, *pair.second], self.dialect.brackets
        number, after = parts[2 * indices[0] + 1 :][:2]
        is_bare = is_split(name) and name not in self.namer.listed
        if is_bare and "." in number and not UNIT.match(after):
            name = f"{name} loss"  # train 2.5, val 2.6; not train 9.5s
        self.names[name] = None
        metrics, other = self.namer.metrics(name), 0
        is_taken = when == "always" or (when != "never" and shape.step is None)
        if len(metrics) == len(pair.values) == 1 and pair.second and is_taken:
            other = 2 * indices[0] + 1 if when == "worse" else 0
            indices = pair.second
        return [
            (self._of_split(metric, pair, shape), 2 * i + 1, other)
            for metric, i in zip(metrics, indices, strict=False)
            if metric and not (metric.kind == "tokens" and THOUSANDS.match(parts[2 * i + 2]))
        ]

    def _of_split(self, metric: Metric, pair: Pair, shape: Shape) -> Metric:
        """Return a metric with its split by the line: val Loss: 8.25 Acc: 0.25."""
        is_behind = metric.kind == "accuracy" and infer_split(shape.pairs[0].name) == "val"
        if not (pair.is_val or is_behind) or names_training(pair.name):
            return metric
        is_other = shape.is_test or (shape.is_test is None and metric.name in self._validated)
        if shape.is_test is False:
            self._validated.add(metric.name)
        name = f"{metric.name}, test set" if is_other else metric.name
        return replace(metric, name=name, split="val", description="")

    def _is_first(self, shape: Shape, values: Sequence[tuple[Metric, int]]) -> bool:
        """Return whether a line is of the first process that prints such lines."""
        self.ranks[shape.rank] = None
        names = tuple(f"{metric.split} {metric.name}" for metric, _ in values)
        return self._writers.setdefault(names, shape.rank) == shape.rank

    def _take(self, plan: _Plan, parts: list[str]) -> None:
        """Take the values of a line."""
        found = [(metric, float(parts[i])) for metric, i in plan.values]
        for k, other in plan.others:
            metric, value = found[k]
            found[k] = metric, _worse(metric, value, float(parts[other]))
        if self.dialect.placeholders:
            found = [one for one in found if one[1] not in self.dialect.placeholders]
        epoch = None if plan.epoch is None else _place(parts[plan.epoch])
        step = None if plan.step is None else _place(parts[plan.step])
        if epoch is not None or step is not None:
            self._placer.place(epoch, step, found, plan)
        elif self._is_below_val or self._is_behind(found):
            found = [(replace(metric, split="val"), value) for metric, value in found]
            self._placer.follow(found)
            return
        else:
            self._placer.follow(found)
        self._is_val = plan.is_val

    def _is_behind(self, found: Sequence[tuple[Metric, float]]) -> bool:
        """Return whether a line without a position belongs to the validation above: * Acc@1 60.5."""
        if not self._is_val or not self._placer.is_moved or not found:
            return False
        metric = found[0][0]
        return metric.kind == "accuracy" and not names_training(metric.name)


def _worse(metric: Metric, value: float, other: float) -> float:
    """Return the worse of two values, NaN if one is NaN."""
    if value != other:
        value = max(value, other) if metric.is_loss else min(value, other)
    return value if other == other else other


def _place(text: str) -> float | None:
    number = float(text)
    return number if abs(number) < MAX_PLACE else None
