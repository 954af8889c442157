"""The series of a log, each with the floor that belongs to it."""

import math
from dataclasses import dataclass, replace

from entropy_cli.commands.monitor.detectors.noise import noise
from entropy_cli.commands.monitor.detectors.plateau import power_law_slope
from entropy_cli.commands.monitor.logs.names import stem
from entropy_cli.commands.monitor.logs.series import Log, Metric, Series
from entropy_cli.commands.monitor.result import SeriesSummary
from entropy_cli.results.floors import Floor, Level

LEAST_FOR_NOISE = 10
SAME = 6e-4  # nats or percent: VAR prints epochs with three decimals, evaluations with four


@dataclass(frozen=True)
class SeriesWithFloor:
    """A series of a log.

    Attributes:
        series: all its points.
        finite: those that are numbers.
        level: its floor, if there is one for it.
    """

    series: Series
    finite: Series
    level: Level | None

    @property
    def metric(self) -> Metric:
        """What it is of."""
        return self.series.metric

    @property
    def initial(self) -> float:
        """The value before any training where the log has it, else the first of at least one."""
        before = self.finite.before
        return float(self.finite.value_n[0]) if before is None else before

    @property
    def is_main(self) -> bool:
        """Whether it is a training loss that findings are looked for in: not of one scale, no part."""
        kind = self.metric.kind in ("cross_entropy", "loss")
        return kind and self.metric.split == "train" and not isinstance(self.metric.of, int)


def watched(log: Log, floor: Floor | None, chosen: str | None = None) -> list[SeriesWithFloor]:
    """Every series with its floor: the mean over tokens, the last scale, or the scale it is of.

    Where nobody knows what kind of loss it is, one has a floor that was chosen, is called just so, or is
    the only one of its split.
    """
    unknown = [one.metric for one in log.series if one.metric.kind == "loss"]
    of_splits = [[one for one in unknown if one.split == split] for split in ("train", "val")]
    known = [one for of in of_splits for one in of if len(of) == 1 or stem(one.name) == "loss"]
    of_chosen = [metric for metric in unknown if metric.name == chosen]

    def level(metric: Metric) -> Level | None:
        is_meant = metric.kind == "cross_entropy" or metric in (of_chosen or known)
        return level_of(metric, floor) if is_meant else None

    return [SeriesWithFloor(one, one.finite, level(one.metric)) for one in log.series]


def level_of(metric: Metric, floor: Floor | None) -> Level | None:
    """The floor of a metric; none of what can't be a cross-entropy, or is a proxy and has none given."""
    if floor is None or not metric.has_floor:
        return None
    if metric.is_proxy and not floor.is_given:
        return None
    if isinstance(metric.of, int):
        return floor.scales.get(metric.of)
    return floor.last if metric.of == "last" else floor.mean


def summary(one: SeriesWithFloor) -> SeriesSummary:
    """The numbers of a series, unsmoothed."""
    metric, finite, level = one.metric, one.finite, one.level
    nothing = SeriesSummary(
        metric.name, metric.split, metric.kind, len(one.series), None, None, {}, None, words=metric.words
    )
    if not len(finite):
        return nothing
    value_n = finite.value_n
    best = int(value_n.argmax() if metric.kind == "accuracy" else value_n.argmin())
    found = replace(
        nothing,
        first=float(value_n[0]),
        best=float(value_n[best]),
        best_at=finite.at(best),
        last=float(value_n[-1]),
        initial=one.initial,
        noise=noise(value_n) if len(finite) >= LEAST_FOR_NOISE else None,
    )
    if level is None:
        return found
    reducible_n, possible = value_n - level.floor, one.initial - level.floor
    law = power_law_slope(finite.position_n, reducible_n)
    return replace(
        found,
        floor=level.floor,
        unigram=level.unigram_value,
        reducible_first=float(reducible_n[0]),
        reducible_best=float(reducible_n[best]),
        reducible_last=float(reducible_n[-1]),
        share_left=float(reducible_n[-1]) / possible if possible > 0 else None,
        slope=None if law is None else (law.slope, law.se),
    )


def repeated_training(log: Log) -> dict[str, float]:
    """Names of validation series whose every value is that of training, and the largest difference.

    VAR prints its training means once more where it says val.
    """
    found = {}
    for val in log.series:
        train = log.find(val.metric.name) if val.metric.split == "val" else None
        if train is None or val.metric.kind != "cross_entropy" or not len(val):
            continue
        by_epoch = dict(zip(train.epoch_n.tolist(), train.value_n.tolist(), strict=True))
        if math.isnan(next(iter(by_epoch))):
            continue
        differences = [
            abs(value - by_epoch.get(epoch, math.inf))
            for epoch, value in zip(val.epoch_n.tolist(), val.value_n.tolist(), strict=True)
        ]
        if max(differences) <= SAME:
            found[val.metric.name] = max(differences)
    return found
