"""Collect findings about a run, each with its evidence and what to do about it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from entropy_cli.commands.monitor.detectors.limits import divergence, grows_without_bound
from entropy_cli.commands.monitor.detectors.overfitting import overfitting
from entropy_cli.commands.monitor.detectors.plateau import TOLERANCE, plateau
from entropy_cli.commands.monitor.detectors.rebound import rebound, regulariser_falls, sudden_drops
from entropy_cli.commands.monitor.floor_findings import floor_findings, rules_of_thumb
from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.series import Log, Metric, Series
from entropy_cli.commands.monitor.result import RunFinding, finding_about, format_place
from entropy_cli.results.findings import Severity
from entropy_cli.results.floors import Floor

RELATIVE_TOLERANCE = 0.002  # share of the fall since the start, for losses in other units
MIN_RELATIVE_TOLERANCE = 1e-6  # share of the first value
COLLAPSED = 0.01  # share of the first value


def collect_findings(
    log: Log, shown: Sequence[Series], repeated: Mapping[str, float], floor: Floor | None
) -> list[RunFinding]:
    """Collect all findings about a log, of which only some series are shown.

    `repeated` has the validation series that repeat training, with the largest difference of each.
    """
    findings = [*_restarts(log), *_repeated_training(log, repeated)]
    finite = [one.finite for one in shown]
    for one, series in zip(shown, finite, strict=True):
        findings += _nonfinite(one)
        if one.metric.is_main and len(series):
            for rule in (_plateau, _rebound, _sudden_drops, _divergence):
                findings += rule(series, finite)
    for series in finite:
        if series.metric.split == "val":
            findings += _overfitting(series, finite)
        if series.metric.kind == "gradient_norm":
            findings += _growing_gradients(series, finite)
    return [*findings, *floor_findings(finite, log, floor), *rules_of_thumb(log, finite, floor)]


def _restarts(log: Log) -> Iterator[RunFinding]:
    """Report that several processes wrote the log, and which run is shown."""
    if log.starts < 2 and log.segments < 2:
        return
    empty = log.starts - log.segments
    parts = [f"{log.starts} starts in one file"]
    parts += [f"{empty} of them without a value"] if empty > 0 else []
    parts += [f"{log.left_out} rows of other runs left out"] if log.left_out else []
    shown = "the run that gets farthest, with the last value of repeated points"
    severity: Severity = "warning" if log.left_out > max(map(len, log.series), default=0) else "info"
    evidence = {"starts": log.starts, "segments": log.segments, "rows_left_out": log.left_out}
    yield RunFinding("restarts", severity, f"{', '.join(parts)}; shown: {shown}.", None, evidence)


def _repeated_training(log: Log, repeated: Mapping[str, float]) -> Iterator[RunFinding]:
    """Report validation values that repeat those of training."""
    if not repeated:
        return
    points = {name: len(val) for name in repeated if (val := log.find(name, "val")) is not None}
    message = (
        f"all {max(points.values())} validation values of {' and '.join(repeated)} equal the training "
        "means of the same epochs, which the program prints as val. They are left out, so overfitting "
        "can't be judged. VAR writes true validation losses to TensorBoard (AR_ep_loss/vL_mean) and to "
        "log.txt (vL_mean)."
    )
    series = next(iter(repeated)) if len(repeated) == 1 else None
    evidence = {"points": points, "largest_difference": dict(repeated)}
    yield RunFinding("val_is_train", "warning", message, series, evidence)


def _nonfinite(series: Series) -> Iterator[RunFinding]:
    """Report NaN and infinity in a loss."""
    if not series.nonfinite or not series.metric.is_loss:
        return
    at_end = not len(series.finite) or series.finite.at(-1) != series.at(-1)
    message = (
        f"NaN or infinity at {series.nonfinite} point{'s' if series.nonfinite > 1 else ''}, first at "
        f"{format_place(series.nonfinite_at)}{', and at the end' if at_end else ''}. "
        "Resume from an earlier checkpoint with a lower learning rate; check the gradient norm, its "
        "clipping and the fp16 loss scale (bf16 needs none)."
    )
    evidence = {"count": series.nonfinite, "at": dict(series.nonfinite_at), "at_the_end": at_end}
    yield RunFinding("nan", "error", message, series.metric.name, evidence)


def _plateau(series: Series, _: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a loss that more training would hardly lower."""
    value_n, metric = series.value_n, series.metric
    fall, lowest = float(value_n[0] - value_n.min()), MIN_RELATIVE_TOLERANCE * abs(float(value_n[0]))
    is_known = metric.kind == "cross_entropy"
    tolerance = TOLERANCE if is_known else max(RELATIVE_TOLERANCE * fall, lowest)
    result = plateau(value_n, tolerance)
    if result is None or not result.fires or result.rising:
        return
    is_collapsed = metric.is_proxy and abs(value_n[-1]) < COLLAPSED * abs(value_n[0])
    if is_collapsed:
        advice = (
            "It is nearly constant below 1 % of its first value, as with collapsed targets: check their "
            "variance or effective rank"
        )
    elif metric.is_proxy:
        advice = "The target moves with the model, so a plateau says little: judge by probes"
    else:
        advice = "Lower the learning rate if it is still high, else stop the training"
    message = (
        f"flat over the last quarter: another quarter would gain {result.gain:.2g} ± "
        f"{result.gain_error:.1g}, below {tolerance:.2g} even at the upper bound. {advice}."
    )
    severity: Severity = "info" if metric.is_proxy and not is_collapsed else "warning"
    yield finding_about(series, "plateau", severity, message, result, result.first)


def _rebound(series: Series, others: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a loss that has risen since its minimum."""
    result = rebound(series.value_n)
    if result is None or not result.fires:
        return
    at = (result.fine_first + result.fine_stop - 1) // 2
    peak = f", after a peak at {result.peak:.4g}" if result.falls_again else ""
    evidence = (
        f"lowest near {format_place(series.at(at))} at {result.fine_minimum:.4g}, since then up by "
        f"{result.rise:.3g} ({_in_standard_errors(result.rise, result.se)}) to {result.last:.4g}{peak}"
    )
    if series.metric.kind == "cross_entropy":
        advice = "Check the learning rate, the gradient norm for spikes, and the data at that point"
        yield finding_about(series, "rebound", "warning", f"{evidence}. {advice}.", result, at)
        return
    share = result.first / len(series)
    regularisers = [other for other in others if other.metric.kind == "regulariser"]
    falling = [r.metric.name for r in regularisers if regulariser_falls(r.value_n, int(share * len(r)))]
    while_falling = f" while {', '.join(falling)} still falls (proxy-loss rebound)" if falling else ""
    is_proxy = series.metric.is_proxy
    advice = (
        f"{'Usual' if is_proxy else 'If the loss is self-supervised: usual'} with moving-average "
        "targets, evidence neither of failure nor of health: probe checkpoints before and after (kNN, "
        "linear), check the variance of the targets, the momentum and the batch size. Do not stop early "
        f"because of it{'' if is_proxy else '. Else check the learning rate and gradient norm there'}"
    )
    message = f"{evidence}{while_falling}. {advice}."
    yield finding_about(series, "rebound", "info", message, result, at, regularisers_that_fall=falling)


def _sudden_drops(series: Series, _: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a loss that drops suddenly after a rise."""
    drops = sudden_drops(series.value_n)
    if not drops or series.metric.kind == "cross_entropy":
        return
    drop = max(drops, key=lambda drop: drop.fall)
    times = f"{len(drops)} times, most " if len(drops) > 1 else ""
    message = (
        f"drops suddenly after a rise, {times}near {format_place(series.at(drop.first))} from "
        f"{drop.before:.4g} to {drop.after:.4g}. In self-supervised losses this is usually a partial "
        "collapse: check the variance or effective rank of the targets there, and compare probes of "
        "checkpoints before and after."
    )
    yield finding_about(series, "sudden_drop", "warning", message, drop, drop.first, drops=len(drops))


def _divergence(series: Series, _: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a loss that ends above its first value."""
    result = divergence(series.value_n)
    if result is None or not result.fires or series.metric.is_proxy:
        return
    is_cross_entropy = series.metric.kind == "cross_entropy"
    message = (
        f"the last tenth is at {result.last:.4g}, {result.rise:.3g} above the first value "
        f"({_in_standard_errors(result.rise, result.se)}). "
        f"{'Stop' if is_cross_entropy else 'Unless its targets move: stop'}, resume from a checkpoint "
        "before the rise, lower the learning rate or warm up for longer, and clip the gradient."
    )
    severity: Severity = "error" if is_cross_entropy else "warning"
    yield finding_about(series, "divergence", severity, message, result, result.last_first)


def _growing_gradients(series: Series, others: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a growing gradient norm in the log of a cross-entropy."""
    result = grows_without_bound(series.value_n)
    has_cross_entropy = any(other.metric.kind == "cross_entropy" for other in others)
    if result is None or not result.fires or not has_cross_entropy:
        return
    message = (
        f"the gradient norm is at {result.last:.3g}, {result.ratio:.0f} times its median in the middle "
        "of the run, and still grows: the loss usually follows. Lower the learning rate or clip the "
        "gradient."
    )
    yield finding_about(series, "divergence", "warning", message, result, result.first)


def _overfitting(val: Series, others: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a validation loss that rises while the training loss falls."""
    train = _training_loss(val.metric, others)
    if train is None or val.metric.kind not in ("cross_entropy", "loss") or not len(val):
        return
    train_n = _train_at_evaluations(val, train)
    result = None if train_n is None else overfitting(val.value_n, train_n)
    if result is None or not result.fires:
        return
    message = (
        f"lowest at {format_place(val.at(result.best_index))} with {result.best:.4g}, at least "
        f"{min(result.last):.4g} in the last evaluations, while the training loss {train.metric.name} "
        f"fell from {result.train_at_best:.4g} to {result.train_last:.4g}. Use the checkpoint of the "
        "lowest loss; add data, augmentation or regularisation, or use a smaller model."
    )
    yield finding_about(
        val, "overfitting", "warning", message, result, result.best_index, train=train.metric.name
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


def _training_loss(metric: Metric, others: Sequence[Series]) -> Series | None:
    """Return the training loss of a validation loss: the one of the same subject, or the only one."""
    losses = [one for one in others if one.metric.is_main and one.metric.kind == metric.kind]
    same = [one for one in losses if subject(one.metric) == subject(metric)]
    return same[0] if same else losses[0] if len(losses) == 1 else None


def _in_standard_errors(size: float, error: float) -> str:
    return f"{size / error:.0f} standard errors" if error else "without noise"
