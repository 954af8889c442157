"""Notes on an evaluation: what its numbers are, and what they are not."""

import math

from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.checks import class_is_worth_too_much
from entropy_cli.results.notes import population
from entropy_cli.results.path import labels_of

OF_FAMILY = {
    "var": "VAR's log: L_mean is the token-weighted cross-entropy and L_tail that of the final scale, "
    "with a tenth of the labels dropped. Compare a log with `as_logged`: {logged}.",
    "llamagen-gpt": "The images are the tokenizer's own crop, not mirrored. LlamaGen logs no evaluation "
    "loss, and its training loss has dropout, a tenth of the labels dropped and one of ten crops: it is "
    "higher.",
}


def notes(evaluation: Evaluation) -> list[str]:
    """Return the notes that apply to an evaluation, the most important first."""
    estimate = evaluation.estimate
    return [
        *_floor(evaluation),
        *_class(evaluation),
        *_calibration(evaluation),
        *_family(evaluation),
        "The bits per pixel are the length of the tokens, not of the pixels: what the tokenizer leaves "
        "out costs nothing here. And a lower cross-entropy is no better picture: fine-tuning for "
        "guidance or preferences raises it.",
        *population(estimate),
        *evaluation.labels.notes,
        *estimate.provenance.get("model_notes", []),
        *estimate.provenance.get("checkpoint_notes", []),
        *estimate.provenance.get("codebook_notes", []),
    ]


def _floor(evaluation: Evaluation) -> list[str]:
    """Return what the assignment entropy is a floor of."""
    if evaluation.average.token_weighted.kl.value is None:
        return [
            "Soft loss and KL(q||p) are not known: they need latents, which saved tokens lack, and few "
            "enough codes to count."
        ]
    if labels_of(evaluation.estimate) == "soft":
        return [
            "Soft loss = H(q) + KL(q||p), and H(q) is its floor. The model was trained on tokens drawn "
            "from q or on q itself: KL(q||p) is what is left to learn."
        ]
    return [
        "Soft loss = H(q) + KL(q||p): H(q) is its floor. The model was trained on the nearest codes: "
        "their loss may lie below H(q), and the cross-entropy minus H(q) may be negative."
    ]


def _class(evaluation: Evaluation) -> list[str]:
    check, classes = evaluation.labels.check, evaluation.model.classes
    if check is None or check.gain.value is None or classes is None:
        return []
    if not class_is_worth_too_much(evaluation):
        return []
    return [
        f"The class is worth {check.gain.value:.0f} nats an image, more than ln {classes:,} = "
        f"{math.log(classes):.1f}: the null class is worse than a mixture of the others."
    ]


def _calibration(evaluation: Evaluation) -> list[str]:
    losses = evaluation.average.token_weighted
    cross, predicted = losses.cross_entropy, losses.predictive_entropy
    over = cross.known - predicted.known
    if abs(over) <= (cross.half_width or 0.0) + (predicted.half_width or 0.0):
        return []
    kind = "over" if over > 0 else "under"
    return [
        f"The model is {kind}confident: its cross-entropy is {abs(over):.3f} nats "
        f"{'above' if over > 0 else 'below'} the entropy H(p) of its own predictions."
    ]


def _family(evaluation: Evaluation) -> list[str]:
    logged = evaluation.average.token_weighted.as_logged
    text = OF_FAMILY.get(evaluation.model.family)
    if text is None or (evaluation.model.family == "var" and logged.value is None):
        return []
    return [text.format(logged="" if logged.value is None else f"{logged.value:.4f} here")]
