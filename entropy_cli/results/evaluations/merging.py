"""The JSON of an evaluation: that of its estimate, with the losses among the estimates of each part."""

from collections.abc import Collection, Mapping
from typing import Any

# In a scale or an average of the file, perplexity is that of the cross-entropy, as in `loss`; the
# perplexity that `estimate` has there, of the unigram entropy, goes by this name.
RENAMED = "unigram_perplexity"
MARK = "assignment_entropy"  # is in every scale and average


def merge(estimate: Any, losses: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON of an estimate with the losses in every part."""
    if isinstance(estimate, dict) and isinstance(losses, dict):
        renamed = {_name(key, losses): part for key, part in estimate.items()}
        return renamed | {key: merge(estimate.get(key), part) for key, part in losses.items()}
    if isinstance(estimate, list):
        return [merge(*pair) for pair in zip(estimate, losses, strict=True)]
    return losses


def _name(key: str, losses: Mapping[str, Any]) -> str:
    return RENAMED if key == "perplexity" and key in losses else key


def divided(part: Any, names: Collection[str]) -> tuple[Any, Any]:  # noqa: ANN401 - JSON
    """Return the estimates and the losses of a part that holds both at some depth."""
    if isinstance(part, list):
        pairs = [divided(inner, names) for inner in part]
        return [estimates for estimates, _ in pairs], [losses for _, losses in pairs]
    if not isinstance(part, dict):
        return part, part
    if MARK in part:
        estimates = {key: inner for key, inner in part.items() if key not in names}
        if RENAMED in part:
            estimates["perplexity"] = estimates.pop(RENAMED)
        return estimates, {key: inner for key, inner in part.items() if key in names}
    pairs_by_key = {key: divided(inner, names) for key, inner in part.items()}
    return (
        {key: estimates for key, (estimates, _) in pairs_by_key.items()},
        {key: losses for key, (_, losses) in pairs_by_key.items() if isinstance(part[key], list | dict)},
    )
