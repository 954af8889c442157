"""Findings about validation: losses that rise, and accuracies that fall, while training goes on."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from entropy_cli.commands.monitor.detectors.overfitting import Overfitting, overfitting
from entropy_cli.commands.monitor.logs.names import HELD_OUT, TRAINING, split_words, subject
from entropy_cli.commands.monitor.logs.series import Metric, Series
from entropy_cli.commands.monitor.result import RunFinding, finding_about, format_place

MEASURES = {"loss", "acc", "accuracy", "top1", "acc1", "l", "ce", "nll", "step", "epoch"}
ADVICE = (
    "Use the checkpoint of the best value; add data, augmentation or regularisation, or use a smaller "
    "model"
)


def overfitting_findings(shown: Sequence[Series]) -> Iterator[RunFinding]:
    """Report validation that gets worse while the training loss falls.

    An accuracy that falls is reported with the loss of the same evaluation, alone if that does not rise.
    """
    evaluations = [
        one for one in shown if one.metric.split == "val" and one.metric.is_shown and len(one)
    ]
    reported: set[Metric] = set()
    for val in sorted(evaluations, key=_is_accuracy):  # losses first
        judged = None if val.metric in reported else _judge(val, shown)
        if judged is None or not judged.found.fires:
            continue
        accuracies = (
            [] if _is_accuracy(val) else [one for one in evaluations if _is_accuracy_of(one, val)]
        )
        reported |= {one.metric for one in accuracies}
        message = "".join([judged.sentence(val), *(f"; {_beside(one, shown)}" for one in accuracies)])
        found, name = judged.found, judged.train.metric.name
        message = f"{message}. {ADVICE}."
        yield finding_about(val, "overfitting", "warning", message, found, found.best_index, train=name)


class _Judged(NamedTuple):
    """An evaluation beside its training loss: how the two move; an accuracy is negated."""

    train: Series
    found: Overfitting
    is_median: bool  # of the training losses since the evaluation before

    def sentence(self, val: Series) -> str:
        """Say how the evaluation and its training loss move."""
        found = self.found
        sign, best, least = (-1, "highest", "most") if _is_accuracy(val) else (1, "lowest", "least")
        near, of = ("near", f" (medians of {found.rows})") if found.rows > 1 else ("at", "")
        since = " (medians since the evaluation before)" if self.is_median else ""
        return (
            f"{best} {near} {format_place(val.at(found.best_index))} with {sign * found.best:.4g}, at "
            f"{least} {sign * min(found.last):.4g} in the last three evaluations{of}, while "
            f"{self.train.metric.name} in training fell from {found.train_at_best:.4g} to "
            f"{found.train_last:.4g}{since}"
        )


def _beside(accuracy: Series, shown: Sequence[Series]) -> str:
    """Say what the accuracy does while its loss rises."""
    name = accuracy.metric.name
    best, last = float(accuracy.value_n.max()), float(accuracy.value_n[-1])
    judged = _judge(accuracy, shown)
    if judged is not None and judged.found.fires:
        at = format_place(accuracy.at(judged.found.best_index))
        return f"{name} falls as well, from {best:.4g} at {at} to {last:.4g}"
    return f"{name} does not fall: best {best:.4g}, last {last:.4g}, so the model grows overconfident"


def _judge(val: Series, shown: Sequence[Series]) -> _Judged | None:
    """Set an evaluation beside its training loss; None if that can't be done."""
    train, metric = _training_loss(val.metric, shown), val.metric
    if train is None or not len(train) or metric.kind == "regulariser" or metric.is_adversarial:
        return None
    places = _places(val, train)
    if places is None:
        return None
    stops = [bisect_right(places[1], place) for place in places[0]]
    since = [train.value_n[a:b] for a, b in pairwise([0, *stops])]
    train_n = np.array(
        [
            np.median(some) if len(some) else train.value_n[max(b - 1, 0)]
            for some, b in zip(since, stops, strict=True)
        ]
    )
    found = overfitting(-val.value_n if _is_accuracy(val) else val.value_n, train_n)
    return None if found is None else _Judged(train, found, any(len(some) > 1 for some in since[1:]))


def _training_loss(metric: Metric, others: Sequence[Series]) -> Series | None:
    """Return the training loss of an evaluation: the one of the same subject, or the only one."""
    losses = [one for one in others if one.metric.is_main and not one.metric.is_adversarial]
    if metric.is_loss:
        losses = [one for one in losses if one.metric.kind == metric.kind]
        same = [one for one in losses if subject(one.metric) == subject(metric)]
    else:
        same = [one for one in losses if _words(one.metric) == _words(metric)]
    return same[0] if same else losses[0] if len(losses) == 1 else None


def _places(
    val: Series, train: Series
) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]] | None:
    """Return comparable places of two series: steps within epochs, else steps, else epochs."""
    known = [
        all(np.isfinite(array_n).all() for array_n in pair)
        for pair in ((val.epoch_n, train.epoch_n), (val.step_n, train.step_n))
    ]
    if not any(known):
        return None
    arrays = [
        [array_n for array_n, is_known in zip((one.epoch_n, one.step_n), known, strict=True) if is_known]
        for one in (val, train)
    ]
    at_val, at_train = ([tuple(place) for place in np.stack(of, 1).tolist()] for of in arrays)
    return at_val, at_train


def _is_accuracy(one: Series) -> bool:
    return one.metric.kind == "accuracy"


def _is_accuracy_of(one: Series, val: Series) -> bool:
    metric = one.metric
    is_of = metric.scope == val.metric.scope and _words(metric) == _words(val.metric)
    return _is_accuracy(one) and is_of


def _words(metric: Metric) -> set[str]:
    """Return the words of a name that say what is measured on, as of eval_g0_loss: g0."""
    return set(split_words(metric.name)) - MEASURES - HELD_OUT - TRAINING
