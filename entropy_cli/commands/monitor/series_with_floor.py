"""Pair each series of a log with its floor, and summarize it."""

import math
from dataclasses import dataclass, replace

from entropy_cli.commands.monitor.detectors.noise import noise
from entropy_cli.commands.monitor.detectors.plateau import power_law_slope
from entropy_cli.commands.monitor.logs.names import stem
from entropy_cli.commands.monitor.logs.series import Log, Metric, Series
from entropy_cli.commands.monitor.result import SeriesSummary
from entropy_cli.results.floors import Floor, Level

MIN_FOR_NOISE = 10
ROUNDING = 6e-4  # nats or percent: VAR prints epochs with three decimals, evaluations with four


@dataclass(frozen=True)
class SeriesWithFloor:
    """A series with its floor.

    Attributes:
        series: all points.
        finite: the finite points.
        level: its floor; None if none applies.
    """

    series: Series
    finite: Series
    level: Level | None

    @property
    def metric(self) -> Metric:
        """The metric of the series."""
        return self.series.metric

    @property
    def initial(self) -> float:
        """The value before any training if the log has it, else the first finite one."""
        untrained = self.finite.untrained_value
        return float(self.finite.value_n[0]) if untrained is None else untrained

    @property
    def is_main(self) -> bool:
        """True for a main training loss: neither of a single scale nor a regulariser."""
        is_loss = self.metric.kind in ("cross_entropy", "loss")
        return is_loss and self.metric.split == "train" and not isinstance(self.metric.scope, int)


def attach_floors(log: Log, floor: Floor | None, loss_name: str | None = None) -> list[SeriesWithFloor]:
    """Pair every series with the floor of its scope: all tokens, the final scale, or its own scale.

    A loss of unknown kind has a floor if it is the named one; without a name, if it is called just loss
    or is the only loss of its split.
    """
    unknown = [one.metric for one in log.series if one.metric.kind == "loss"]
    splits = [[metric for metric in unknown if metric.split == split] for split in ("train", "val")]
    default = [
        metric
        for metrics in splits
        for metric in metrics
        if len(metrics) == 1 or stem(metric.name) == "loss"
    ]
    named = [metric for metric in unknown if metric.name == loss_name]

    def level(metric: Metric) -> Level | None:
        has_floor = metric.kind == "cross_entropy" or metric in (named or default)
        return floor_level(metric, floor) if has_floor else None

    return [SeriesWithFloor(one, one.finite, level(one.metric)) for one in log.series]


def floor_level(metric: Metric, floor: Floor | None) -> Level | None:
    """Return the floor of a metric; None if it can't be a cross-entropy, or is a proxy loss.

    A proxy loss only has a floor that the user gave as a number.
    """
    if floor is None or not metric.has_floor:
        return None
    if metric.is_proxy and not floor.is_given:
        return None
    if isinstance(metric.scope, int):
        return floor.scales.get(metric.scope)
    return floor.last if metric.scope == "last" else floor.mean


def summarize(curve: SeriesWithFloor) -> SeriesSummary:
    """Summarize a series without smoothing."""
    metric, finite, level = curve.metric, curve.finite, curve.level
    empty = SeriesSummary(
        metric.name,
        metric.split,
        metric.kind,
        len(curve.series),
        None,
        None,
        {},
        None,
        words=metric.description,
    )
    if not len(finite):
        return empty
    value_n = finite.value_n
    best = int(value_n.argmax() if metric.kind == "accuracy" else value_n.argmin())
    known = replace(
        empty,
        first=float(value_n[0]),
        best=float(value_n[best]),
        best_at=finite.at(best),
        last=float(value_n[-1]),
        initial=curve.initial,
        noise=noise(value_n) if len(finite) >= MIN_FOR_NOISE else None,
    )
    if level is None:
        return known
    reducible_n, initial = value_n - level.floor, curve.initial - level.floor
    law = power_law_slope(finite.position_n, reducible_n)
    return replace(
        known,
        floor=level.floor,
        unigram=level.unigram_value,
        reducible_first=float(reducible_n[0]),
        reducible_best=float(reducible_n[best]),
        reducible_last=float(reducible_n[-1]),
        share_left=float(reducible_n[-1]) / initial if initial > 0 else None,
        slope=None if law is None else (law.slope, law.se),
    )


def find_repeated_training(log: Log) -> dict[str, float]:
    """Find validation series that repeat training; map their names to the largest difference.

    VAR prints its training means again as val.
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
        if max(differences) <= ROUNDING:
            found[val.metric.name] = max(differences)
    return found
