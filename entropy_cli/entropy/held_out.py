"""The held-out unigram: tokens coded by the frequencies of codes in other images.

The entropy of counts is too low for few images, the held-out code length too high; the unigram entropy
of all images lies between, in expectation.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from entropy_cli.entropy.bias import Point
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile
from entropy_cli.entropy.ladder.discounting import discount_of
from entropy_cli.entropy.quantity import BETWEEN, UNDERSAMPLED, Bracket, Cluster
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.vocabulary import Vocabulary

FOLDS = 8  # of groups; those of a fold are coded by the counts of the other folds
# Of a bracket, in nats or standard errors: in a wider one a correction can't be trusted.
NARROW, NARROW_ERRORS = 0.05, 4
# Of the unseen share, in standard errors in nats: what it hides is one to two nats for each token.
UNSEEN_ERRORS = 0.15


def code_lengths(count_GV: np.ndarray) -> np.ndarray:
    """Return the nats that code the tokens of each group, float64 (G,).

    Counts of the other folds are discounted and interpolated with 1/V, as in the unigram rung of the
    ladder; 1/V alone codes them all where that is shorter.
    """
    total_V, V = count_GV.sum(0), count_GV.shape[1]
    nats_G = np.zeros(len(count_GV))
    for fold in range(FOLDS):
        own_FV = count_GV[fold::FOLDS]
        count_V = total_V - own_FV.sum(0)
        p_V = np.full(V, 1 / V)
        if tokens := count_V.sum():
            discount = discount_of(count_V)
            p_V = (np.maximum(count_V - discount, 0) + discount * (count_V > 0).sum() / V) / tokens
        nats_G[fold::FOLDS] = own_FV @ -np.log(p_V)
    uniform_G = count_GV.sum(1) * np.log(V)
    return nats_G if nats_G.sum() < uniform_G.sum() else uniform_G


def held_out_nats(tally: Tally, vocabularies: Sequence[Vocabulary]) -> np.ndarray:
    """Return the `code_lengths` of every scale, (G, S); NaN where codes are too many to count."""
    nats_GS = np.full((len(tally.images_G), len(vocabularies)), np.nan)
    for s, vocabulary in enumerate(vocabularies):
        if vocabulary.counted:
            nats_GS[:, s] = code_lengths(tally.counts_GSE[:, s, : vocabulary.size].numpy())
    return nats_GS


def bracket(
    plug_in: float | None,
    nats_GS: np.ndarray,
    tokens_S: Tensor,
    images_G: Tensor,
    weight_S: Tensor,
    largest: float,
    cluster: Cluster = "image",
) -> Bracket | None:
    """Return the bracket of a weighted average over scales; None where there are no counts or errors.

    Args:
        plug_in: the average of the entropies of the counts.
        nats_GS: from `held_out_nats`.
        tokens_S: tokens of an image at each scale.
        images_G: images in each group.
        weight_S: the weight of each scale.
        largest: the average of ln V.
        cluster: what the groups keep together.
    """
    used_S = (weight_S > 0).numpy()
    if plug_in is None or (images_G > 0).sum() < 2 or np.isnan(nats_GS[:, used_S]).any():
        return None
    nats_G = nats_GS[:, used_S] @ (weight_S / tokens_S).double().numpy()[used_S]
    M_G = images_G.numpy()
    value = np.asarray(nats_G.sum() / M_G.sum())
    deleted_G = (nats_G.sum() - nats_G) / np.maximum(M_G.sum() - M_G, 1)
    se = float(jackknife_variance(value, deleted_G, M_G, cluster)) ** 0.5
    limit = float(value) + t_quantile(int((M_G > 0).sum()) - 1, 0.9) * se
    return Bracket(plug_in, float(value), se, min(limit, largest))


def checked(point: Point, found: Bracket | None, variance: float | None) -> Point:
    """Return an estimate as it is, or its plug-in value as a bound if the correction can't be trusted.

    Args:
        point: the estimate.
        found: the bracket around it, if it is of the unigram entropy.
        variance: of the estimate; None with fewer than two groups.
    """
    if point.note is not None or variance is None:
        return point
    se, gap = variance**0.5, 0.0 if found is None else found.held_out - found.plug_in
    if gap <= max(NARROW, NARROW_ERRORS * se) and point.unseen <= UNSEEN_ERRORS * se:
        return point
    note = UNDERSAMPLED if found is None else BETWEEN
    return Point(point.plug_in, point.plug_in, "plug-in", note)
