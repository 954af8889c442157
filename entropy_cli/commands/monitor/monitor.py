"""Read a training log, compare it with the floor of its loss, and draw it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from entropy_cli import __version__
from entropy_cli.commands.monitor.detectors.noise import MIN_POINTS, noise_above_rounding
from entropy_cli.commands.monitor.detectors.overfitting import MIN_EVALUATIONS
from entropy_cli.commands.monitor.detectors.plateau import MIN_POINTS as MIN_FOR_PLATEAU
from entropy_cli.commands.monitor.detectors.plateau import power_law_slope
from entropy_cli.commands.monitor.figure import draw_run
from entropy_cli.commands.monitor.findings import collect_findings
from entropy_cli.commands.monitor.logs.names import stem
from entropy_cli.commands.monitor.logs.read import read_log
from entropy_cli.commands.monitor.logs.series import TOKEN_UNITS, Log, Metric, Series
from entropy_cli.commands.monitor.page import write_run_page
from entropy_cli.commands.monitor.reference import Reference, reference_findings
from entropy_cli.commands.monitor.result import (
    MonitorResult,
    SeriesSummary,
    format_place,
)
from entropy_cli.commands.monitor.start_findings import without_floors
from entropy_cli.core.files import write_text
from entropy_cli.results.findings import difference
from entropy_cli.results.floors import Floor, Level

ROUNDING = 6e-4  # nats or percent: VAR prints epochs with three decimals, evaluations with four


@dataclass(frozen=True)
class MonitorConfig:
    """Options of `monitor`."""

    path: Path
    format: str  # of the log, or auto
    loss: str | None  # its name; None for all columns named as a loss
    floor: Floor | None  # to compare the loss with
    nats: float = 1.0  # per unit of its cross-entropies
    growing: bool = False  # the log is still being written
    reference: Reference | None = None  # what was measured of the model


@dataclass(frozen=True)
class MonitorOutput:
    """The result, and the series to draw it from."""

    result: MonitorResult
    series: Sequence[Series]


def monitor_log(
    config: MonitorConfig, progress: Callable[[int], object] = lambda _: None
) -> MonitorOutput:
    """Read a log, compare it with its floors and collect the findings.

    `progress` is called with 1 for each row.

    Raises:
        EntropyCliError: the log can't be read, or holds no loss.
    """
    log = read_log(config.path, config.format, config.loss, progress, growing=config.growing)
    log = replace(log, series=[_in_nats(one, config.nats) for one in log.series])
    repeated = find_repeated_training(log)
    kept = [one for one in log.series if one.metric.split == "train" or not repeated]
    attached = attach_floors(kept, config.floor, config.loss)
    findings = collect_findings(log, attached, repeated, config.floor)
    shown = without_floors(attached, findings)
    floor = None if any(one.id == "other_tokenizer" for one in findings) else config.floor
    return MonitorOutput(
        MonitorResult(
            log=str(config.path),
            format=log.format,
            segments=log.segments,
            unreadable=log.unreadable,
            series=[summarize(one) for one in shown if one.metric.is_shown],
            findings=[
                *findings,
                *reference_findings(log, token_losses(shown, config.loss), config.reference),
            ],
            floor_source=None if floor is None else floor.source,
            floor_labels="unknown" if floor is None else floor.labels,
            tool_version=__version__,
            not_judged=not_judged(shown),
            judged_by=judged_by(shown),
            notes=log.notes,
        ),
        [one.judged.finite for one in shown if len(one.judged.finite)],
    )


def _in_nats(series: Series, nats: float) -> Series:
    """Convert a series to nats, if it can be a cross-entropy, given the nats per unit of the log.

    A log whose unit is known to be bits needs no `nats`.
    """
    metric, untrained = series.metric, series.untrained_value
    nats = math.log(2) if metric.unit == "bits per token" else nats
    if nats == 1 or not metric.is_loss or not metric.has_floor or metric.is_proxy:
        return series
    if metric.unit == "bits per token":
        described = ", ".join(filter(None, [metric.description, "in bits in the log"]))
        metric = replace(metric, unit="nats per token", description=described)
    untrained = None if untrained is None else untrained * nats
    finer = series.finer and _in_nats(series.finer, nats)
    value_n = series.value_n * nats
    return replace(series, metric=metric, value_n=value_n, untrained_value=untrained, finer=finer)


def attach_floors(series: Sequence[Series], floor: Floor | None, loss_name: str | None) -> list[Series]:
    """Give every series the floor of its scope: all tokens, the final scale, or its own scale."""
    chosen = {one.metric for one in token_losses(series, loss_name)}
    return [
        replace(one, level=_level(one.metric, floor)) if one.metric in chosen else one for one in series
    ]


def token_losses(series: Sequence[Series], loss_name: str | None) -> list[Series]:
    """Return the series that are taken for cross-entropies of tokens.

    A loss of unknown kind is if it is the named one; without a name, if it is called just loss or is the
    only loss of its split.
    """
    unknown = [one.metric for one in series if one.metric.kind == "loss"]
    splits = [metric.split for metric in unknown]
    chosen = [metric for metric in unknown if metric.name == loss_name] or [
        metric for metric in unknown if splits.count(metric.split) == 1 or stem(metric.name) == "loss"
    ]
    return [one for one in series if one.metric.kind == "cross_entropy" or one.metric in chosen]


def _level(metric: Metric, floor: Floor | None) -> Level | None:
    """Return the floor of a metric; None if it can't be a cross-entropy, or is a proxy loss.

    A proxy loss only has a floor that the user gave as a number.
    """
    if floor is None or not metric.has_floor or (metric.is_proxy and not floor.is_given):
        return None
    if metric.unit not in TOKEN_UNITS:
        return None
    if isinstance(metric.scope, int):
        return floor.scales.get(metric.scope)
    return floor.last if metric.scope == "last" else floor.mean


def summarize(series: Series) -> SeriesSummary:
    """Summarize a series without smoothing."""
    metric, finite, level = series.metric, series.finite, series.level
    name = (metric.name, metric.split, metric.kind, len(series))
    if not len(finite):
        return SeriesSummary(*name, None, None, {}, None, words=metric.description, unit=metric.unit)
    value_n = finite.value_n
    best = int(value_n.argmax() if metric.kind == "accuracy" else value_n.argmin())
    first, at_best, last = (float(value_n[i]) for i in (0, best, -1))
    summary = SeriesSummary(
        *name,
        first,
        at_best,
        finite.at(best),
        last,
        last_at=finite.at(-1),
        initial=series.initial,
        noise=noise_above_rounding(value_n) if len(finite) >= MIN_POINTS else None,
        words=metric.description,
        unit=metric.unit,
    )
    if level is None:
        return summary
    floor, initial = level.floor, series.initial - level.floor
    position_n = finite.position_n
    law = power_law_slope(position_n + max(0.0, 1.0 - position_n[0]), value_n - floor)
    return replace(
        summary,
        floor=floor,
        unigram=level.unigram_value,
        ceilings=level.ceilings,
        reducible_first=first - floor,
        reducible_best=at_best - floor,
        reducible_last=last - floor,
        share_left=(last - floor) / initial if initial > 0 else None,
        slope=None if law is None else (law.slope, law.se),
    )


def judged_by(shown: Sequence[Series]) -> list[str]:
    """Return a sentence on each loss that has too few points and is judged by its single steps."""
    return [
        f"{one.metric.name} has {len(one)} points: its {len(one.judged)} values at single steps are "
        f"judged{'' if name == one.metric.name else f'; --loss {name} shows them'}."
        for one in shown
        if one.metric.is_main and one.finer is not None and len(one.judged) > len(one)
        for name in [one.finer.metric.name]
    ]


def not_judged(shown: Sequence[Series]) -> list[str]:
    """Return what the series are too short for, in clauses: trends, plateaus, overfitting."""
    clauses = []
    main = [one.judged.finite for one in shown if one.metric.is_main and not one.metric.is_adversarial]
    val = [one.finite for one in shown if one.metric.split == "val" and one.metric.is_loss]
    points = max(map(len, main), default=MIN_FOR_PLATEAU)
    evaluations = max(map(len, val), default=MIN_EVALUATIONS)
    longest = next((one.metric.name for one in main if len(one) == points), "")
    if points < MIN_POINTS:
        clauses.append(f"a trend takes {MIN_POINTS} points, {longest} has {points}")
    elif points < MIN_FOR_PLATEAU:
        clauses.append(f"a plateau takes {MIN_FOR_PLATEAU} points, {longest} has {points}")
    if evaluations < MIN_EVALUATIONS:
        clause = f"overfitting takes {MIN_EVALUATIONS} evaluations, the log has {evaluations}"
        risen = [_rise(one) for one in val if len(one) > 2 and one.value_n.argmin() < len(one) - 2]
        clauses.append("; ".join([clause, *risen[:1]]))
    return clauses


def _rise(val: Series) -> str:
    """Say how far the last of a few evaluations is above the best."""
    best, last = f"{val.value_n.min():.4g}", f"{val.value_n[-1]:.4g}"
    at = format_place(val.at(int(val.value_n.argmin())))
    return f"the last of {val.metric.name}, {last}, is {difference(last, best)} above the best, at {at}"


def find_repeated_training(log: Log) -> dict[str, float]:
    """Find validation series that repeat training; map their names to the largest difference.

    VAR prints its training means again as val.
    """
    found = {}
    for val in log.series:
        train = log.find(val.metric.name) if val.metric.split == "val" else None
        if train is None or val.metric.kind != "cross_entropy" or np.isnan(train.epoch_n[:1]).any():
            continue
        by_epoch = dict(zip(train.epoch_n.tolist(), train.value_n.tolist(), strict=True))
        differences = [
            abs(value - by_epoch.get(epoch, math.inf))
            for epoch, value in zip(val.epoch_n.tolist(), val.value_n.tolist(), strict=True)
        ]
        if max(differences) <= ROUNDING:
            found[val.metric.name] = max(differences)
    return found


def write(output: MonitorOutput, path: Path) -> None:
    """Write a run as an image, a page or JSON, by the suffix of the path.

    Raises:
        ResultError: it can't be written, or the suffix is unknown.
        EntropyCliError: matplotlib is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".json":
        write_text(path, output.result.to_json() + "\n")
    elif kind == ".html":
        write_run_page(path, output.result, output.series)
    else:
        draw_run(path, output.result, output.series)
