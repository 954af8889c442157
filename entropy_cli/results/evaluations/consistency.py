"""Check that the losses of an evaluation that was read fit each other and its estimate."""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, TypedDict

from entropy_cli.results.consistency import (
    MOST_LOSS,
    ROUNDING,
    check_estimates,
    check_replicates,
    part_of,
    require,
)

if TYPE_CHECKING:
    from entropy_cli.results.evaluation import Evaluation, Losses, SoftLosses

KNOWN = ("cross_entropy", "accuracy_top1", "accuracy_top5", "predictive_entropy")  # of every model
SIGNED = ("reducible", "gain")
MOST_EXTREMES = 100
TOLERANCE = 1e-6  # relative, of sums that are computed again


class ModelOrigin(TypedDict, total=False):
    """The keys of the provenance that are about the model."""

    model: str | None
    model_notes: list[str]


def check_evaluation(evaluation: "Evaluation") -> None:
    """Check lengths, signs and ranges of what an evaluation adds to its estimate.

    Raises:
        ValueError: naming the path of the first part that no evaluation writes.
    """
    estimate, model, labels = evaluation.estimate, evaluation.model, evaluation.labels
    scales = len(estimate.scales)
    check_estimates(evaluation)
    require(len(evaluation.temperatures) == len(estimate.temperatures), "temperatures", "all losses")
    for path, losses in _parts(evaluation):
        _check_losses(path, losses, math.log(estimate.tokenizer.vocab_size))
    for name in ("parameters", "width", "depth", "heads", "classes"):
        number = getattr(model, name)
        require(number is None or number > 0, f"model.{name}", "at least 1")
    require(labels.classes_seen > 0, "labels.classes_seen", "at least 1")
    if labels.check is not None:
        require(labels.check.images > 0, "labels.check.images", "at least 1")
    part_of(estimate.provenance, ModelOrigin, "provenance")
    several = sum(n > 0 for n in estimate.replicates["images"]) > 1
    check_replicates(estimate, "cross_entropy", required=several)
    if (check := evaluation.model_precision_check) is not None:
        path = "model_precision_check.cross_entropy_difference"
        require(len(check.cross_entropy_difference) == scales, path, f"{scales} numbers")
    _check_total(evaluation)
    if (extremes := evaluation.extremes) is not None:
        for name in ("worst", "best"):
            path, images = f"extremes.{name}", getattr(extremes, name)
            require(len(images) <= MOST_EXTREMES, path, f"at most {MOST_EXTREMES}")
            require(all(image.nats >= 0 for image in images), path, "numbers of nats from 0")


def _parts(evaluation: "Evaluation") -> "Iterator[tuple[str, SoftLosses]]":
    for s, losses in enumerate(evaluation.scales):
        yield f"scales[{s}]", losses
    for name, average in evaluation.average.items():
        yield f"average.{name}", average
    for t, at in enumerate(evaluation.temperatures):
        require(len(at.scales) == len(evaluation.scales), f"temperatures[{t}].scales", "all losses")
        for s, soft in enumerate(at.scales):
            yield f"temperatures[{t}].scales[{s}]", soft
        for name, soft in at.average.items():
            yield f"temperatures[{t}].average.{name}", soft


def _check_losses(path: str, losses: "SoftLosses | Losses", largest: float) -> None:
    """Check that a part has the losses of every model, and that all are in their range."""
    for name in (field.name for field in fields(losses)):
        value, where = getattr(losses, name).value, f"{path}.{name}.value"
        require(value is not None or name not in KNOWN, where, "a number")
        low, high = 0.0, float(MOST_LOSS)
        if name in SIGNED:
            low = -high
        elif name.startswith("accuracy"):
            high = 1.0
        elif name == "predictive_entropy":
            high = largest
        elif name == "perplexity":
            low, high = 1.0, math.inf
        fits = value is None or low - ROUNDING <= value <= high + ROUNDING
        require(fits, where, f"a number from {low:g} to {high:g}")


def _check_total(evaluation: "Evaluation") -> None:
    """Check that the totals are those of the cross-entropy."""
    estimate, total = evaluation.estimate, evaluation.total
    tokens, size = sum(scale.tokens for scale in estimate.scales), estimate.settings.image_size
    nats = tokens * evaluation.average.token_weighted.cross_entropy.known
    require(_equal(total.nats_per_image, nats), "total.nats_per_image", f"{nats:.6g}, of all tokens")
    per_pixel = None if size is None else nats / math.log(2) / size**2
    fits = _equal(total.bits_per_pixel, per_pixel)
    require(fits, "total.bits_per_pixel", "the bits of all tokens by the pixels")


def _equal(value: float | None, expected: float | None) -> bool:
    if value is None or expected is None:
        return value is expected
    return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
