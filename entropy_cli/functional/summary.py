"""From a tally to estimates: every quantity at every scale and on average, with its error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.functional.entropy import entropy
from entropy_cli.functional.estimators import (
    COVERAGE_FOR_ANY,
    Point,
    coverage,
    estimate_marginal,
    estimate_unigram,
)
from entropy_cli.functional.jackknife import jackknife_variance, t_quantile
from entropy_cli.functional.quantity import ONE_GROUP, QUANTITIES, UNDERSAMPLED, Estimate
from entropy_cli.functional.tally import Tally

AVERAGES = ("token_weighted", "over_scales", "last_scale")


@dataclass(frozen=True)
class Summary:
    """The estimates of one temperature.

    Attributes:
        scales: per scale, estimates by quantity.
        averages: per kind of average, estimates by quantity.
        deleted: per quantity, its plug-in values with each group deleted, (G, S); empty with fewer
            than two groups of images.
    """

    scales: list[dict[str, Estimate]]
    averages: dict[str, dict[str, Estimate]]
    deleted: dict[str, Tensor]


def summarise(tally: Tally, temperature: int = 0) -> Summary:
    """Estimate every quantity from the sums of at least one image.

    Args:
        tally: on the CPU.
        temperature: which of the tally's T temperatures.
    """
    points = _points(tally, temperature)
    several = (tally.images_G > 0).sum() >= 2
    deleted = _deleted(tally, temperature) if several else {}

    def estimate(name: str, weight_S: Tensor) -> Estimate:
        point = _average(points[name], weight_S)
        variance = None
        if deleted:
            plug_in = torch.tensor(point.plug_in, dtype=torch.float64)
            variance = jackknife_variance(plug_in, deleted[name] @ weight_S, tally.images_G).item()
        return _with_error(point, variance, tally.images_G)

    names = [*QUANTITIES, "usage"]
    S = len(tally.tokens_S)
    one_scale_SS = torch.eye(S, dtype=torch.float64)
    weights = _weights(tally.tokens_S)
    return Summary(
        scales=[{name: estimate(name, one_scale_SS[s]) for name in names} for s in range(S)],
        averages={of: {name: estimate(name, weights[of]) for name in names} for of in AVERAGES},
        deleted={name: deleted[name] for name in QUANTITIES if deleted},
    )


def assignment_averages(
    entropy_GS: Tensor, images_G: Tensor, tokens_S: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The assignment entropy's averages alone, cheap enough to watch.

    Args:
        entropy_GS: sums over tokens, in nats, float64.
        images_G: images in each group; at least one image in all.
        tokens_S: tokens of an image.

    Returns:
        The averages in the order of AVERAGES, and the half-widths of their 95 % intervals; None with
        fewer than two groups of images.
    """
    weight_SA = torch.stack(list(_weights(tokens_S).values()), dim=1)

    def averages(entropy_XS: Tensor, images_X: Tensor) -> Tensor:
        return entropy_XS / (images_X[..., None] * tokens_S) @ weight_SA

    value_A = averages(entropy_GS.sum(0), images_G.sum())
    used = int((images_G > 0).sum())
    if used < 2:
        return value_A, None
    deleted_GA = averages(entropy_GS.sum(0) - entropy_GS, images_G.sum() - images_G)
    return value_A, t_quantile(used - 1) * jackknife_variance(value_A, deleted_GA, images_G).sqrt()


def _weights(tokens_S: Tensor) -> dict[str, Tensor]:
    """Weight of each scale in each of AVERAGES."""
    last_S = torch.zeros(len(tokens_S), dtype=torch.float64)
    last_S[-1] = 1
    return {
        "token_weighted": tokens_S.double() / tokens_S.sum(),
        "over_scales": torch.full_like(last_S, 1 / len(tokens_S)),
        "last_scale": last_S,
    }


def spread_over_images(tally: Tally) -> list[float | None]:
    """Standard error of each scale's assignment entropy from its spread over images, in nats.

    A check of the jackknife's, at the first temperature; None for a single image.
    """
    M = int(tally.images_G.sum())
    mean_S = tally.entropy_GST[..., 0].sum(0) / (M * tally.tokens_S)
    variance_S = (tally.entropy_squares_ST[:, 0] / M - mean_S.square()).clamp(min=0) / max(1, M - 1)
    return [error if M > 1 else None for error in variance_S.sqrt().tolist()]


def _points(tally: Tally, t: int) -> dict[str, list[Point]]:
    """Point estimates per quantity and scale, S long each."""
    images = int(tally.images_G.sum())
    points: dict[str, list[Point]] = {name: [] for name in [*QUANTITIES, "usage"]}
    for s, tokens in enumerate(tally.tokens_S.tolist()):
        count_V = tally.counts_GSV[:, s].sum(0)
        covered = coverage(count_V)
        unigram = estimate_unigram(count_V, tally.count_squares_SV[s], images)
        marginal = estimate_marginal(
            tally.soft_GSTV[:, s, t].sum(0),
            tally.soft_squares_STV[s, t],
            images,
            covered,
        )
        total = images * tokens
        conditional = tally.entropy_GST[:, s, t].sum().item() / total
        varentropy = tally.varentropy_GST[:, s, t].sum().item() / total
        usage = (count_V > 0).double().mean().item()
        unseen = None if covered >= COVERAGE_FOR_ANY else UNDERSAMPLED
        points["assignment_entropy"].append(Point(conditional, conditional, "mean over tokens"))
        points["marginal_entropy"].append(marginal)
        points["mutual_information"].append(
            Point(
                marginal.value - conditional,
                marginal.plug_in - conditional,
                f"marginal ({marginal.estimator}) minus assignment entropy",
                marginal.note,
            )
        )
        points["unigram_entropy"].append(unigram)
        points["varentropy"].append(Point(varentropy, varentropy, "mean over tokens"))
        points["usage"].append(Point(usage, usage, "codes seen", unseen))
    return points


def _deleted(tally: Tally, t: int) -> dict[str, Tensor]:
    """Plug-in values with each group of images deleted, (G, S) per quantity."""

    def without_G(sum_G: Tensor) -> Tensor:
        return (sum_G.sum(0) - sum_G).clamp(min=0)  # rounding may leave -1e-17 of a group's own code

    tokens_GS = without_G(tally.images_G)[:, None] * tally.tokens_S
    conditional_GS = without_G(tally.entropy_GST[..., t]) / tokens_GS
    marginal_GS = torch.empty_like(conditional_GS)
    unigram_GS = torch.empty_like(conditional_GS)
    usage_GS = torch.empty_like(conditional_GS)
    for s in range(len(tally.tokens_S)):
        count_GV = without_G(tally.counts_GSV[:, s])
        marginal_GS[:, s] = entropy(without_G(tally.soft_GSTV[:, s, t]))
        unigram_GS[:, s] = entropy(count_GV)
        usage_GS[:, s] = (count_GV > 0).double().mean(1)
    return {
        "assignment_entropy": conditional_GS,
        "marginal_entropy": marginal_GS,
        "mutual_information": marginal_GS - conditional_GS,
        "unigram_entropy": unigram_GS,
        "varentropy": without_G(tally.varentropy_GST[..., t]) / tokens_GS,
        "usage": usage_GS,
    }


def _average(points: list[Point], weight_S: Tensor) -> Point:
    """Weighted average over scales; of a single scale, that scale's own point."""
    used = [(point, w) for point, w in zip(points, weight_S.tolist(), strict=True) if w]
    if len(used) == 1:
        return used[0][0]
    bounds = [s for s, point in enumerate(points) if point.note]
    estimators = dict.fromkeys(point.estimator for point, _ in used)
    return Point(
        value=sum(point.value * w for point, w in used),
        plug_in=sum(point.plug_in * w for point, w in used),
        estimator="average of: " + "; ".join(estimators),
        note=f"a lower bound: undersampled at scale {', '.join(map(str, bounds))}" if bounds else None,
    )


def _with_error(point: Point, variance: float | None, images_G: Tensor) -> Estimate:
    """Turn a point estimate and its jackknife variance into an estimate with an interval."""
    value, plug_in, estimator, note = point
    if variance is None:
        note = "; ".join(filter(None, [note, ONE_GROUP]))
        return Estimate(value, plug_in, None, None, estimator, note)
    se = variance**0.5
    half_width = t_quantile(int((images_G > 0).sum()) - 1) * se
    ci95 = None if note else (value - half_width, value + half_width)
    return Estimate(value, plug_in, se, ci95, estimator, note)
