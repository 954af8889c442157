"""Estimates from the hard tokens of all scales together, for scales that share one codebook."""

from typing import NamedTuple

import numpy as np
import torch

from entropy_cli.entropy.bias import COVERAGE_FOR_ANY, LARGEST_CORRECTION, Point, bounded, coverage
from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.jackknife import jackknife_variance, jackknifed
from entropy_cli.entropy.quantity import UNDERSAMPLED, Estimate, perplexity
from entropy_cli.entropy.summary import with_error
from entropy_cli.entropy.tally import Tally


class PooledEstimates(NamedTuple):
    """The unigram entropy in nats per token, its perplexity, and the share of codes seen."""

    unigram_entropy: Estimate
    perplexity: Estimate
    usage: Estimate


def pool(tally: Tally, codes: int) -> PooledEstimates:
    """Estimate from the counts of all scales added up.

    The tokens of one image are correlated across scales too, and no sum of squares was kept for them
    together, so that the bias is corrected by the jackknife over groups of images.

    Args:
        tally: a tally of at least one image, on the CPU, whose scales share `codes` counted codes.
        codes: number of codes V.
    """
    count_GV = tally.counts_GSE[:, :, :codes].sum(1)
    count_V = count_GV.sum(0)
    used = tally.images_G > 0
    several = int(used.sum()) >= 2
    plug_in, usage = entropy(count_V).item(), (count_V > 0).double().mean().item()
    covered = coverage(count_V) >= COVERAGE_FOR_ANY
    unigram = bounded(plug_in, None, "", codes)
    variances: list[float | None] = [None, None]
    if several:
        without_GV = count_V - count_GV
        deleted_G2 = torch.stack([entropy(without_GV), (without_GV > 0).double().mean(1)], 1).numpy()
        images_G, value_2 = tally.images_G.numpy(), np.array([plug_in, usage])
        variances = jackknife_variance(value_2, deleted_G2, images_G).tolist()
        correction = float(jackknifed(value_2, deleted_G2, images_G)[0]) - plug_in
        if covered and abs(correction) <= LARGEST_CORRECTION:
            unigram = bounded(plug_in, correction, "delete-a-group jackknife", codes)
    seen = Point(usage, usage, "codes seen", None if covered else UNDERSAMPLED)
    estimate = with_error(unigram, variances[0], tally.images_G, largest=float(np.log(codes)))
    return PooledEstimates(
        estimate,
        perplexity(estimate),
        with_error(seen, variances[1], tally.images_G, least=usage, largest=1.0),
    )
