"""The unigram entropy between plug-in and held-out, and errors over folders: laws, by simulation."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from entropy_cli.entropy.held_out import FOLDS, bracket, code_lengths
from entropy_cli.entropy.quantity import BETWEEN
from entropy_cli.entropy.stopping import history_point
from entropy_cli.entropy.summary import summarise
from entropy_cli.entropy.vocabulary import Vocabulary
from tests.reference import empty_tally

G, SEEDS = 32, 200


def plain_code_lengths(count_GV):
    """Absolute discounting, each fold by the others, code by code."""
    V, nats = len(count_GV[0]), []
    for g, own in enumerate(count_GV):
        others = [row for h, row in enumerate(count_GV) if h % FOLDS != g % FOLDS]
        n = [sum(row[k] for row in others) for k in range(V)]
        once, twice, seen = n.count(1), n.count(2), sum(x > 0 for x in n)
        d = min(0.99, max(0.01, once / (once + 2 * twice))) if once + twice else 0.5
        p = [(max(x - d, 0) + d * seen / V) / sum(n) if sum(n) else 1 / V for x in n]
        assert sum(p) == pytest.approx(1)
        nats.append(-math.fsum(c * math.log(q) for c, q in zip(own, p, strict=True)))
    return nats


def test_code_lengths_are_those_of_the_other_folds():
    count_GV = np.random.default_rng(0).poisson(3 / np.arange(1, 13), (11, 12))
    assert code_lengths(count_GV) == pytest.approx(plain_code_lengths(count_GV.tolist()), abs=1e-9)
    own_GV = np.eye(4, 5, dtype=np.int64)  # no group has the code of another
    assert code_lengths(own_GV) == pytest.approx([math.log(5)] * 4)


def test_the_bracket_of_an_average_is_that_of_its_sum():
    nats_GS = np.array([[6.0, 30.0], [3.0, 10.0], [0.0, 0.0], [4.0, 21.0]])
    images_G, tokens_S = torch.tensor([4, 2, 0, 3]), torch.tensor([1, 4])
    given = (tokens_S, images_G, torch.tensor([0.2, 0.8]))
    found = bracket(1.0, nats_GS, *given, largest=9.0)
    mean_G = [0.2 * a + 0.8 * b / 4 for a, b in nats_GS.tolist()]  # of a group's images together
    value = sum(mean_G) / 9
    variance = 0.0
    for m, x in ((4, mean_G[0]), (2, mean_G[1]), (3, mean_G[3])):
        variance += (x / m - value) ** 2 / (9 / m - 1) / 3
    assert (found.plug_in, found.held_out) == (1.0, pytest.approx(value))
    assert found.se == pytest.approx(math.sqrt(variance))
    assert found.upper95 == pytest.approx(value + 2.919986 * found.se)  # t of 2 degrees, one-sided
    assert bracket(1.0, nats_GS, *given, largest=1.0).upper95 == 1.0
    nats_GS[0, 0] = np.nan  # codes too many to count
    assert bracket(1.0, nats_GS, *given, largest=9.0) is None


class Law(NamedTuple):
    """Codes are drawn ~ k^-power, each coming so many times in a row."""

    power: float
    codes: int
    images: int
    tokens: int
    repeats: int = 1


def tally_of(idx_Ml, group_M, codes):
    """The sums of images at a temperature so low that q is the nearest code."""
    M, tokens = idx_Ml.shape
    tally = empty_tally(G, [tokens], 1, codes)
    tally.images_G += torch.bincount(torch.from_numpy(group_M), minlength=G)
    key, count = np.unique(np.arange(M)[:, None] * codes + idx_Ml, return_counts=True)
    image, code = np.divmod(key, codes)
    np.add.at(tally.counts_GSE[:, 0].numpy(), (group_M[image], code), count)
    np.add.at(tally.count_squares_SE[0].numpy(), code, count**2)
    tally.soft_GSTE[:, :, 0] = tally.counts_GSE
    tally.soft_squares_STE[:, 0] = tally.count_squares_SE / tokens**2
    return tally


@pytest.mark.slow
@pytest.mark.parametrize(
    "law, given",
    [
        (Law(1.5, 8192, 1000, 64), "none"),  # most of the tail is never seen
        (Law(1.5, 8192, 400, 256, 16), "none"),
        (Law(1.0, 1024, 1000, 64, 8), "none"),
        (Law(2.0, 4096, 1000, 64), "none"),
        (Law(1.0, 1024, 1000, 16), "none"),  # seen, but the correction is too large
        (Law(1.0, 256, 1000, 64), "all"),
        (Law(0.5, 1024, 400, 64), "all"),
        (Law(1.0, 32, 400, 1), "all"),
        (Law(1.0, 64, 200, 64, 4), "all"),
    ],
)
def test_an_interval_covers_or_there_is_none(law, given):
    p_V = np.arange(1.0, law.codes + 1) ** -law.power
    p_V /= p_V.sum()
    truth, cumulated_V = -(p_V * np.log(p_V)).sum(), np.cumsum(p_V)
    inside, ends, is_above = {"unigram_entropy": [], "marginal_entropy": []}, [], []
    for seed in range(SEEDS):
        generator = np.random.default_rng(seed)
        drawn = generator.random((law.images, law.tokens // law.repeats))
        idx_Ml = np.searchsorted(cumulated_V, drawn).clip(max=law.codes - 1).repeat(law.repeats, 1)
        tally = tally_of(idx_Ml, generator.integers(G, size=law.images), law.codes)
        found = summarise(tally, [Vocabulary(law.codes)])
        for name, covers in inside.items():
            estimate = found.scales[0][name]
            if estimate.ci95 is not None:
                covers.append(estimate.ci95[0] <= truth <= estimate.ci95[1])
        unigram, between = found.scales[0]["unigram_entropy"], found.brackets_S[0]
        assert unigram.ci95 is not None or unigram.value == unigram.plug_in == between.plug_in
        assert unigram.ci95 is not None or "lower bound" in unigram.note
        ends.append((between.plug_in, between.held_out))
        is_above.append(between.upper95 >= truth)
    low, high = np.mean(ends, 0)
    assert low < truth < high and np.mean(is_above) >= 0.93
    if given == "none":
        assert max(map(len, inside.values())) <= 0.03 * SEEDS
        return
    for covers in inside.values():
        assert len(covers) > 0.95 * SEEDS and 0.915 <= np.mean(covers) <= 0.985


def test_a_wide_bracket_is_a_bound():
    p_V = 1 / np.arange(1, 1025)
    idx_Ml = np.random.default_rng(1).choice(1024, (1000, 16), p=p_V / p_V.sum())
    summary = summarise(tally_of(idx_Ml, np.arange(1000) % G, 1024), [Vocabulary(1024)])
    unigram = summary.scales[0]["unigram_entropy"]
    assert unigram.note == BETWEEN and unigram.bound == "lower" and unigram.ci95 is None
    assert summary.brackets["last_scale"] == summary.brackets_S[0]


@pytest.mark.slow
@pytest.mark.parametrize("folders, spread", [(10, 0.0), (100, 0.0), (40, 0.6)])
def test_intervals_over_folders_cover_what_folders_are_a_sample_of(folders, spread):
    """Of images alike in a folder (ICC .15, about 48 images): by image about half, by folder 95 %."""
    covered = {"image": 0, "folder": 0}
    runs = 600
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        size_F = np.rint(48 * np.exp(spread * generator.standard_normal(folders))).astype(int) + 1
        folder_M = np.repeat(np.arange(folders), size_F)
        noise_M = generator.standard_normal(len(folder_M)) * 0.85**0.5
        entropy_M = 5 + (generator.standard_normal(folders) * 0.15**0.5)[folder_M] + noise_M
        by_folder_M = generator.integers(G, size=folders)[folder_M]
        products_SS, tokens_S = torch.full((1, 1), (entropy_M**2).sum()), torch.ones(1).long()
        for cluster, group_M in (
            ("image", generator.integers(G, size=len(folder_M))),
            ("folder", by_folder_M),
        ):
            sum_GS = torch.from_numpy(np.bincount(group_M, entropy_M, minlength=G))[:, None]
            images_G = torch.from_numpy(np.bincount(group_M, minlength=G))
            point = history_point(sum_GS, products_SS, images_G, tokens_S, cluster)
            covered[cluster] += abs(point.value - 5) <= (point.half_width or math.inf)
    assert covered["image"] / runs < 0.6
    assert 0.925 <= covered["folder"] / runs <= 0.975


def test_unigrams_of_folders_are_corrected_by_groups():
    """Images of a folder that are all alike: the correction is that of so many folders, not images."""
    generator = np.random.default_rng(0)
    row_Fl = generator.binomial(15, 0.5, size=(32, 64))
    tally = tally_of(row_Fl.repeat(20, 0), np.arange(32).repeat(20), 16)
    one_each = tally_of(row_Fl, np.arange(32), 16)
    by_folder = summarise(tally, [Vocabulary(16)], cluster="folder").scales[0]
    expected = summarise(one_each, [Vocabulary(16)], cluster="folder").scales[0]
    for name in ("unigram_entropy", "marginal_entropy"):
        found = by_folder[name]
        assert found.estimator == "delete-a-group jackknife"
        assert found.value == pytest.approx(expected[name].value) and found.value > found.plug_in
        assert found.ci95 == pytest.approx(expected[name].ci95)
    by_image = summarise(tally, [Vocabulary(16)]).scales[0]["unigram_entropy"]
    gain = (by_folder["unigram_entropy"].value - by_image.plug_in) / (by_image.value - by_image.plug_in)
    assert gain == pytest.approx(20, rel=0.15)
