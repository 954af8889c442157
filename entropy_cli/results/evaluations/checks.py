"""Checks of an evaluation: what a reader should know before quoting its cross-entropy."""

import math
from collections.abc import Iterator
from dataclasses import replace

from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.checks import PRECISION_SHARE, WIDE, by_severity
from entropy_cli.results.evaluation import Evaluation, LabelCheck
from entropy_cli.results.floors import Level, beside_rungs, floor_of
from entropy_cli.results.schema import Check

# Of the checks of the estimate, those that are about the assignment entropy alone.
OF_ENTROPY = ("labels_of_floor", "above_unigram", "wide_interval", "temperature_slope")
SHOWN = 3  # scales in a sentence


def with_checks(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation whose checks are those of its losses and of its estimate."""
    own = list(_find(evaluation))
    ids = {check.id for check in own}
    others = [check for check in evaluation.estimate.checks if check.id not in ids]
    checks = by_severity([*own, *others])
    return replace(evaluation, estimate=replace(evaluation.estimate, checks=checks))


def checks_of_losses(evaluation: Evaluation) -> list[Check]:
    """Return the checks that matter to a reader of the losses, the most severe first."""
    return [check for check in evaluation.estimate.checks if check.id not in OF_ENTROPY]


def _find(evaluation: Evaluation) -> Iterator[Check]:
    yield from _ceilings(evaluation)
    yield from _labels(evaluation)
    yield from _interval(evaluation)
    yield from _precision(evaluation)


def _labels(evaluation: Evaluation) -> Iterator[Check]:
    check, source = evaluation.labels.check, evaluation.labels.source
    if source == "none":
        words = "the null class for all images: the loss of a model that is not told the class"
        yield Check("labels", "care", words)
    elif check is None:
        words = "labels not compared with the null class (--label-check 0, or the model has none)"
        yield Check("labels", "care", words)
    elif check.gain.se is None:
        words = "too few images to compare the labels with the null class"
        yield Check("labels", "care", words)
    elif check.is_doubtful and check.is_too_small:
        words = f"too few images to tell whether labels are right: the class is worth {worth(check)}"
        yield Check("labels", "care", words)
    elif check.is_doubtful:
        words = f"the labels are probably wrong: the class is worth {worth(check)}; see `guide evaluate`"
        yield Check("labels", "wrong", words)
    else:
        yield Check("labels", "ok", "labels help")


def worth(check: LabelCheck) -> str:
    """Say what knowing the class is worth, with its 95 % interval."""
    half = check.gain.half_width
    error, level = ("", "") if half is None else (f" ± {half:.1f}", "95 %, ")
    images = f"{check.images:,} image{'s' * (check.images > 1)}"
    return f"{check.gain.known:.1f}{error} nats/image ({level}{images})"


def _ceilings(evaluation: Evaluation) -> Iterator[Check]:
    """Compare the cross-entropy with what constant predictions and counts reach."""
    floor, whole = floor_of(evaluation.estimate, "result"), evaluation.average.token_weighted
    assert floor.mean is not None
    entropy, ceiling = whole.cross_entropy, floor.mean.ceiling
    over = [
        scale.name
        for scale, losses in zip(floor.by_scale, evaluation.scales, strict=True)
        if _is_above(losses.cross_entropy, scale.level)
    ]
    if ceiling is not None and _is_above(entropy, floor.mean):
        words = (
            f"cross-entropy above the unigram entropy (at most {ceiling:.2f} nats), which the codes' "
            "frequencies alone reach: do model and tokenizer belong together?"
        )
        yield Check("loss_above_unigram", "wrong", words)
    elif over:
        named = ", ".join(over[:SHOWN]) + (f" and {len(over) - SHOWN} more" if over[SHOWN:] else "")
        words = f"cross-entropy above the unigram entropy at {named}"
        yield Check("loss_above_unigram", "care", words)
    elif ceiling is not None:
        yield Check("loss_above_unigram", "ok", "cross-entropy below the unigram entropy")
    if floor.mean.rungs:
        is_above, clause = beside_rungs(entropy.known, entropy.half_width or 0.0, floor.mean.rungs)
        if is_above:
            yield Check("loss_above_rung", "care", f"cross-entropy {clause}")
        else:
            yield Check("loss_above_rung", "ok", "below every rung of the ladder")


def _is_above(entropy: Estimate, level: Level) -> bool:
    """Return whether a cross-entropy is above the unigram entropy by more than its error."""
    return level.ceiling is not None and entropy.known - (entropy.half_width or 0.0) > level.ceiling


def _interval(evaluation: Evaluation) -> Iterator[Check]:
    half_width = evaluation.average.token_weighted.cross_entropy.half_width
    if half_width is None:
        yield Check("wide_loss_interval", "care", "no interval: too few images to tell")
    elif half_width > WIDE:
        words = f"the interval of the cross-entropy is ± {half_width:.2f} nats: use more images"
        yield Check("wide_loss_interval", "care", words)
    else:
        yield Check("wide_loss_interval", "ok", "interval narrow")


def _precision(evaluation: Evaluation) -> Iterator[Check]:
    """Compare what the generator's precision costs with the interval of the cross-entropy."""
    record, name = evaluation.model_precision_check, evaluation.model.precision
    if record is None:
        return
    cost = record.cross_entropy_difference_token_weighted
    half_width = evaluation.average.token_weighted.cross_entropy.half_width
    if half_width is not None and abs(cost) <= PRECISION_SHARE * half_width:
        yield Check("model_precision", "ok", f"{name} model as good as {record.reference}")
        return
    words = f"{name} moves the cross-entropy by {cost:+.2g} nats on the first {record.images:,} images"
    if half_width is not None:
        words += f", over a tenth of its interval, ± {half_width:.2g}"
    yield Check("model_precision", "care", words)


def class_is_worth_too_much(evaluation: Evaluation) -> bool:
    """Return whether the class is worth more than it can be to a model of the true densities."""
    check, classes = evaluation.labels.check, evaluation.model.classes
    if check is None or classes is None or check.gain.value is None or check.gain.se is None:
        return False
    return check.gain.value - 2 * check.gain.se > math.log(classes)
