"""Early stopping: end a run before all images are read, once the estimate is precise enough."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile, variance_at_a_stop
from entropy_cli.entropy.quantity import MIN_IMAGES, MIN_IMAGES_PER_GROUP, Cluster, HistoryPoint
from entropy_cli.entropy.summary import average_weights, covariance_over_images

CHECKS_IN_A_ROW = 2  # a single check passes too often by chance: the standard error has an error itself


def history_point(
    entropy_GS: Tensor,
    products_SS: Tensor,
    images_G: Tensor,
    tokens_S: Tensor,
    cluster: Cluster = "image",
) -> HistoryPoint:
    """Estimate the averages of the assignment entropy alone, cheap enough during a run.

    Args:
        entropy_GS: sums over tokens, in nats, float64.
        products_SS: sums over images of the products of an image's mean entropies.
        images_G: images in each group; at least one image in total.
        tokens_S: tokens of an image at each scale.
        cluster: what the groups keep together; with folders the jackknife alone decides.
    """
    weight_SA = torch.stack(list(average_weights(tokens_S).values()), dim=1)

    def averages(entropy_XS: Tensor, images_X: Tensor) -> Tensor:
        return entropy_XS / (images_X[..., None] * tokens_S) @ weight_SA

    total_S, M = entropy_GS.sum(0), images_G.sum()
    value_A = averages(total_S, M)
    used, half_width, widest = int((images_G > 0).sum()), None, None
    if used >= 2:
        deleted_GA = averages(total_S - entropy_GS, M - images_G).numpy()
        variance_A = jackknife_variance(value_A.numpy(), deleted_GA, images_G.numpy(), cluster)
        largest = variance_A.max()
        if cluster == "image":
            covariance_SS = covariance_over_images(total_S, products_SS, images_G, tokens_S)
            over_images_A = (weight_SA * (covariance_SS @ weight_SA)).sum(0).numpy()
            largest = variance_at_a_stop(variance_A, over_images_A, images_G.numpy()).max()
        half_width = t_quantile(used - 1) * math.sqrt(variance_A[0])
        widest = t_quantile(used - 1) * math.sqrt(largest)
    return HistoryPoint(int(M), value_A[0].item(), half_width, widest)


def target_reached(target: float, history: Sequence[HistoryPoint], images_G: Tensor) -> bool:
    """Return whether to stop: the last checks met the target, on enough images to trust them.

    Args:
        target: the largest allowed half-width of the three averages' 95 % intervals, in nats.
        history: the checks so far, in order.
        images_G: images in each jackknife group at the last check.
    """
    last = history[-CHECKS_IN_A_ROW:]
    enough = images_G.sum() >= MIN_IMAGES and images_G[images_G > 0].min() >= MIN_IMAGES_PER_GROUP
    narrow = [point.widest is not None and point.widest <= target for point in last]
    return bool(enough) and len(last) == CHECKS_IN_A_ROW and all(narrow)
