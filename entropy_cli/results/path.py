"""The path of a result's tokens: which labels its assignment entropy is a floor for."""

from entropy_cli.entropy.quantity import Labels
from entropy_cli.results.schema import Result
from entropy_cli.tokenizers.limits import INDEPENDENT_SCALES


def is_drawn(result: Result) -> bool:
    """Return whether the tokens were drawn from q; they are the nearest codes otherwise."""
    return result.settings.path == "drawn"


def subtracted(result: Result) -> str:
    """Return which codes are subtracted before the next scale; "" where none are.

    Given latents are as they are: which codes were subtracted from them is not known.
    """
    if is_drawn(result):
        return "drawn codes"
    several = len(result.scales) > 1 and result.settings.image_size is not None
    is_residual = several and result.tokenizer.family not in INDEPENDENT_SCALES
    return "nearest codes" if is_residual else ""


def labels_of(result: Result) -> Labels:
    """Return what the models whose labels are this result's tokens are trained on."""
    return "soft" if is_drawn(result) else result.tokenizer.labels


def is_on_other_path(result: Result) -> bool:
    """Return whether the tokenizer's models subtract drawn codes, and this result the nearest ones."""
    return result.tokenizer.labels == "soft" and subtracted(result) == "nearest codes"
