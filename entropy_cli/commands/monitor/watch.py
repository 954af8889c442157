"""The checks of `monitor` while a run goes on: what a log is checked for, as the losses come in.

A series is looked at again whenever it is a twentieth longer, so that all looks together cost a few
times what the last one does.
"""

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from entropy_cli.commands.monitor.findings import collect_findings
from entropy_cli.commands.monitor.logs.series import LARGEST, Log, Metric, Series
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.results.floor_checks import UNITS_OPTION
from entropy_cli.results.floors import Floor, Level

LOOKS_APART = 20  # a look for each 20th by which a series grows
# Looks in a row at which a finding has to hold: many looks find by chance what one would not. Of 100
# runs of 4000 points that fall by 1.5 along a line a plateau was told in none to .03 (noise .05 and .2,
# AR(1), phi 0 and .9) and .01 to .06 (noise .02), of power laws in none; of flat ones in .98 at noise
# .02, white, half of them by 1200 points.
LOOKS_IN_A_ROW = 2
FEWEST_OF_PLATEAU = 64  # values; of fewer, what falls slowly looks flat
AT_ONCE = ("nan", "below_floor")
ABOVE = ("above_unigram", "above_rung")
STANDS = ("plateau", "never_moved")
CAN_STOP = (  # the ids of what may be told
    *("plateau", "overfitting", "divergence", "rebound", "nan", "never_moved", "summed_loss"),
    *("below_floor", "above_unigram", "above_rung", "other_tokenizer", "start_is_not_ln_v"),
)
NOT_TOLD = ("ladder", "rule_of_thumb", "restarts")  # they describe a log; nothing happened


class Curve:
    """The values of one loss so far; a step that was gone back to replaces what came after it."""

    def __init__(self, metric: Metric, level: Level | None) -> None:
        self.metric, self.level = metric, level
        self.steps, self.values = array("d"), array("d")
        self.next_look = 0

    def append(self, step: float | None, value: float) -> None:
        """Append a value; without a step it is the next one's."""
        if step is None:
            step = self.steps[-1] + 1 if self.steps else 0.0
        if self.steps and step <= self.steps[-1]:
            kept = bisect_left(self.steps, step)
            self.steps, self.values = self.steps[:kept], self.values[:kept]
            self.next_look = 0
        self.steps.append(step)
        self.values.append(value)

    def is_due(self) -> bool:
        """Return whether it is time to look, and when to look next."""
        if len(self.values) < self.next_look:
            return False
        self.next_look = len(self.values) + max(1, len(self.values) // LOOKS_APART)
        return True

    def series(self) -> Series:
        """Return what the log of these values would hold."""
        value_n, step_n = np.array(self.values), np.array(self.steps)
        series = Series(self.metric, value_n, np.full_like(value_n, math.nan), step_n, level=self.level)
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero(~(np.abs(value_n) < LARGEST))
        if not len(bad):
            return series
        return replace(series, nonfinite=len(bad), nonfinite_at=series.at(int(bad[0])))


class Watch:
    """The losses of one run, and which findings about them were told."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.curves: dict[str, Curve] = {}  # by the metric's name
        self._in_a_row: dict[str, Counter[str]] = {}
        self._told: set[tuple[str, str]] = set()

    def add(
        self, metric: Metric, level: Level | None, value: float, step: float | None = None
    ) -> list[RunFinding]:
        """Add a value of a loss and return the findings about it that were not told before.

        Args:
            metric: the loss; of a name that no other loss has.
            level: its floor and ceilings.
            value: in nats per token; NaN and infinity are findings.
            step: of training, from the start of the run; None counts the values.
        """
        curve = self.curves.setdefault(metric.name, Curve(metric, level))
        curve.append(step, value)
        is_new_nan = not abs(value) < LARGEST and (metric.name, "nan") not in self._told
        if not curve.is_due() and not is_new_nan:
            return []
        same = [one for one in self.curves.values() if one.metric.scope == metric.scope]
        shown = [one.series() for one in same]  # evaluations are judged beside their training loss
        log = Log("loop", shown, starts=1, segments=1, left_out=0)
        found = [
            one
            for one in collect_findings(log, shown, {}, self.floor)
            if one.series in (metric.name, None)
        ]
        if len(curve.values) < FEWEST_OF_PLATEAU:
            found = [one for one in found if one.id not in STANDS]
        return self._new(metric.name, found)

    def _new(self, name: str, found: Sequence[RunFinding]) -> list[RunFinding]:
        """Return the findings about a series that are to be told now."""
        before = self._in_a_row.get(name, Counter())
        now = self._in_a_row[name] = Counter({one.id: before[one.id] + 1 for one in found})
        new = [
            replace(one, message=one.message.replace(UNITS_OPTION, ""))
            for one in events(found)
            if (name, one.id) not in self._told and (one.id in AT_ONCE or now[one.id] >= LOOKS_IN_A_ROW)
        ]
        self._told |= {(name, one.id) for one in new}
        return new


def events(findings: Sequence[RunFinding]) -> list[RunFinding]:
    """Return the findings that something happened in a run that still goes on.

    Every run begins above what simple predictions reach: that is one only of a loss that has stopped
    falling there. Then it is no plateau, at which a training may end, but a beginning that does not
    succeed.
    """
    ids = {(one.series, one.id) for one in findings}
    standing = {series for series, id_ in ids if id_ in STANDS}
    above = {series for series, id_ in ids if id_ == "above_unigram"}
    return [
        one
        for one in findings
        if one.id not in NOT_TOLD
        and not (one.id in ABOVE and one.series not in standing)
        and not (one.id in STANDS and one.series in above)
    ]


class News:
    """Which findings about a log that grows were told."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str | None]] = set()

    def among(self, findings: Sequence[RunFinding]) -> list[RunFinding]:
        """Return the findings that something happened and that were not told before."""
        new = [one for one in events(findings) if (one.id, one.series) not in self._told]
        self._told |= {(one.id, one.series) for one in new}
        return new
