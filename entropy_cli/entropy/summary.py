"""Estimates from a tally: every quantity at every scale and on average, with its standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entropy_cli.entropy.bias import Point
from entropy_cli.entropy.held_out import bracket, checked, held_out_nats
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile, variance_at_a_stop
from entropy_cli.entropy.point_estimates import NAMES, jackknife_replicates, point_estimates
from entropy_cli.entropy.quantity import AVERAGES, ONE_GROUP, QUANTITIES, Bracket, Cluster, Estimate
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.vocabulary import Vocabulary

ROUNDING = 1e-5  # nats


@dataclass(frozen=True)
class Summary:
    """The estimates of one temperature.

    Attributes:
        scales: for each scale, the estimates by quantity.
        averages: for each of AVERAGES, the estimates by quantity.
        brackets_S: for each scale, the bracket of the unigram entropy; None where there is none.
        brackets: for each of AVERAGES, likewise.
        replicates: for each quantity, its plug-in values with each group deleted, (G, S), NaN where
            undefined; empty with fewer than two groups of images.
    """

    scales: list[dict[str, Estimate]]
    averages: dict[str, dict[str, Estimate]]
    brackets_S: list[Bracket | None]
    brackets: dict[str, Bracket | None]
    replicates: dict[str, Tensor]


def summarise(
    tally: Tally,
    vocabularies: Sequence[Vocabulary],
    temperature: int = 0,
    cluster: Cluster = "image",
    *,
    stopped_early: bool = False,
) -> Summary:
    """Estimate every quantity from the sums of at least one image.

    Args:
        tally: a tally on the CPU.
        vocabularies: the codes of each scale.
        temperature: the index of one of the tally's T temperatures.
        cluster: what the groups keep together.
        stopped_early: whether the assignment entropy's intervals at the first temperature decided that
            these are all the images, see `variance_at_a_stop`.
    """
    several = (tally.images_G > 0).sum() >= 2
    replicates = jackknife_replicates(tally, vocabularies, temperature) if several else {}
    covariance_SS = covariance_over_images(
        tally.entropy_GST[..., 0].sum(0), tally.entropy_products_SS, tally.images_G, tally.tokens_S
    )
    points = point_estimates(tally, vocabularies, temperature, replicates, cluster)
    nats_GS = held_out_nats(tally, vocabularies)

    def held_out(weight_S: Tensor) -> Bracket | None:
        plug_in = _average(points["unigram_entropy"], weight_S).plug_in
        largest = float(weight_S @ log_V_S)
        return bracket(plug_in, nats_GS, tally.tokens_S, tally.images_G, weight_S, largest, cluster)

    def estimate(name: str, weight_S: Tensor) -> Estimate:
        point = _average(points[name], weight_S)
        variance = None
        if replicates and point.plug_in is not None:
            used_S = weight_S > 0
            deleted_G = replicates[name][:, used_S] @ weight_S[used_S]
            plug_in = np.asarray(point.plug_in)
            images_G = tally.images_G.numpy()
            variances = jackknife_variance(plug_in, deleted_G.numpy(), images_G, cluster)
            is_watched = stopped_early and name == "assignment_entropy" and temperature == 0
            if is_watched and cluster == "image":  # images of a folder are not independent
                over_images = (weight_S @ covariance_SS @ weight_S).numpy()
                variances = variance_at_a_stop(variances, over_images, images_G)
            variance = float(variances)
        point = checked(point, held_out(weight_S) if name == "unigram_entropy" else None, variance)
        log_V = float(weight_S @ log_V_S)
        largest = {"varentropy": math.inf, "usage": 1.0}.get(name, log_V)
        # More images can only show more codes.
        least = point.value if name == "usage" and point.value is not None else 0.0
        return with_error(point, variance, tally.images_G, least=least, largest=largest)

    S = len(tally.tokens_S)
    log_V_S = torch.tensor([math.log(v.size) for v in vocabularies], dtype=torch.float64)
    one_scale_SS = torch.eye(S, dtype=torch.float64)
    weights = average_weights(tally.tokens_S)
    return Summary(
        scales=[{name: estimate(name, one_scale_SS[s]) for name in NAMES} for s in range(S)],
        averages={key: {name: estimate(name, weights[key]) for name in NAMES} for key in AVERAGES},
        brackets_S=[held_out(one_scale_SS[s]) for s in range(S)],
        brackets={key: held_out(weights[key]) for key in AVERAGES},
        replicates={name: replicates[name] for name in QUANTITIES if replicates},
    )


def average_weights(tokens_S: Tensor) -> dict[str, Tensor]:
    """Return the weight of each scale in each of AVERAGES, float64 (S,)."""
    last_S = torch.zeros(len(tokens_S), dtype=torch.float64)
    last_S[-1] = 1
    return {
        "token_weighted": tokens_S.double() / tokens_S.sum(),
        "over_scales": torch.full_like(last_S, 1 / len(tokens_S)),
        "last_scale": last_S,
    }


def standard_errors_over_images(tally: Tally) -> list[float | None]:
    """Return the standard error of each scale's assignment entropy from its variance over images.

    In nats, at the first temperature, to check the jackknife's; None for a single image.
    """
    entropy_S, several = tally.entropy_GST[..., 0].sum(0), int(tally.images_G.sum()) > 1
    covariance_SS = covariance_over_images(
        entropy_S, tally.entropy_products_SS, tally.images_G, tally.tokens_S
    )
    errors = covariance_SS.diagonal().clamp(min=0).sqrt().tolist()
    return [error if several else None for error in errors]


def covariance_over_images(
    entropy_S: Tensor, products_SS: Tensor, images_G: Tensor, tokens_S: Tensor
) -> Tensor:
    """Return the covariance of the scales' assignment entropies from the variation over images.

    Args:
        entropy_S: sums over tokens, in nats, float64.
        products_SS: sums over images of the products of an image's mean entropies.
        images_G: images in each group; at least one image in total.
        tokens_S: tokens of an image at each scale.
    """
    M = images_G.sum()
    mean_S = entropy_S / (M * tokens_S)
    return (products_SS / M - torch.outer(mean_S, mean_S)) / (M - 1).clamp(min=1)


def _average(points: list[Point], weight_S: Tensor) -> Point:
    """Average over scales; with a single weight above 0, return that scale's own point."""
    used = [(point, w) for point, w in zip(points, weight_S.tolist(), strict=True) if w]
    if len(used) == 1:
        return used[0][0]
    value, plug_in, unseen = 0.0, 0.0, 0.0
    for point, w in used:
        if point.value is None or point.plug_in is None:
            return Point(None, None, "", point.note)
        value, plug_in = value + w * point.value, plug_in + w * point.plug_in
        unseen += w * point.unseen
    bounds = [s for s, point in enumerate(points) if point.note]
    estimators = dict.fromkeys(point.estimator for point, _ in used)
    return Point(
        value=value,
        plug_in=plug_in,
        estimator="average of: " + "; ".join(estimators),
        note=f"a lower bound: undersampled at scale {', '.join(map(str, bounds))}" if bounds else None,
        unseen=unseen,
    )


def with_error(
    point: Point,
    variance: float | None,
    images_G: Tensor,
    *,
    least: float = 0.0,
    largest: float = math.inf,
) -> Estimate:
    """Combine a point estimate and its jackknife variance into an estimate with an interval.

    Args:
        point: the estimate; beyond the largest value it can be by rounding alone.
        variance: None if the images fall into fewer than two groups.
        images_G: images in each group.
        least: the least value that the quantity can have, where the interval ends.
        largest: the largest, likewise.
    """
    value, plug_in, estimator, note, _ = point
    if value is not None and largest < value < largest + ROUNDING:
        value = largest  # as of float32 logarithms
    if value is None:
        return Estimate(None, None, None, None, estimator, note)
    if variance is None:
        note = "; ".join(filter(None, [note, ONE_GROUP]))
        return Estimate(value, plug_in, None, None, estimator, note)
    se = variance**0.5
    half_width = t_quantile(int((images_G > 0).sum()) - 1) * se
    ci95 = None if note else (max(least, value - half_width), min(largest, value + half_width))
    return Estimate(value, plug_in, se, ci95, estimator, note)
