"""Findings about validation: losses that rise, and accuracies that fall, while training goes on."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

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
    losses = [one for one in shown if one.metric.split == "val" and one.metric.is_loss and len(one)]
    reported: set[Metric] = set()
    for val in losses:
        train, found = _judge(val, shown)
        if train is None or found is None or not found.fires:
            continue
        accuracies = [one for one in shown if _is_accuracy_of(one, val)]
        reported |= {one.metric for one in accuracies}
        beside = "".join(f"; {_beside(one, shown)}" for one in accuracies)
        message = (
            f"lowest at {format_place(val.at(found.best_index))} with {found.best:.4g}, at least "
            f"{min(found.last):.4g} in the last three evaluations, while {train.metric.name} in "
            f"training fell from {found.train_at_best:.4g} to {found.train_last:.4g}"
            f"{beside}. {ADVICE}."
        )
        yield finding_about(
            val, "overfitting", "warning", message, found, found.best_index, train=train.metric.name
        )
    for one in shown:
        if one.metric.split == "val" and one.metric.kind == "accuracy" and one.metric not in reported:
            yield from _falling_accuracy(one, shown)


def _falling_accuracy(accuracy: Series, shown: Sequence[Series]) -> Iterator[RunFinding]:
    train, found = _judge(accuracy, shown)
    if train is None or found is None or not found.fires:
        return
    message = (
        f"highest at {format_place(accuracy.at(found.best_index))} with {-found.best:.4g}, at most "
        f"{-min(found.last):.4g} in the last three evaluations, while {train.metric.name} in "
        f"training fell from {found.train_at_best:.4g} to {found.train_last:.4g}. {ADVICE}."
    )
    yield finding_about(
        accuracy, "overfitting", "warning", message, found, found.best_index, train=train.metric.name
    )


def _beside(accuracy: Series, shown: Sequence[Series]) -> str:
    """Say what the accuracy does while its loss rises."""
    name = accuracy.metric.name
    best, last = float(accuracy.value_n.max()), float(accuracy.value_n[-1])
    _, found = _judge(accuracy, shown)
    if found is not None and found.fires:
        at = format_place(accuracy.at(found.best_index))
        return f"{name} falls as well, from {best:.4g} at {at} to {last:.4g}"
    return f"{name} does not fall: best {best:.4g}, last {last:.4g}, so the model grows overconfident"


def _judge(val: Series, shown: Sequence[Series]) -> tuple[Series | None, Overfitting | None]:
    """Return the training loss beside an evaluation, and how the two move; accuracies are negated."""
    train = _training_loss(val.metric, shown)
    if train is None or not len(val) or val.metric.kind == "regulariser" or val.metric.is_adversarial:
        return None, None
    sign = -1.0 if val.metric.kind == "accuracy" else 1.0
    train_n = _train_at_evaluations(val, train)
    return train, None if train_n is None else overfitting(sign * val.value_n, train_n)


def _training_loss(metric: Metric, others: Sequence[Series]) -> Series | None:
    """Return the training loss of an evaluation: the one of the same subject, or the only one."""
    losses = [one for one in others if one.metric.is_main and not one.metric.is_adversarial]
    if metric.is_loss:
        losses = [one for one in losses if one.metric.kind == metric.kind]
        same = [one for one in losses if subject(one.metric) == subject(metric)]
    else:
        same = [one for one in losses if _words(one.metric) == _words(metric)]
    return same[0] if same else losses[0] if len(losses) == 1 else None


def _train_at_evaluations(val: Series, train: Series) -> np.ndarray | None:
    """Return the last training loss at or before each evaluation, (n,); None if places don't match."""
    places = _places(val, train)
    if not len(train) or places is None:
        return None
    at_val, at_train = places
    last_n = np.array([bisect_right(at_train, place) - 1 for place in at_val])
    return train.value_n[last_n.clip(0)]


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


def _is_accuracy_of(one: Series, val: Series) -> bool:
    metric = one.metric
    return (
        metric.split == "val"
        and metric.kind == "accuracy"
        and len(one) > 0
        and metric.scope == val.metric.scope
        and _words(metric) == _words(val.metric)
    )


def _words(metric: Metric) -> set[str]:
    """Return the words of a name that say what is measured on, as of eval_g0_loss: g0."""
    return set(split_words(metric.name)) - MEASURES - HELD_OUT - TRAINING
