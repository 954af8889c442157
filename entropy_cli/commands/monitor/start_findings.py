"""Findings about where a run starts: whether its loss is one of the floor's tokenizer, and a mean."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.series import TOKEN_UNITS, Log, Series
from entropy_cli.commands.monitor.result import RunFinding, about
from entropy_cli.results import floor_checks as checks
from entropy_cli.results.floor_checks import NEAR
from entropy_cli.results.floors import Floor

CODE_BITS = range(8, 19)  # codebooks that a start at ln V tells from others
RATIO_TOLERANCE = 0.05  # relative, of training to validation
MIN_EVALUATIONS = 3
VOCABULARY = ("vocab_size", "codebook_size", "num_codes")  # arguments of programs


def start_findings(log: Log, shown: Sequence[Series], floor: Floor | None) -> list[RunFinding]:
    """Report a floor of another tokenizer; else losses that do not start at ln V, or are sums."""
    if other := other_tokenizer(log, shown, floor):
        return [other]
    codes = None if floor is None else floor.vocab_size
    found = []
    for one in shown:
        metric, finite = one.metric, one.finite
        if metric.is_main and not metric.is_adversarial and len(finite) and _is_token_loss(one):
            found += list(_start(finite, codes, shown))
    return found


def without_floors(shown: Sequence[Series], starts: Sequence[RunFinding]) -> list[Series]:
    """Take the floors from series that can't be compared with them, by the findings about starts."""
    if any(one.id == "other_tokenizer" for one in starts):
        return [replace(one, level=None) for one in shown]
    summed = {one.series for one in starts if one.id == "summed_loss"}
    is_summed = [one.metric.name in summed and one.metric.split == "train" for one in shown]
    return [
        replace(one, level=None) if is_sum else one for one, is_sum in zip(shown, is_summed, strict=True)
    ]


def sides_of(log: Log) -> tuple[int, ...]:
    """Return the sides of the scales that a log names; none if it does not."""
    return tuple(map(int, re.findall(r"\d+", log.arguments.get("patch_nums", ""))))


def _is_token_loss(series: Series) -> bool:
    """Return whether it can be compared with ln V: a cross-entropy in nats, or one with a floor."""
    metric = series.metric
    return metric.unit in TOKEN_UNITS and (metric.kind == "cross_entropy" or series.level is not None)


def other_tokenizer(
    log: Log, shown: Sequence[Series], floor: Floor | None, what: str = "floor"
) -> RunFinding | None:
    """Return a finding if the log names other scales or codes than the floor has.

    `what` is said of the floor: it may also be that of a reference.
    """
    if floor is None or floor.is_given:
        return None
    reasons: list[str] = []
    evidence: dict[str, object] = {}
    sides, known = sides_of(log), floor.patch_nums
    drawn = {one.metric.scope for one in shown if isinstance(one.metric.scope, int)}
    if sides and known and sides != known:
        reasons.append(f"its scales are {_listed(sides)}, those of the {what} {_listed(known)}")
        evidence |= {"scales": list(sides), "floor_scales": list(known)}
    elif floor.scales and (more := sorted(drawn - set(floor.scales))):
        reasons.append(f"it has scales {_listed(more)}, which the {what} has not")
        evidence |= {"scales": sorted(drawn), "floor_scales": sorted(floor.scales)}
    codes = floor.vocab_size
    for found, how in _code_counts(log, shown, codes):
        if codes is not None and found != codes and not _is_power(found, codes):
            reasons.append(f"{how} {found}, the {what} has {codes} codes")
            evidence |= {"codes": found, "floor_codes": codes}
            break
    if not reasons:
        return None
    message = (
        f"the {what} is of another tokenizer than the log: {'; '.join(reasons)}. No loss is set against "
        f"it. Give a {what} of the tokenizer that this model was trained on."
    )
    return RunFinding("other_tokenizer", "warning", message, None, evidence)


def _code_counts(log: Log, shown: Sequence[Series], codes: int | None) -> Iterator[tuple[int, str]]:
    """Yield codebook sizes that a log names or starts at the logarithm of, and how it says so.

    A start that may be that of `codes` too, such as 1000 and 1024, says nothing.
    """
    ours = math.inf if codes is None else math.log(codes)
    for name in VOCABULARY:
        if (text := log.arguments.get(name, "")).isdigit():
            yield int(text), f"{name} is"
    for one in shown:
        if one.metric.is_main and len(one.finite) and _is_token_loss(one) and one.finite.begins_at_start:
            bits = round(one.initial / math.log(2))
            is_theirs = abs(one.initial - bits * math.log(2)) < NEAR
            if bits in CODE_BITS and is_theirs and abs(one.initial - ours) > NEAR:
                yield 2**bits, f"{one.metric.name} starts at {one.initial:.3f} = ln"


def _is_power(codes: int, of: int) -> bool:
    """Return whether a start at the logarithm of `codes` may be the sum of several at that of `of`."""
    times = math.log(codes) / math.log(of)
    return times > 1 and abs(times - round(times)) < 1e-9


def _start(series: Series, codes: int | None, shown: Sequence[Series]) -> Iterator[RunFinding]:
    """Report a loss that starts at a multiple of ln V, stays a multiple of validation, or is neither."""
    initial = series.initial
    evidence: dict[str, object] = {"value": initial}
    times = _times_validation(series, shown)
    is_start = series.begins_at_start
    if codes is not None:
        evidence |= {"expected": math.log(codes)}
        is_untrained = series.untrained_value is not None or series.at(0).get("step") == 0
        start = checks.compare_start(initial, codes, is_untrained=is_untrained)
        if is_start and start.times is not None:
            evidence |= {"times": start.times, "times_validation": times}
            yield about(series, checks.summed_loss(initial, codes, start.times), evidence)
            return
        if is_start and not start.is_expected and times is None:
            yield about(series, checks.start_is_not_ln_v(initial, codes), evidence)
    if times is not None:
        message = (
            f"stays {times} times its validation loss: probably the sum over {times} accumulation steps "
            f"or processes, so no floor is set against it. {checks.ACCUMULATION}."
        )
        evidence |= {"times_validation": times}
        yield RunFinding("summed_loss", "warning", message, series.metric.name, evidence)


def _times_validation(series: Series, shown: Sequence[Series]) -> int | None:
    """Return the whole number that a training loss stays above its validation loss by; None if none."""
    same = [
        one.finite
        for one in shown
        if one.metric.split == "val" and one.metric.kind == series.metric.kind
        if subject(one.metric) == subject(series.metric)
    ]
    if not same or len(same[0]) < MIN_EVALUATIONS:
        return None
    val = same[0]
    at_train, at_val = (
        one.step_n if np.isfinite(one.step_n).all() else one.epoch_n for one in (series, val)
    )
    if not (np.isfinite(at_train).all() and np.isfinite(at_val).all()) or (val.value_n <= 0).any():
        return None
    last_n = (np.searchsorted(at_train, at_val, "right") - 1).clip(0)
    ratio_n = series.value_n[last_n] / val.value_n
    times = round(float(np.median(ratio_n)))
    is_steady = bool((np.abs(ratio_n / times - 1) < RATIO_TOLERANCE).all()) if times > 1 else False
    return times if is_steady else None


def _listed(sides: Sequence[int | None], most: int = 12) -> str:
    names = ["?" if side is None else str(side) for side in sides[:most]]
    return ", ".join([*names, "..."] if len(sides) > most else names)
