"""Findings about a run: what its series show, each with its evidence and what to do about it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from entropy_cli.commands.monitor.detectors.limits import divergence, grows_without_bound
from entropy_cli.commands.monitor.detectors.plateau import overfitting, plateau
from entropy_cli.commands.monitor.detectors.rebound import rebound, regulariser_falls, sudden_drop
from entropy_cli.commands.monitor.floor_findings import floor_findings, rules_of_thumb
from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.commands.monitor.result import RunFinding, place
from entropy_cli.commands.monitor.series_with_floor import SeriesWithFloor
from entropy_cli.results.findings import Severity
from entropy_cli.results.floors import Floor

TOLERANCE = 0.005  # nats: a gain below it in a quarter of the run is none
RELATIVE_TOLERANCE = 0.002  # of the fall since the start, for losses in other units
STANDSTILL = 1e-6  # of the first value
COLLAPSED = 0.01  # of the start


def findings_of(
    log: Log, watched: Sequence[SeriesWithFloor], repeated: Mapping[str, float], floor: Floor | None
) -> list[RunFinding]:
    """Everything there is to say of a log.

    Args:
        log: with all its series.
        watched: those that are shown.
        repeated: validation series that are those of training, and by how much they differ.
        floor: of the losses.
    """
    found = [*_restarts(log), *_repeated(log, repeated)]
    for one in watched:
        found += _broken(one)
        if one.is_main and len(one.finite):
            for rule in (_plateau, _rebound, _sudden_drops, _divergence):
                found += rule(one, watched)
    for one in watched:
        if one.metric.split == "val":
            found += _overfitting(one, watched)
        if one.metric.kind == "gradient_norm":
            found += _growing_gradients(one, watched)
    return [*found, *floor_findings(watched), *rules_of_thumb(log, watched, floor)]


def _finding(
    name: str,
    severity: Severity,
    series: Series,
    message: str,
    evidence: Mapping[str, Any],
    at: int | None = None,
) -> RunFinding:
    """A finding about a series, at one of its finite points."""
    found = {key: value for key, value in evidence.items() if key != "fires"}
    if at is not None:
        found |= {"at": series.at(at), "position": float(series.position_n[at])}
    return RunFinding(name, severity, message, series.metric.name, found)


def _restarts(log: Log) -> Iterator[RunFinding]:
    """That several processes wrote the log, and what of it is shown."""
    if log.starts < 2 and log.segments < 2:
        return
    empty = log.starts - log.segments
    parts = [f"{log.starts} starts in one file"]
    parts += [f"{empty} of them without a value"] if empty > 0 else []
    shown = "the run that gets farthest is shown, of points that were written again the last"
    parts += [f"{log.left_out} rows of others left out"] if log.left_out else []
    shown_rows = max(map(len, log.series), default=0)
    yield RunFinding(
        "restarts",
        "warning" if log.left_out > shown_rows else "info",
        f"{', '.join(parts)}; {shown}.",
        None,
        {"starts": log.starts, "segments": log.segments, "rows_left_out": log.left_out},
    )


def _repeated(log: Log, repeated: Mapping[str, float]) -> Iterator[RunFinding]:
    """That validation lines are training's."""
    if not repeated:
        return
    points = {name: len(val) for name in repeated if (val := log.find(name, "val")) is not None}
    yield RunFinding(
        "val_is_train",
        "warning",
        f"all {max(points.values())} validation values of {' and '.join(repeated)} are the training "
        "means of the same epochs: the program prints these where it says val. They are left out, and "
        "nothing can be said of overfitting. VAR writes true ones to TensorBoard (AR_ep_loss/vL_mean) "
        "and to log.txt (vL_mean).",
        next(iter(repeated)) if len(repeated) == 1 else None,
        {"points": points, "largest_difference": dict(repeated)},
    )


def _broken(one: SeriesWithFloor) -> Iterator[RunFinding]:
    """NaN and infinity in a loss."""
    series = one.series
    if not series.broken or not one.metric.is_loss:
        return
    still = not len(series.finite) or series.finite.at(-1) != series.at(-1)
    yield RunFinding(
        "nan",
        "error",
        f"NaN or infinity at {series.broken} place{'s' if series.broken > 1 else ''}, first at "
        f"{place(series.broken_at) or 'the first row'}{', and at the end' if still else ''}. Go on from "
        "a checkpoint before it with a lower rate; look at the gradient norm, its clipping and the "
        "loss scale of fp16 (bf16 needs none).",
        one.metric.name,
        {"count": series.broken, "at": dict(series.broken_at), "at_the_end": still},
    )


def _plateau(one: SeriesWithFloor, _: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """A loss that the rest of the run would not lower."""
    value_n = one.finite.value_n
    fall = float(value_n[0] - value_n.min())
    least = STANDSTILL * abs(float(value_n[0]))
    tolerance = (
        TOLERANCE if one.metric.kind == "cross_entropy" else max(RELATIVE_TOLERANCE * fall, least)
    )
    found = plateau(value_n, tolerance)
    if found is None or not found.fires or found.rising:
        return
    severity: Severity = "warning"
    if one.metric.is_proxy and abs(value_n[-1]) < COLLAPSED * abs(value_n[0]):
        advice = (
            "It is below 1 % of its start and hardly moves, as it is where the targets have become "
            "constant: look at their variance or effective rank"
        )
    elif one.metric.is_proxy:
        severity = "info"
        advice = "The target moves with the model, so this says little: judge by probes"
    else:
        advice = "Lower the learning rate if it is still high, else stop: more of the same gains nothing"
    yield _finding(
        "plateau",
        severity,
        one.finite,
        f"flat over its last quarter: as many points again would gain {found.gain:.2g} ± "
        f"{found.gain_error:.1g}, for sure less than {tolerance:.2g}. {advice}.",
        asdict(found),
        found.first,
    )


def _rebound(one: SeriesWithFloor, watched: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """A loss that has risen since its lowest."""
    series = one.finite
    found = rebound(series.value_n)
    if found is None or not found.fires:
        return
    at = (found.fine_first + found.fine_stop - 1) // 2
    peak = f", over a peak at {found.peak:.4g}" if found.falls_again else ""
    what = (
        f"lowest near {place(series.at(at))} at {found.fine_minimum:.4g}, since then up by "
        f"{found.rise:.3g} ({_times(found.rise, found.se)}) to {found.last:.4g}{peak}"
    )
    if one.metric.kind == "cross_entropy":
        advice = "Look at the rate, at spikes of the gradient norm and at the data of that time"
        yield _finding("rebound", "warning", series, f"{what}. {advice}.", asdict(found), at)
        return
    parts = [part.metric.name for part in watched if _falls(part, found.first / len(series))]
    still = f" while {', '.join(parts)} still falls (a rebound of the proxy loss)" if parts else ""
    is_known = one.metric.is_proxy
    advice = (
        f"{'Usual' if is_known else 'If it is a self-supervised loss: usual'} where a moving average "
        "makes "
        "the targets, no evidence of failure and none of health: probe checkpoints from before and "
        "after "
        "(kNN, linear), look at the variance of the targets, the momentum and the batch size. Do not "
        "stop "
        f"early on it{'' if is_known else '. Else look at the rate and the gradient norm of that time'}"
    )
    evidence = {**asdict(found), "regularisers_that_fall": parts}
    yield _finding("rebound", "info", series, f"{what}{still}. {advice}.", evidence, at)


def _falls(part: SeriesWithFloor, share: float) -> bool:
    """Whether a regulariser falls over what comes after a share of the run."""
    value_n = part.finite.value_n
    found = regulariser_falls(value_n, int(share * len(value_n)))
    return part.metric.kind == "regulariser" and found is not None and found.falls


def _sudden_drops(one: SeriesWithFloor, _: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """A loss that falls at once after it rose."""
    found = sudden_drop(one.finite.value_n)
    if found is None or not found.fires or one.metric.kind == "cross_entropy":
        return
    drop = max(found.drops, key=lambda drop: drop.fall)
    times = f"{len(found.drops)} times, most " if len(found.drops) > 1 else ""
    yield _finding(
        "sudden_drop",
        "warning",
        one.finite,
        f"falls at once after a rise, {times}near {place(one.finite.at(drop.first))} from "
        f"{drop.before:.4g} to {drop.after:.4g}. Of self-supervised losses this is usually a partial "
        "collapse: look at the variance or effective rank of the targets there, and compare probes of "
        "checkpoints before and after.",
        {**asdict(drop), "drops": len(found.drops)},
        drop.first,
    )


def _divergence(one: SeriesWithFloor, _: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """A loss that ends above its beginning."""
    found = divergence(one.finite.value_n)
    if found is None or not found.fires or one.metric.is_proxy:
        return
    is_known = one.metric.kind == "cross_entropy"
    yield _finding(
        "divergence",
        "error" if is_known else "warning",
        one.finite,
        f"the last tenth is at {found.last:.4g}, {found.rise:.3g} above the first value "
        f"({_times(found.rise, found.se)}). "
        f"{'Stop' if is_known else 'Unless its targets move: stop'}, go "
        "back to a checkpoint from before the rise, lower the rate or warm up for longer, and clip the "
        "gradient.",
        asdict(found),
        found.last_first,
    )


def _growing_gradients(one: SeriesWithFloor, watched: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """A gradient norm without bound, beside a cross-entropy."""
    found = grows_without_bound(one.finite.value_n)
    beside = any(other.metric.kind == "cross_entropy" for other in watched)
    if found is None or not found.fires or not beside:
        return
    yield _finding(
        "divergence",
        "warning",
        one.finite,
        f"the gradient norm is at {found.last:.3g}, {found.ratio:.0f} times that of the middle of the "
        "run, and grows: the loss usually follows. Lower the rate or clip the gradient.",
        asdict(found),
        found.first,
    )


def _overfitting(one: SeriesWithFloor, watched: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """A validation loss that rises while training's falls."""
    train = _training_of(one, watched)
    if train is None or one.metric.kind not in ("cross_entropy", "loss") or not len(one.finite):
        return
    val, of = one.finite, train.finite
    train_n = _beside(val, of)
    found = None if train_n is None else overfitting(val.value_n, train_n)
    if found is None or not found.fires or not len(of):
        return
    yield _finding(
        "overfitting",
        "warning",
        val,
        f"lowest at {place(val.at(found.best_index))} with {found.best:.4g}, in the last evaluations at "
        f"least {min(found.last):.4g}, while {of.metric.name} of training went on falling, from "
        f"{found.train_at_best:.4g} to {found.train_last:.4g}. Take the checkpoint of the lowest; more "
        "data, augmentation or regularisation, or a smaller model.",
        {**asdict(found), "train": of.metric.name},
        found.best_index,
    )


def _beside(val: Series, train: Series) -> np.ndarray | None:
    """The training loss at the places of evaluations; None where these can't be told."""
    if not len(train):
        return None
    if val.position_unit == train.position_unit:
        return np.interp(val.position_n, train.position_n, train.value_n)
    if not (np.isfinite(val.epoch_n).all() and np.isfinite(train.epoch_n).all()):
        return None
    last_n = np.searchsorted(train.epoch_n, val.epoch_n, "right") - 1  # of the same epoch
    return train.value_n[last_n.clip(0)]


def _times(size: float, error: float) -> str:
    """A size in its standard errors, for people."""
    return f"{size / error:.0f} standard errors" if error else "without noise"


def _training_of(one: SeriesWithFloor, watched: Sequence[SeriesWithFloor]) -> SeriesWithFloor | None:
    """The training loss that a validation loss belongs to: of the same, else the only one there is."""
    losses = [other for other in watched if other.is_main and other.metric.kind == one.metric.kind]
    same = [other for other in losses if subject(other.metric) == subject(one.metric)]
    return same[0] if same else losses[0] if len(losses) == 1 else None
