"""Findings about the shape of one curve: plateaus, rebounds, drops, divergence, NaN."""

from collections.abc import Iterator, Sequence

from entropy_cli.commands.monitor.detectors.limits import divergence, grows_without_bound
from entropy_cli.commands.monitor.detectors.plateau import TOLERANCE, never_moved, plateau, standstill
from entropy_cli.commands.monitor.detectors.rebound import rebound, regulariser_falls, sudden_drops
from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.result import RunFinding, finding_about, format_place
from entropy_cli.results.findings import Severity, difference

RELATIVE_TOLERANCE = 0.002  # share of the fall since the start, for losses in other units
MIN_RELATIVE_TOLERANCE = 1e-6  # share of the first value
COLLAPSED = 0.01  # share of the first value


def curve_findings(series: Series, others: Sequence[Series]) -> Iterator[RunFinding]:
    """Report what a main training loss does; of one that a second network works against nothing."""
    metric = series.metric
    if not metric.is_main or metric.is_adversarial or not len(series):
        return
    unmoved = list(_never_moved(series))
    if unmoved and any(_moved(one) for one in others):
        return  # a constant part, such as a regulariser's, of a model that learns
    yield from unmoved or _plateau(series)
    diverged = list(_divergence(series))
    yield from (one for one in _rebound(series, others) if not diverged or _fell(one))
    yield from _sudden_drops(series)
    yield from diverged


def nonfinite(series: Series) -> Iterator[RunFinding]:
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


def _moved(series: Series) -> bool:
    """Return whether a main training loss is long enough to judge, and has moved."""
    found = never_moved(series.value_n) if series.metric.is_main else None
    return found is not None and not found.fires


def _never_moved(series: Series) -> Iterator[RunFinding]:
    """Report a loss that is as high at the end as at the start of the run."""
    found, ceiling = never_moved(series.value_n), None if series.level is None else series.level.ceiling
    if found is None or not found.fires or not series.begins_at_start:
        return
    if ceiling is not None and found.start < ceiling:  # it has moved before the log begins
        return
    message = (
        f"as high at the end ({found.last:.4g}) as at the start ({found.start:.4g}, medians of a tenth "
        f"and a thirtieth of {len(series):,} points): no fall beyond the noise of {found.noise:.1g} a "
        "point (standard deviation). Check that the optimiser has the model's parameters, that the "
        "learning rate is neither zero nor far too high, that gradients reach the model (no detach, no "
        "frozen layers), and that inputs and targets belong together."
    )
    yield finding_about(series, "never_moved", "warning", message, found, 0)


def _plateau(series: Series) -> Iterator[RunFinding]:
    """Report a loss that more training would hardly lower."""
    value_n, metric = series.value_n, series.metric
    fall, lowest = float(value_n[0] - value_n.min()), MIN_RELATIVE_TOLERANCE * abs(float(value_n[0]))
    is_known = metric.kind == "cross_entropy"
    tolerance = TOLERANCE if is_known else max(RELATIVE_TOLERANCE * fall, lowest)
    flat, still = plateau(value_n, tolerance), standstill(value_n)
    result: object
    if flat is not None and flat.fires and not flat.rising:
        result, first = flat, flat.first
        evidence = (
            f"flat over the last quarter: another quarter would gain {flat.gain:.2g}, with a standard "
            f"error of {flat.gain_error:.1g}, below {tolerance:.2g} even at the upper bound"
        )
    elif still is not None and still.fires:
        result, first = still, still.first
        evidence = (
            f"flat since {format_place(series.at(first))}: as much training again would gain "
            f"{still.gain:.2g}, with a standard error of {still.gain_error:.1g}, after a fall by "
            f"{still.earlier:.2g} between {format_place(series.at(still.before))} and there"
        )
    else:
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
    severity: Severity = "info" if metric.is_proxy and not is_collapsed else "warning"
    yield finding_about(series, "plateau", severity, f"{evidence}. {advice}.", result, first)


def _rebound(series: Series, others: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a loss that has risen since its minimum."""
    result = rebound(series.value_n)
    if result is None or not result.fires:
        return
    at = (result.fine_first + result.fine_stop - 1) // 2
    lowest, last = f"{result.fine_minimum:.4g}", f"{result.last:.4g}"
    has_fallen = result.falls_again and result.peak - result.last > 2 * result.se
    peak = f", after a peak at {result.peak:.4g}" if has_fallen else ""
    evidence = (
        f"lowest near {format_place(series.at(at))} at {lowest}, since then up by "
        f"{difference(last, lowest)} ({_in_standard_errors(result.errors)}) to {last}{peak}"
    )
    if series.metric.kind == "cross_entropy":
        advice = "Check the learning rate, the gradient norm for spikes, and the data at that point"
        yield finding_about(series, "rebound", "warning", f"{evidence}. {advice}.", result, at)
        return
    share = result.first / len(series)
    regularisers = [other for other in others if other.metric.kind == "regulariser"]
    falling = [r.metric.name for r in regularisers if regulariser_falls(r.value_n, int(share * len(r)))]
    while_falling = f" while {', '.join(falling)} still falls (proxy-loss rebound)" if falling else ""
    if series.metric.is_proxy:
        advice = (
            "Usual with moving-average targets, evidence neither of failure nor of health: probe "
            "checkpoints before and after (kNN, linear), check the variance of the targets, the "
            "momentum and the batch size. Do not stop early because of it"
        )
    else:
        advice = (
            "Check the learning rate, the gradient norm and the data at that point. Only with "
            "moving-average targets (self-supervised) is it usual and no reason to stop: then probe "
            "checkpoints before and after"
        )
    message = f"{evidence}{while_falling}. {advice}."
    yield finding_about(series, "rebound", "info", message, result, at, regularisers_that_fall=falling)


def _fell(rebound_: RunFinding) -> bool:
    """Return whether a loss fell at all before it rose."""
    return bool(rebound_.evidence["drop"] > rebound_.evidence["threshold"])


def _sudden_drops(series: Series) -> Iterator[RunFinding]:
    """Report a loss that drops suddenly after a rise."""
    drops = None if series.metric.kind == "cross_entropy" else sudden_drops(series.value_n)
    if not drops:
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


def _divergence(series: Series) -> Iterator[RunFinding]:
    """Report a loss that ends above its first value."""
    result = divergence(series.value_n)
    if result is None or not result.fires or series.metric.is_proxy:
        return
    is_cross_entropy = series.metric.kind == "cross_entropy"
    start, last = f"{result.start:.4g}", f"{result.last:.4g}"
    message = (
        f"the last tenth is at {last}, {difference(last, start)} above the first value of {start} "
        f"({_in_standard_errors(result.rise / result.se if result.se else None)}). "
        f"{'Stop' if is_cross_entropy else 'Unless its targets move: stop'}, resume from a checkpoint "
        "before the rise, lower the learning rate or warm up for longer, and clip the gradient."
    )
    severity: Severity = "error" if is_cross_entropy else "warning"
    yield finding_about(series, "divergence", severity, message, result, result.last_first)


def growing_gradients(series: Series, others: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a growing gradient norm in the log of a cross-entropy."""
    if series.metric.kind != "gradient_norm":
        return
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


def _in_standard_errors(errors: float | None) -> str:
    return "without noise" if errors is None else f"{errors:.0f} standard errors"
