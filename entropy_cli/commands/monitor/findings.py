"""Collect findings about a run, each with its evidence and what to do about it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from entropy_cli.commands.monitor.detectors.limits import divergence, grows_without_bound
from entropy_cli.commands.monitor.detectors.plateau import TOLERANCE, overfitting, plateau
from entropy_cli.commands.monitor.detectors.rebound import rebound, regulariser_falls, sudden_drop
from entropy_cli.commands.monitor.floor_findings import floor_findings, rules_of_thumb
from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.commands.monitor.result import RunFinding, format_place
from entropy_cli.commands.monitor.series_with_floor import SeriesWithFloor
from entropy_cli.results.findings import Severity
from entropy_cli.results.floors import Floor

RELATIVE_TOLERANCE = 0.002  # share of the fall since the start, for losses in other units
MIN_RELATIVE_TOLERANCE = 1e-6  # share of the first value
COLLAPSED = 0.01  # share of the first value


def collect_findings(
    log: Log, curves: Sequence[SeriesWithFloor], repeated: Mapping[str, float], floor: Floor | None
) -> list[RunFinding]:
    """Collect all findings about a log.

    Args:
        log: with all its series.
        curves: the series that are shown, with their floors.
        repeated: validation series that repeat training, with the largest difference of each.
        floor: of the losses.
    """
    findings = [*_restarts(log), *_repeated_training(log, repeated)]
    for curve in curves:
        findings += _nonfinite(curve)
        if curve.is_main and len(curve.finite):
            for rule in (_plateau, _rebound, _sudden_drops, _divergence):
                findings += rule(curve, curves)
    for curve in curves:
        if curve.metric.split == "val":
            findings += _overfitting(curve, curves)
        if curve.metric.kind == "gradient_norm":
            findings += _growing_gradients(curve, curves)
    return [*findings, *floor_findings(curves), *rules_of_thumb(log, curves, floor)]


def _series_finding(
    name: str,
    severity: Severity,
    series: Series,
    message: str,
    evidence: Mapping[str, Any],
    at: int | None = None,
) -> RunFinding:
    """Build a finding about a series, located at one of its points if `at` is given."""
    known = {key: value for key, value in evidence.items() if key != "fires"}
    if at is not None:
        known |= {"at": series.at(at), "position": float(series.position_n[at])}
    return RunFinding(name, severity, message, series.metric.name, known)


def _restarts(log: Log) -> Iterator[RunFinding]:
    """Report that several processes wrote the log, and which run is shown."""
    if log.starts < 2 and log.segments < 2:
        return
    empty = log.starts - log.segments
    parts = [f"{log.starts} starts in one file"]
    parts += [f"{empty} of them without a value"] if empty > 0 else []
    parts += [f"{log.left_out} rows of other runs left out"] if log.left_out else []
    shown_rows = max(map(len, log.series), default=0)
    yield RunFinding(
        "restarts",
        "warning" if log.left_out > shown_rows else "info",
        f"{', '.join(parts)}; shown: the run that gets farthest, with the last value of "
        "repeated points.",
        None,
        {"starts": log.starts, "segments": log.segments, "rows_left_out": log.left_out},
    )


def _repeated_training(log: Log, repeated: Mapping[str, float]) -> Iterator[RunFinding]:
    """Report validation values that repeat those of training."""
    if not repeated:
        return
    points = {name: len(val) for name in repeated if (val := log.find(name, "val")) is not None}
    yield RunFinding(
        "val_is_train",
        "warning",
        f"all {max(points.values())} validation values of {' and '.join(repeated)} equal the training "
        "means of the same epochs, which the program prints as val. They are left out, so overfitting "
        "can't be judged. VAR writes true validation losses to TensorBoard (AR_ep_loss/vL_mean) and to "
        "log.txt (vL_mean).",
        next(iter(repeated)) if len(repeated) == 1 else None,
        {"points": points, "largest_difference": dict(repeated)},
    )


def _nonfinite(curve: SeriesWithFloor) -> Iterator[RunFinding]:
    """Report NaN and infinity in a loss."""
    series = curve.series
    if not series.nonfinite or not curve.metric.is_loss:
        return
    at_end = not len(series.finite) or series.finite.at(-1) != series.at(-1)
    yield RunFinding(
        "nan",
        "error",
        f"NaN or infinity at {series.nonfinite} point{'s' if series.nonfinite > 1 else ''}, first at "
        f"{format_place(series.nonfinite_at) or 'the first row'}{', and at the end' if at_end else ''}. "
        "Resume from an earlier checkpoint with a lower learning rate; check the gradient norm, its "
        "clipping and the fp16 loss scale (bf16 needs none).",
        curve.metric.name,
        {"count": series.nonfinite, "at": dict(series.nonfinite_at), "at_the_end": at_end},
    )


def _plateau(curve: SeriesWithFloor, _: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """Report a loss that more training would hardly lower."""
    value_n = curve.finite.value_n
    fall = float(value_n[0] - value_n.min())
    lowest = MIN_RELATIVE_TOLERANCE * abs(float(value_n[0]))
    tolerance = (
        TOLERANCE if curve.metric.kind == "cross_entropy" else max(RELATIVE_TOLERANCE * fall, lowest)
    )
    result = plateau(value_n, tolerance)
    if result is None or not result.fires or result.rising:
        return
    severity: Severity = "warning"
    if curve.metric.is_proxy and abs(value_n[-1]) < COLLAPSED * abs(value_n[0]):
        advice = (
            "It is nearly constant below 1 % of its first value, as with collapsed targets: check their "
            "variance or effective rank"
        )
    elif curve.metric.is_proxy:
        severity = "info"
        advice = "The target moves with the model, so a plateau says little: judge by probes"
    else:
        advice = "Lower the learning rate if it is still high, else stop the training"
    yield _series_finding(
        "plateau",
        severity,
        curve.finite,
        f"flat over the last quarter: another quarter would gain {result.gain:.2g} ± "
        f"{result.gain_error:.1g}, below {tolerance:.2g} even at the upper bound. {advice}.",
        asdict(result),
        result.first,
    )


def _rebound(curve: SeriesWithFloor, curves: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """Report a loss that has risen since its minimum."""
    series = curve.finite
    result = rebound(series.value_n)
    if result is None or not result.fires:
        return
    at = (result.fine_first + result.fine_stop - 1) // 2
    peak = f", after a peak at {result.peak:.4g}" if result.falls_again else ""
    evidence = (
        f"lowest near {format_place(series.at(at))} at {result.fine_minimum:.4g}, since then up by "
        f"{result.rise:.3g} ({_in_standard_errors(result.rise, result.se)}) to {result.last:.4g}{peak}"
    )
    if curve.metric.kind == "cross_entropy":
        advice = "Check the learning rate, the gradient norm for spikes, and the data at that point"
        yield _series_finding("rebound", "warning", series, f"{evidence}. {advice}.", asdict(result), at)
        return
    falling = [part.metric.name for part in curves if _falls(part, result.first / len(series))]
    while_falling = f" while {', '.join(falling)} still falls (proxy-loss rebound)" if falling else ""
    is_proxy = curve.metric.is_proxy
    advice = (
        f"{'Usual' if is_proxy else 'If the loss is self-supervised: usual'} with moving-average "
        "targets, evidence neither of failure nor of health: probe checkpoints before and after (kNN, "
        "linear), check the variance of the targets, the momentum and the batch size. Do not stop early "
        f"because of it{'' if is_proxy else '. Else check the learning rate and gradient norm there'}"
    )
    details = {**asdict(result), "regularisers_that_fall": falling}
    message = f"{evidence}{while_falling}. {advice}."
    yield _series_finding("rebound", "info", series, message, details, at)


def _falls(part: SeriesWithFloor, share: float) -> bool:
    """Return whether a regulariser falls after a given share of the run."""
    value_n = part.finite.value_n
    result = regulariser_falls(value_n, int(share * len(value_n)))
    return part.metric.kind == "regulariser" and result is not None and result.falls


def _sudden_drops(curve: SeriesWithFloor, _: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """Report a loss that drops suddenly after a rise."""
    result = sudden_drop(curve.finite.value_n)
    if result is None or not result.fires or curve.metric.kind == "cross_entropy":
        return
    drop = max(result.drops, key=lambda drop: drop.fall)
    times = f"{len(result.drops)} times, most " if len(result.drops) > 1 else ""
    yield _series_finding(
        "sudden_drop",
        "warning",
        curve.finite,
        f"drops suddenly after a rise, {times}near {format_place(curve.finite.at(drop.first))} from "
        f"{drop.before:.4g} to {drop.after:.4g}. In self-supervised losses this is usually a partial "
        "collapse: check the variance or effective rank of the targets there, and compare probes of "
        "checkpoints before and after.",
        {**asdict(drop), "drops": len(result.drops)},
        drop.first,
    )


def _divergence(curve: SeriesWithFloor, _: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """Report a loss that ends above its first value."""
    result = divergence(curve.finite.value_n)
    if result is None or not result.fires or curve.metric.is_proxy:
        return
    is_cross_entropy = curve.metric.kind == "cross_entropy"
    yield _series_finding(
        "divergence",
        "error" if is_cross_entropy else "warning",
        curve.finite,
        f"the last tenth is at {result.last:.4g}, {result.rise:.3g} above the first value "
        f"({_in_standard_errors(result.rise, result.se)}). "
        f"{'Stop' if is_cross_entropy else 'Unless its targets move: stop'}, resume from a checkpoint "
        "before the rise, lower the learning rate or warm up for longer, and clip the gradient.",
        asdict(result),
        result.last_first,
    )


def _growing_gradients(
    curve: SeriesWithFloor, curves: Sequence[SeriesWithFloor]
) -> Iterator[RunFinding]:
    """Report a growing gradient norm in the log of a cross-entropy."""
    result = grows_without_bound(curve.finite.value_n)
    has_cross_entropy = any(other.metric.kind == "cross_entropy" for other in curves)
    if result is None or not result.fires or not has_cross_entropy:
        return
    yield _series_finding(
        "divergence",
        "warning",
        curve.finite,
        f"the gradient norm is at {result.last:.3g}, {result.ratio:.0f} times its median in the middle "
        "of the run, and still grows: the loss usually follows. Lower the learning rate or clip the "
        "gradient.",
        asdict(result),
        result.first,
    )


def _overfitting(curve: SeriesWithFloor, curves: Sequence[SeriesWithFloor]) -> Iterator[RunFinding]:
    """Report a validation loss that rises while the training loss falls."""
    train = _training_curve(curve, curves)
    if train is None or curve.metric.kind not in ("cross_entropy", "loss") or not len(curve.finite):
        return
    val, train_series = curve.finite, train.finite
    train_n = _train_at_evaluations(val, train_series)
    result = None if train_n is None else overfitting(val.value_n, train_n)
    if result is None or not result.fires or not len(train_series):
        return
    yield _series_finding(
        "overfitting",
        "warning",
        val,
        f"lowest at {format_place(val.at(result.best_index))} with {result.best:.4g}, at least "
        f"{min(result.last):.4g} in the last evaluations, while the training loss {train.metric.name} "
        f"fell from {result.train_at_best:.4g} to {result.train_last:.4g}. Use the checkpoint of the "
        "lowest loss; add data, augmentation or regularisation, or use a smaller model.",
        {**asdict(result), "train": train.metric.name},
        result.best_index,
    )


def _train_at_evaluations(val: Series, train: Series) -> np.ndarray | None:
    """Return the training loss at each evaluation, (n,); None if their places can't be matched."""
    if not len(train):
        return None
    if val.position_unit == train.position_unit:
        return np.interp(val.position_n, train.position_n, train.value_n)
    if not (np.isfinite(val.epoch_n).all() and np.isfinite(train.epoch_n).all()):
        return None
    last_n = np.searchsorted(train.epoch_n, val.epoch_n, "right") - 1  # last point of the same epoch
    return train.value_n[last_n.clip(0)]


def _in_standard_errors(size: float, error: float) -> str:
    """Format a size as a number of its standard errors."""
    return f"{size / error:.0f} standard errors" if error else "without noise"


def _training_curve(curve: SeriesWithFloor, curves: Sequence[SeriesWithFloor]) -> SeriesWithFloor | None:
    """Return the training loss of a validation loss: the one of the same subject, or the only one."""
    losses = [other for other in curves if other.is_main and other.metric.kind == curve.metric.kind]
    same = [other for other in losses if subject(other.metric) == subject(curve.metric)]
    return same[0] if same else losses[0] if len(losses) == 1 else None
