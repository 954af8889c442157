"""Curves with known faults, and what is found about them."""

import math
import re

import numpy as np

from entropy_cli.commands.monitor.findings import collect_findings
from entropy_cli.commands.monitor.logs.series import Log, Metric, Series
from entropy_cli.results.floors import Floor, Level, ScaleFloor

WORDS_OF_ADVICE = re.compile(
    r"\b(?:check|use|run|give|judge|lower|stop|resume|divide|do not|nothing to do|unless|compare|"
    r"no mending)\b",
    re.IGNORECASE,
)


def curve(value_n, name="loss", split="train", kind="loss", *, epochs=False, step_n=None, **more):
    """A series of the values, at steps 0, 1, 2 ... or at the epochs."""
    extra = {key: more.pop(key) for key in ("level", "finer", "untrained_value") if key in more}
    value_n = np.asarray(value_n, dtype=float)
    at_n = np.arange(len(value_n), dtype=float) if step_n is None else np.asarray(step_n, dtype=float)
    none_n = np.full(len(value_n), math.nan)
    epoch_n, step_n = (at_n, none_n) if epochs else (none_n, at_n)
    return Series(Metric(name, split, kind, **more), value_n, epoch_n, step_n, **extra)


def findings(*series, floor=None, log_format="csv", **arguments):
    log = Log(log_format, series, starts=1, segments=1, left_out=0, arguments=arguments)
    found = collect_findings(log, series, {}, floor)
    for one in found:
        assert WORDS_OF_ADVICE.search(one.message), one.message
    return found


def ids(found):
    return [one.id for one in found]


def falling(points=400, power=0.3):
    return 5 + 3 * np.arange(1, points + 1) ** -power


def noisy(value_n, sd=0.01, seed=0):
    return np.asarray(value_n) + np.random.default_rng(seed).normal(0, sd, len(value_n))


def floor_of(codes=4096, sides=(1, 2), labels="hard", rungs=(), **more):
    level = Level(4.5, ceiling=8.0, rungs=rungs)
    scales = tuple(ScaleFloor(f"{side}x{side}", side * side, side, level) for side in sides)
    return Floor("r.json", level, level, level, scales, vocab_size=codes, labels=labels, **more)
