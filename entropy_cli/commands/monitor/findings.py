"""Collect findings about a run, each with its evidence and what to do about it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from entropy_cli.commands.monitor.curve_findings import curve_findings, growing_gradients, nonfinite
from entropy_cli.commands.monitor.floor_findings import floor_findings
from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.commands.monitor.rules_of_thumb import rules_of_thumb
from entropy_cli.commands.monitor.start_findings import start_findings, without_floors
from entropy_cli.commands.monitor.titles import listed
from entropy_cli.commands.monitor.validation_findings import overfitting_findings
from entropy_cli.results.findings import Severity
from entropy_cli.results.floors import Floor

MOST_NAMES = 3  # of further series with the same fault


def collect_findings(
    log: Log, shown: Sequence[Series], repeated: Mapping[str, float], floor: Floor | None
) -> list[RunFinding]:
    """Collect all findings about a log, of which only some series are shown.

    `repeated` has the validation series that repeat training, with the largest difference of each.
    """
    starts = start_findings(log, shown, floor)
    if any(one.id == "other_tokenizer" for one in starts):
        floor = None
    judged = [one.judged.finite for one in without_floors(shown, starts)]
    findings = [*_restarts(log), *_repeated_training(log, repeated), *starts]
    findings += [one for series in shown for one in nonfinite(series)]
    for series in judged:
        findings += curve_findings(series, judged)
    findings += overfitting_findings(judged)
    for series in judged:
        findings += growing_gradients(series, judged)
    # What starts far above ln V is no mean, or of other labels: what its end is beside says no more.
    misfits = {one.series for one in starts if one.id == "start_is_not_ln_v" and one.severity != "info"}
    findings += floor_findings([one for one in judged if one.metric.name not in misfits], floor)
    return [*_grouped(findings, shown), *rules_of_thumb(log, judged, floor)]


def _grouped(findings: Sequence[RunFinding], shown: Sequence[Series]) -> list[RunFinding]:
    """Return one finding for one fault of several evaluations, or of several scales."""
    evaluations = {one.metric.name for one in shown if one.metric.split == "val"}
    scales = {one.metric.name for one in shown if isinstance(one.metric.scope, int)}

    def key(one: RunFinding) -> tuple[object, ...]:
        groups = [i for i, names in enumerate((evaluations, scales)) if one.series in names]
        return (one.id, one.severity, *groups) if groups else (id(one),)

    by_key: dict[tuple[object, ...], list[RunFinding]] = {}
    for one in findings:
        by_key.setdefault(key(one), []).append(one)
    return [_merged(group) for group in by_key.values()]


def _merged(group: Sequence[RunFinding]) -> RunFinding:
    """Return the first finding of a fault, which names the other series that have it."""
    first, *others = group
    names = [str(one.series) for one in others]
    if not names:
        return first
    message = f"{first.message} The same is true of {listed(names, MOST_NAMES)}."
    return replace(first, message=message, evidence={**first.evidence, "also": names})


def _restarts(log: Log) -> Iterator[RunFinding]:
    """Report that several processes wrote the log, and which run is shown."""
    if log.starts < 2 and log.segments < 2:
        return
    empty = log.starts - log.segments
    parts = [f"{log.starts} starts in one file"]
    parts += [f"{empty} of them without a value"] if empty > 0 else []
    rows = "1 row" if log.left_out == 1 else f"{log.left_out} rows"
    parts += [f"{rows} of other runs left out"] if log.left_out else []
    shown = "the run that gets farthest, with the last value of repeated points"
    is_other = log.left_out > max(map(len, log.series), default=0)
    severity: Severity = "warning" if is_other else "info"
    advice = (
        "To see another run, give a file that holds it alone"
        if log.left_out
        else "Nothing to do if it was resumed"
    )
    evidence = {"starts": log.starts, "segments": log.segments, "rows_left_out": log.left_out}
    message = f"{', '.join(parts)}; shown: {shown}. {advice}."
    yield RunFinding("restarts", severity, message, None, evidence)


def _repeated_training(log: Log, repeated: Mapping[str, float]) -> Iterator[RunFinding]:
    """Report validation values that repeat those of training."""
    if not repeated:
        return
    points = {name: len(val) for name in repeated if (val := log.find(name, "val")) is not None}
    message = (
        f"all {max(points.values())} validation values of {' and '.join(repeated)} equal the training "
        "means of the same epochs, which the program prints as val. They are left out, so overfitting "
        "can't be judged. VAR writes true validation losses to TensorBoard (AR_ep_loss/vL_mean) and to "
        "log.txt (vL_mean): give one of these."
    )
    series = next(iter(repeated)) if len(repeated) == 1 else None
    evidence = {"points": points, "largest_difference": dict(repeated)}
    yield RunFinding("val_is_train", "warning", message, series, evidence)
