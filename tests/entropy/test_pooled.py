"""Estimates from the tokens of all scales together, beside the definition in plain Python."""

import math
from collections import Counter

import pytest
import torch

from entropy_cli.entropy.pooled import pool
from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.vocabulary import Vocabulary

V, TOKENS = 12, (1, 4, 9)


def tally_of(codes_MSl, groups, number_of_groups=6):
    """A tally that holds counts alone: lists of codes for each image and scale."""
    tally = Tally.zeros(SumsLayout(number_of_groups, TOKENS, (Vocabulary(V),) * len(TOKENS), 1))
    for image_Sl, g in zip(codes_MSl, groups, strict=True):
        tally.images_G[g] += 1
        for s, code_l in enumerate(image_Sl):
            for code, count in Counter(code_l).items():
                tally.counts_GSE[g, s, code] += count
                tally.count_squares_SE[s, code] += count**2
    return tally


def draw(images, seed=0):
    """Codes of images: skewed, so that some codes are rare."""
    generator = torch.Generator().manual_seed(seed)
    weight_V = torch.arange(1, V + 1).double() ** -1.0
    return [
        [torch.multinomial(weight_V, n, replacement=True, generator=generator).tolist() for n in TOKENS]
        for _ in range(images)
    ]


def plain_entropy(images):
    counts = Counter(code for image in images for code_l in image for code in code_l)
    total = sum(counts.values())
    return -math.fsum(n / total * math.log(n / total) for n in counts.values()), len(counts) / V


def test_pooled_estimates_are_the_definition():
    images = draw(90)
    groups = [(i * i) % 5 for i in range(90)]  # unequal, and group 5 stays empty
    found = pool(tally_of(images, groups), V)
    h, usage = plain_entropy(images)
    used = sorted(set(groups))
    jackknifed, variance = len(used) * h, 0.0
    sizes = {g: groups.count(g) / len(images) for g in used}
    deleted = {
        g: plain_entropy([image for image, of in zip(images, groups, strict=True) if of != g])[0]
        for g in used
    }
    jackknifed -= math.fsum((1 - sizes[g]) * deleted[g] for g in used)
    for g in used:
        pseudo = h / sizes[g] - (1 / sizes[g] - 1) * deleted[g]
        variance += (pseudo - jackknifed) ** 2 / (1 / sizes[g] - 1) / len(used)
    unigram = found.unigram_entropy
    assert unigram.plug_in == pytest.approx(h, abs=1e-12)
    assert unigram.value == pytest.approx(jackknifed, abs=1e-12) and unigram.value > h
    assert unigram.se == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert found.perplexity.value == pytest.approx(math.exp(jackknifed))
    assert found.usage.value == usage
    assert unigram.ci95[1] <= math.log(V) and found.usage.ci95[1] <= 1


def test_the_correction_is_the_bias_of_independent_tokens():
    corrections = []
    for seed in range(60):
        found = pool(tally_of(draw(20, seed), [i % 6 for i in range(20)]), V).unigram_entropy
        corrections.append(found.value - found.plug_in)
    tokens = 20 * sum(TOKENS)
    assert sum(corrections) / 60 == pytest.approx((V - 1) / (2 * tokens), rel=0.15)


def test_too_few_images_give_a_bound_and_no_interval():
    few = pool(tally_of([[[0], [1, 2, 3, 4], [5] * 9]], [0]), V)
    assert few.unigram_entropy.ci95 is None and few.unigram_entropy.bound == "lower"
    assert few.unigram_entropy.se is None and few.usage.ci95 is None
    assert few.usage.bound == "lower"


def test_poorly_covered_tokens_are_a_bound_however_small_the_correction():
    """All codes that were seen once are of one image: the jackknife hardly corrects for them."""
    images = [[[0], [1, 2, 3, 4], [*range(5, V), 0, 0]], *[[[0], [0] * 4, [0] * 9]] * 14]
    found = pool(tally_of(images, [i % 6 for i in range(15)]), V)
    h, _ = plain_entropy(images)
    assert found.unigram_entropy.value == found.unigram_entropy.plug_in == pytest.approx(h)
    assert found.unigram_entropy.bound == found.perplexity.bound == found.usage.bound == "lower"
    assert found.usage.value == 1 and found.unigram_entropy.ci95 is None
