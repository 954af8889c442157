"""Point estimates of each scale from a tally, and the same with each group of images deleted."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from entropy_cli.entropy.bias import (
    COVERAGE_FOR_ANY,
    Point,
    coverage,
    estimate_by_groups,
    estimate_marginal,
    estimate_unigram,
)
from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.quantity import QUANTITIES, TOO_MANY, UNDERSAMPLED, Cluster
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.vocabulary import Vocabulary

BOUND = "marginal_entropy_bound"  # sum of the dimensions' entropies, an upper bound of the marginal
ENTROPIES = ("marginal_entropy", "unigram_entropy")  # of averages, which few images make too low
NAMES = (*QUANTITIES, "usage", BOUND)
NO_PRODUCT = "the codes are not combinations of bits or levels"


def point_estimates(
    tally: Tally,
    vocabularies: Sequence[Vocabulary],
    t: int,
    replicates: Mapping[str, Tensor],
    cluster: Cluster = "image",
) -> dict[str, list[Point]]:
    """Estimate every quantity in NAMES at every scale.

    Args:
        tally: the sums.
        vocabularies: the codes of each scale.
        t: the number of a temperature.
        replicates: from `jackknife_replicates`; none for fewer than two groups.
        cluster: what the groups keep together; the images of a folder are no independent draws.
    """
    by_scale = []
    for s, vocabulary in enumerate(vocabularies):
        deleted = None
        if cluster == "folder":
            nothing_G = torch.full_like(tally.images_G, torch.nan, dtype=torch.float64)
            deleted = {name: replicates[name][:, s] if replicates else nothing_G for name in ENTROPIES}
        by_scale.append(_scale_estimates(tally, vocabulary, s, t, deleted))
    return {name: [estimates[name] for estimates in by_scale] for name in NAMES}


def _scale_estimates(
    tally: Tally, vocabulary: Vocabulary, s: int, t: int, deleted: Mapping[str, Tensor] | None
) -> dict[str, Point]:
    total = int(tally.images_G.sum()) * int(tally.tokens_S[s])
    conditional = tally.entropy_GST[:, s, t].sum().item() / total
    varentropy = tally.varentropy_GST[:, s, t].sum().item() / total
    estimates = {
        "assignment_entropy": Point(conditional, conditional, "mean over tokens"),
        "varentropy": Point(varentropy, varentropy, "mean over tokens"),
        BOUND: Point(None, None, "", NO_PRODUCT),
    }
    if vocabulary.levels is not None:
        bound = dimension_entropies(tally.soft_GSTE[:, s, t].sum(0), vocabulary).sum().item()
        estimates[BOUND] = Point(bound, bound, "sum of the dimensions' entropies, plug-in")
    if vocabulary.counted:
        return estimates | _counted(tally, vocabulary, s, t, conditional, deleted)
    names = ("marginal_entropy", "mutual_information", "unigram_entropy", "usage")
    return estimates | dict.fromkeys(names, Point(None, None, "", TOO_MANY))


def _counted(
    tally: Tally,
    vocabulary: Vocabulary,
    s: int,
    t: int,
    conditional: float,
    deleted: Mapping[str, Tensor] | None,
) -> dict[str, Point]:
    codes, images = slice(vocabulary.size), int(tally.images_G.sum())
    count_GV, count_squares_V = tally.counts_GSE[:, s, codes], tally.count_squares_SE[s, codes]
    count_V = count_GV.sum(0)
    covered = share_covered(tally, slice(s, s + 1), codes, "image" if deleted is None else "folder")
    soft_GV, squares_V = tally.soft_GSTE[:, s, t, codes], tally.soft_squares_STE[s, t, codes]
    if deleted is None:
        marginal = estimate_marginal(soft_GV.sum(0), squares_V, images, covered)
        unigram = estimate_unigram(count_V, count_squares_V, images)
    else:
        marginal, unigram = (
            estimate_by_groups(sum_GV, deleted[name], tally.images_G, covered)
            for name, sum_GV in zip(ENTROPIES, (soft_GV, count_GV), strict=True)
        )
    usage = (count_V > 0).double().mean().item()
    few = None if covered >= COVERAGE_FOR_ANY else UNDERSAMPLED
    value, plug_in, estimator, note, unseen = marginal
    assert value is not None and plug_in is not None
    name = f"marginal ({estimator}) minus assignment entropy"
    return {
        "marginal_entropy": marginal,
        "mutual_information": Point(value - conditional, plug_in - conditional, name, note, unseen),
        "unigram_entropy": unigram,
        "usage": Point(usage, usage, "codes seen", few),
    }


def share_covered(tally: Tally, scales: slice, codes: slice, cluster: Cluster) -> float:
    """Return the `coverage` of some scales' codes by images, or by groups if these hold folders."""
    count_GSV = tally.counts_GSE[:, scales, codes]
    by_images_SV = tally.count_squares_SE[scales, codes]
    squares_SV = by_images_SV if cluster == "image" else count_GSV.square().sum(0)
    return coverage(count_GSV.sum(0), squares_SV)


def dimension_entropies(soft_XE: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Return the entropy of each dimension of a product of levels, (..., C) in nats.

    Args:
        soft_XE: sums for each code if codes are counted, else for each level.
        vocabulary: a vocabulary with levels, the most significant dimension first.
    """
    levels = vocabulary.levels
    assert levels is not None
    soft_XE = soft_XE[..., : vocabulary.entries]
    if vocabulary.counted and len(levels) > 1:
        grid_XLs, dims = torch.unflatten(soft_XE, -1, levels), range(-len(levels), 0)
        parts = [grid_XLs.sum([d for d in dims if d != c]) for c in dims]
    else:
        parts = list(torch.split(soft_XE, list(levels), dim=-1))
    return torch.stack([entropy(part) for part in parts], dim=-1)


def jackknife_replicates(tally: Tally, vocabularies: Sequence[Vocabulary], t: int) -> dict[str, Tensor]:
    """Return plug-in values with each group of images deleted, (G, S) per name; NaN where undefined."""

    def without_G(sum_G: Tensor) -> Tensor:
        return (sum_G.sum(0) - sum_G).clamp(min=0)  # rounding may leave -1e-17 of a group's own code

    tokens_GS = without_G(tally.images_G)[:, None] * tally.tokens_S
    conditional_GS = without_G(tally.entropy_GST[..., t]) / tokens_GS
    marginal_GS, unigram_GS, usage_GS, bound_GS = (
        torch.full_like(conditional_GS, torch.nan) for _ in range(4)
    )
    for s, vocabulary in enumerate(vocabularies):
        soft_GE = without_G(tally.soft_GSTE[:, s, t, : vocabulary.entries])
        if vocabulary.levels is not None:
            bound_GS[:, s] = dimension_entropies(soft_GE, vocabulary).sum(1)
        if vocabulary.counted:
            count_GV = without_G(tally.counts_GSE[:, s, : vocabulary.size])
            marginal_GS[:, s] = entropy(soft_GE)
            unigram_GS[:, s] = entropy(count_GV)
            usage_GS[:, s] = (count_GV > 0).double().mean(1)
    return {
        "assignment_entropy": conditional_GS,
        "marginal_entropy": marginal_GS,
        "mutual_information": marginal_GS - conditional_GS,
        "unigram_entropy": unigram_GS,
        "varentropy": without_G(tally.varentropy_GST[..., t]) / tokens_GS,
        "usage": usage_GS,
        BOUND: bound_GS,
    }
