"""Findings about a run against its floor, and rules of thumb with their sources."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from entropy_cli.data.logs.series import Log
from entropy_cli.functional import detectors
from entropy_cli.pipeline.watched import Watched
from entropy_cli.results.floor import Floor
from entropy_cli.results.monitor import Finding

NEAR = 0.02  # nats between a loss and ln V that are nothing
VAR_CODES = 4096


def floor_findings(watched: Sequence[Watched]) -> Iterator[Finding]:
    """Losses where they can't be, or should not be."""
    for one in watched:
        level, value_n = one.level, one.finite.value_n
        if level is None or not len(value_n):
            continue
        error = 0.0 if level.half_width is None else level.half_width / 1.96
        under = detectors.below(value_n, level.floor, error)
        if under is not None and under.fires:
            yield Finding(
                "below_floor",
                "warning",
                one.metric.name,
                f"{one.metric.split} loss of {under.value:.4f} lies {under.distance:.4f} nats below "
                "the floor "
                f"{level.floor:.4f} ({under.sigmas:.0f} standard errors), which is impossible in "
                "expectation "
                "for labels "
                "that are drawn from the soft assignment. Usual causes: the labels are the nearest "
                "codes, "
                "for which the assignment entropy is no floor; another temperature, tokenizer or "
                "scale; bits "
                "for nats; a memorised training set.",
                asdict(under),
            )
        yield from _above_unigram(one)


def _above_unigram(one: Watched) -> Iterator[Finding]:
    """That a model is worse than a constant prediction."""
    level = one.level
    if level is None or level.unigram is None or len(one.finite) < detectors.LEAST_POINTS:
        return
    over = detectors.above(one.finite.value_n, level.unigram)
    if over is None or not over.fires:
        return
    yield Finding(
        "above_unigram",
        "warning",
        one.metric.name,
        f"{one.metric.split} loss of {over.value:.4f} at the end is {over.distance:.4f} nats above "
        "the unigram "
        f"entropy {level.unigram:.4f}, which a constant prediction reaches. Usual causes: a run that "
        "has "
        "hardly begun, labels of another tokenizer or in another order, a broken model.",
        asdict(over),
    )


def rules_of_thumb(log: Log, watched: Sequence[Watched], floor: Floor | None) -> Iterator[Finding]:
    """What people go by, with its source; nothing of it is an alarm."""
    codes = floor.vocab_size if floor is not None else None
    is_var = log.format.startswith("var") or any(one.metric.name.startswith("AR_") for one in watched)
    for one in watched:
        metric, series = one.metric, one.finite
        if metric.split != "train" or not len(series):
            continue
        if metric.kind == "cross_entropy" and metric.of is not None:
            yield from _start(one, codes or (VAR_CODES if is_var else None))
        if is_var and metric.of in ("mean", "last"):
            yield from _of_var(one, floor)


def _start(one: Watched, codes: int | None) -> Iterator[Finding]:
    """That an untrained model knows nothing: ln V."""
    before = one.finite.before
    if codes is None or before is None:
        return
    uniform = math.log(codes)
    fits = abs(before - uniform) < NEAR
    verdict = "as it should be" if fits else "another number of codes, or no fresh start"
    yield Finding(
        "rule_of_thumb",
        "info",
        one.metric.name,
        f"starts at {before:.3f}; an untrained model has ln {codes} = {uniform:.3f}: {verdict}.",
        {"value": before, "expected": uniform, "source": "ln V"},
    )


def _of_var(one: Watched, floor: Floor | None) -> Iterator[Finding]:
    """Issues of FoundationVision/VAR: what its author and users call good or normal."""
    metric, value_n = one.metric, one.finite.value_n
    last = float(value_n[-1])
    where = "mean" if metric.of == "mean" else "last scale"
    if metric.kind == "cross_entropy":
        advice = (
            "no released VAR gets there in the mean, so it can only be about the last scale"
            if metric.of == "mean"
            else "of the last scale"
        )
        side = "below" if last < 5.5 else "above"
        yield Finding(
            "rule_of_thumb",
            "info",
            metric.name,
            f"{last:.3f} ({where}) is {side} 5.5, which is called good for 4096 codes (VAR issue 53): "
            f"{advice}. "
            "What counts is the distance to the floor of this tokenizer.",
            {"value": last, "limit": 5.5, "source": "FoundationVision/VAR issue 53"},
        )
    elif metric.kind == "accuracy":
        normal = "4 to 6 %" if metric.of == "mean" else "about 8 %"
        yield Finding(
            "rule_of_thumb",
            "info",
            metric.name,
            f"{last:.2f} % ({where}); {normal} is normal at the end for 4096 codes (VAR issues 130 "
            "and 143).",
            {"value": last, "source": "FoundationVision/VAR issues 130, 143"},
        )
