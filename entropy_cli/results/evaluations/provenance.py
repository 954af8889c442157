"""How an evaluation was made: its model and labels, beside what its estimate says, in words."""

from entropy_cli.results import provenance as of_estimate
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.summary import labels_text, size_text


def provenance(evaluation: Evaluation) -> dict[str, str]:
    """Return the inputs and settings of an evaluation, and how it was computed, by label."""
    model, labels = evaluation.model, evaluation.labels
    sizes = [
        size_text(model.parameters),
        "" if model.depth is None else f"{model.depth} blocks of width {model.width}",
        "" if model.heads is None else f"{model.heads} heads",
        "" if model.classes is None else f"{model.classes:,} classes",
    ]
    checkpoint = evaluation.estimate.provenance.get("model")
    sha256 = "" if model.checkpoint_sha256 is None else f" (sha256 {model.checkpoint_sha256[:16]}...)"
    where = "" if checkpoint is None else f"; {checkpoint}{sha256}"
    return {
        "model": f"{', '.join(filter(None, [model.family, *sizes]))}{where}, in {model.precision}"
        f"{_precision(evaluation)}",
        "labels": labels_text(labels.source, labels.classes_seen).removeprefix("labels "),
        **of_estimate.provenance(evaluation.estimate),
    }


def _precision(evaluation: Evaluation) -> str:
    """Return how much a model in less than float32 precision changes the cross-entropy."""
    check = evaluation.model_precision_check
    if check is None:
        return ""
    largest = max(map(abs, check.cross_entropy_difference))
    return (
        f", which against {check.reference} on the first {check.images} images moves the cross-entropy "
        f"by {check.cross_entropy_difference_token_weighted:+.1e} nats (at a scale by at most "
        f"{largest:.1e})"
    )
