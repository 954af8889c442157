"""Early stopping: end a run before all images are read, once the estimate is precise enough."""

from collections.abc import Sequence

from torch import Tensor

from entropy_cli.entropy.quantity import MIN_IMAGES, MIN_IMAGES_PER_GROUP, HistoryPoint
from entropy_cli.entropy.summary import assignment_averages

CHECKS_IN_A_ROW = 2  # a single check passes too often by chance: the standard error has an error itself


def history_point(entropy_GS: Tensor, images_G: Tensor, tokens_S: Tensor) -> HistoryPoint:
    """Return the current estimate; the arguments are those of `assignment_averages`."""
    value_A, half_width_A = assignment_averages(entropy_GS, images_G, tokens_S)
    half_widths = [None, None] if half_width_A is None else [half_width_A[0], half_width_A.max()]
    first, widest = (None if width is None else width.item() for width in half_widths)
    return HistoryPoint(int(images_G.sum()), value_A[0].item(), first, widest)


def target_reached(target: float, history: Sequence[HistoryPoint], images_G: Tensor) -> bool:
    """Return whether to stop: the last checks met the target, on enough images to trust them.

    Args:
        target: the largest allowed half-width of the three averages' 95 % intervals, in nats.
        history: the checks so far, in order.
        images_G: images in each jackknife group at the last check.
    """
    last = history[-CHECKS_IN_A_ROW:]
    enough = images_G.sum() >= MIN_IMAGES and images_G.min() >= MIN_IMAGES_PER_GROUP
    narrow = [point.widest is not None and point.widest <= target for point in last]
    return bool(enough) and len(last) == CHECKS_IN_A_ROW and all(narrow)
