"""Estimates from the hard tokens of all scales together, for scales that share one codebook."""

import math
from typing import NamedTuple

import numpy as np
import torch

from entropy_cli.entropy.bias import COVERAGE_FOR_ANY, Point, estimate_by_groups
from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.held_out import bracket, checked, code_lengths
from entropy_cli.entropy.jackknife import jackknife_variance
from entropy_cli.entropy.point_estimates import share_covered
from entropy_cli.entropy.quantity import UNDERSAMPLED, Cluster, Estimate, perplexity
from entropy_cli.entropy.summary import with_error
from entropy_cli.entropy.tally import Tally


class PooledEstimates(NamedTuple):
    """The unigram entropy in nats per token, its perplexity, and the share of codes seen."""

    unigram_entropy: Estimate
    perplexity: Estimate
    usage: Estimate


def pool(tally: Tally, codes: int, cluster: Cluster = "image") -> PooledEstimates:
    """Estimate from the counts of all scales added up.

    The tokens of one image are correlated across scales too, and no sum of squares was kept for them
    together, so that the bias is corrected by the jackknife over groups of images.

    Args:
        tally: a tally of at least one image, on the CPU, whose scales share `codes` counted codes.
        codes: number of codes V.
        cluster: what the groups keep together.
    """
    count_GV = tally.counts_GSE[:, :, :codes].sum(1)
    count_V = count_GV.sum(0)
    used = tally.images_G > 0
    several = int(used.sum()) >= 2
    plug_in, usage = entropy(count_V).item(), (count_V > 0).double().mean().item()
    covered = share_covered(tally, slice(None), slice(codes), cluster)
    without_GV = count_V - count_GV
    deleted_G2 = torch.stack([entropy(without_GV), (without_GV > 0).double().mean(1)], 1)
    unigram = estimate_by_groups(count_GV, deleted_G2[:, 0], tally.images_G, covered)
    variances: list[float | None] = [None, None]
    if several:
        value_2 = np.array([plug_in, usage])
        images_G = tally.images_G.numpy()
        variances = jackknife_variance(value_2, deleted_G2.numpy(), images_G, cluster).tolist()
        tokens_1 = tally.tokens_S.sum(0, keepdim=True)
        nats_G1 = code_lengths(count_GV.numpy())[:, None]
        found = bracket(
            plug_in, nats_G1, tokens_1, tally.images_G, torch.ones(1), math.log(codes), cluster
        )
        unigram = checked(unigram, found, variances[0])
    seen = Point(usage, usage, "codes seen", None if covered >= COVERAGE_FOR_ANY else UNDERSAMPLED)
    estimate = with_error(unigram, variances[0], tally.images_G, largest=float(np.log(codes)))
    return PooledEstimates(
        estimate,
        perplexity(estimate),
        with_error(seen, variances[1], tally.images_G, least=usage, largest=1.0),
    )
