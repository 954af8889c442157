"""Jackknife errors, averages and notes, against a recomputation that deletes the images for real."""

import math

import numpy as np
import pytest
import torch

from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.jackknife import jackknife_variance, t_quantile
from entropy_cli.entropy.quantity import ONE_GROUP, QUANTITIES, Estimate, perplexity
from entropy_cli.entropy.stopping import history_point
from entropy_cli.entropy.summary import (
    AVERAGES,
    standard_errors_over_images,
    summarise,
)
from entropy_cli.entropy.vocabulary import Vocabulary
from tests.reference import empty_tally

TOKENS, V, G, T = (1, 4, 9), 10, 5, 2
VOCABULARIES = [Vocabulary(V)] * 3
NORMAL = 1.959964  # half-width of the central 95 %


def random_sums(images, seed=0, vocab_size=V):
    """ImageSums of three scales, with vectors clustered so that few codes are dominant."""
    torch.manual_seed(seed)
    codebook = Codebook(torch.randn(vocab_size, 3).double(), "l2")
    shift_B1C = torch.randn(images, 1, 3).double()
    return [
        assign(torch.randn(images, n, 3).double() / 2 + shift_B1C, codebook, (1.0, 0.3)) for n in TOKENS
    ]


def tally_of(sums, group_B, keep=None):
    tally = empty_tally(G, TOKENS, T, V)
    keep = torch.arange(len(group_B)) if keep is None else keep
    picked = [
        type(s)(s.tokens, **{k: v[keep] for k, v in vars(s).items() if isinstance(v, torch.Tensor)})
        for s in sums
    ]
    tally.add(group_B[keep], picked)
    return tally


def plug_in(tally, name, kind):
    summary = summarise(tally, VOCABULARIES, 0)
    of = summary.scales[kind] if isinstance(kind, int) else summary.averages[kind]
    return of[name].plug_in


@pytest.mark.parametrize(
    "degrees, expected", [(1, 12.7062), (2, 4.3027), (5, 2.5706), (31, 2.0395), (120, 1.9799)]
)
def test_t_quantile_agrees_with_published_tables(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, abs=5e-5)


def test_jackknife_of_a_mean_of_equal_groups_is_the_textbook_error():
    torch.manual_seed(0)
    x_GI = torch.rand(8, 3).double()
    deleted_G = (x_GI.sum() - x_GI.sum(1)) / 21
    variance = jackknife_variance(x_GI.mean().numpy(), deleted_G.numpy(), np.full(8, 3))
    assert variance.item() == pytest.approx(x_GI.mean(1).var().item() / 8, rel=1e-12)


def test_empty_groups_are_left_out():
    deleted_G = np.array([1.0, 2.0, math.nan, 4.0])
    value = np.float64(2.4)
    images_G = np.array([2, 2, 0, 1])
    without = np.array([0, 1, 3])
    assert jackknife_variance(value, deleted_G, images_G).item() == pytest.approx(
        jackknife_variance(value, deleted_G[without], images_G[without]).item()
    )


@pytest.mark.parametrize("kind", [0, 1, 2, "token_weighted", "over_scales", "last_scale"])
def test_errors_agree_with_deleting_the_images_for_real(kind):
    images = 40
    sums = random_sums(images)
    group_B = torch.arange(images) % 4  # group 4 stays empty
    group_B[:7] = 0  # unequal groups
    full = tally_of(sums, group_B)
    summary = summarise(full, VOCABULARIES, 0)
    of = summary.scales[kind] if isinstance(kind, int) else summary.averages[kind]
    for name in (*QUANTITIES, "usage"):
        value = plug_in(full, name, kind)
        sizes = [int((group_B == g).sum()) for g in range(4)]
        deleted = [
            plug_in(tally_of(sums, group_B, (group_B != g).nonzero()[:, 0]), name, kind)
            for g in range(4)
        ]
        n = sum(sizes)
        jackknifed = 4 * value - sum((1 - m / n) * d for m, d in zip(sizes, deleted, strict=True))
        variance = 0.0
        for m, d in zip(sizes, deleted, strict=True):
            h = n / m
            variance += (h * value - (h - 1) * d - jackknifed) ** 2 / (h - 1) / 4
        estimate = of[name]
        assert estimate.plug_in == pytest.approx(value)
        assert estimate.se == pytest.approx(math.sqrt(variance), rel=1e-6)
        if estimate.note is None:
            half = 3.182446 * estimate.se  # t with 3 degrees of freedom
            largest = {"varentropy": math.inf, "usage": 1.0}.get(name, math.log(V))
            least = estimate.value if name == "usage" else 0  # more images only show more codes
            ends = max(least, estimate.value - half), min(largest, estimate.value + half)
            assert estimate.ci95 == pytest.approx(ends, rel=1e-6)
        if isinstance(kind, int) and name in QUANTITIES:
            assert summary.replicates[name][:4, kind].tolist() == pytest.approx(deleted)


def test_the_jackknife_agrees_with_the_spread_over_images():
    images = 3200
    sums = random_sums(images)
    tally = empty_tally(32, TOKENS, T, V)
    tally.add(torch.arange(images) % 32, sums)
    spread_S = standard_errors_over_images(tally)
    for s, scale in enumerate(summarise(tally, VOCABULARIES).scales):
        means_B = sums[s].entropy_BT[:, 0] / TOKENS[s]
        assert spread_S[s] == pytest.approx((means_B.std() / math.sqrt(images)).item(), rel=1e-9)
        assert scale["assignment_entropy"].se == pytest.approx(spread_S[s], rel=0.35)


def test_averages_weigh_as_they_say():
    tally = tally_of(random_sums(30), torch.arange(30) % G)
    summary = summarise(tally, VOCABULARIES, 1)
    for name in QUANTITIES:
        values = [scale[name].value for scale in summary.scales]
        averages = {kind: of[name].value for kind, of in summary.averages.items()}
        assert averages["over_scales"] == pytest.approx(sum(values) / 3)
        assert averages["last_scale"] == values[-1]
        weighted = sum(n * x for n, x in zip(TOKENS, values, strict=True)) / sum(TOKENS)
        assert averages["token_weighted"] == pytest.approx(weighted)


def test_bounds_hold_for_every_temperature():
    tally = tally_of(random_sums(60), torch.arange(60) % G)
    for t in range(T):
        for scale in summarise(tally, VOCABULARIES, t).scales:
            A, M = scale["assignment_entropy"].value, scale["marginal_entropy"]
            assert 0 <= A <= M.plug_in <= math.log(V)
            assert scale["mutual_information"].value == pytest.approx(M.value - A)
            assert scale["varentropy"].value >= 0
            assert 0 < scale["usage"].value <= 1
    cold, warm = (
        summarise(tally, VOCABULARIES, t).scales[0]["assignment_entropy"].value for t in (1, 0)
    )
    assert cold <= warm


def test_one_group_gives_values_without_errors():
    tally = tally_of(random_sums(5), torch.zeros(5, dtype=torch.int64))
    summary = summarise(tally, VOCABULARIES)
    assert summary.replicates == {}
    estimates = summary.averages["token_weighted"]
    assert estimates.pop("marginal_entropy_bound").value is None  # of bits and levels alone
    for estimate in estimates.values():
        assert estimate.se is None and estimate.ci95 is None and ONE_GROUP in estimate.note
    point = history_point(*tally.watched)
    assert point.half_width is None and point.widest is None and point.images == 5


def test_an_average_over_an_undersampled_scale_is_a_bound():
    tally = tally_of(random_sums(60), torch.arange(60) % G)
    tally.counts_GSE[:, 0] = torch.eye(G, V)  # every image its own code
    tally.count_squares_SE[0] = tally.counts_GSE[:, 0].square().sum(0)
    summary = summarise(tally, VOCABULARIES)
    assert summary.scales[0]["unigram_entropy"].bound
    average = summary.averages["over_scales"]["unigram_entropy"]
    assert average.bound and average.ci95 is None and "0" in average.note
    # Of codes too: those seen may be few of those that are used.
    of_scale, of_average = summary.scales[0]["usage"], summary.averages["over_scales"]["usage"]
    assert of_scale.bound == of_average.bound == "lower" and of_scale.ci95 is None
    assert not summary.scales[2]["usage"].bound


def test_watching_the_entropy_agrees_with_the_summary():
    tally = tally_of(random_sums(50), torch.arange(50) % G)
    averages = summarise(tally, VOCABULARIES).averages
    stopped = summarise(tally, VOCABULARIES, stopped_early=True).averages
    half_width = averages["token_weighted"]["assignment_entropy"].half_width
    widths = [stopped[kind]["assignment_entropy"].half_width for kind in AVERAGES]
    point = history_point(*tally.watched)
    assert point.images == 50
    assert point.value == pytest.approx(averages["token_weighted"]["assignment_entropy"].value)
    assert (point.half_width, point.widest) == pytest.approx((half_width, max(widths)))


@pytest.mark.parametrize("alike", [False, True])
def test_the_interval_at_a_stop_is_the_wider_of_two(alike):
    """That over groups where the images of a group are alike; else that over images."""
    images = 32 * 20
    sums = random_sums(images)
    group_M = torch.arange(images) % 32
    if alike:
        shift_M = torch.randn(32, generator=torch.Generator().manual_seed(1))[group_M]
        for image in sums:
            image.entropy_BT.add_(0.5 * image.tokens * shift_M[:, None])
    tally = empty_tally(32, TOKENS, T, V)
    tally.add(group_M, sums)
    weight_S = torch.tensor(TOKENS).double() / sum(TOKENS)
    mean_M = sum(w * of.entropy_BT[:, 0] / of.tokens for w, of in zip(weight_S, sums, strict=True))
    over_images = NORMAL * (mean_M.std() / math.sqrt(images)).item()
    found = []
    for stopped_early in (False, True):
        average = summarise(tally, VOCABULARIES, stopped_early=stopped_early).averages
        found.append(average["token_weighted"]["assignment_entropy"].half_width)
    assert found[1] == pytest.approx(max(found[0], over_images), rel=1e-6)
    assert (found[0] > 2 * over_images) == alike


def test_groups_of_folders_alone_decide_a_stop():
    """The images of every folder are the same five, so that only the images vary."""
    tally, sums = empty_tally(G, TOKENS, T, V), random_sums(5)
    for group in range(G):
        tally.add(torch.full((5,), group), sums)
    widths = {}
    for cluster in ("image", "folder"):
        stopped = summarise(tally, VOCABULARIES, cluster=cluster, stopped_early=True).averages
        found = [stopped[kind]["assignment_entropy"].half_width for kind in AVERAGES]
        widths[cluster] = max(found), history_point(*tally.watched, cluster).widest
    assert widths["image"][1] == pytest.approx(widths["image"][0]) and widths["image"][0] > 0.01
    assert widths["folder"] == pytest.approx((0, 0), abs=1e-7)


def test_perplexity_carries_value_and_interval_over():
    summary = summarise(tally_of(random_sums(400), torch.arange(400) % G), VOCABULARIES)
    unigram = summary.scales[2]["unigram_entropy"]
    got = perplexity(unigram)
    assert got.value == math.exp(unigram.value) and got.ci95 == tuple(map(math.exp, unigram.ci95))
    assert got.se == pytest.approx(got.value * unigram.se)


def test_the_half_width_is_that_before_the_interval_was_cut():
    for value, ends, half_width in ((0.1, (0.0, 0.4), 0.3), (2.0, (1.5, math.log(8)), 0.5)):
        estimate = Estimate(value, value, 0.1, ends, "mean over tokens")
        assert estimate.half_width == pytest.approx(half_width)


def test_tallies_add_up_in_any_order_and_zero_is_neutral():
    sums, group_B = random_sums(24), torch.arange(24) % G
    parts = [tally_of(sums, group_B, torch.arange(i, i + 8)) for i in (0, 8, 16)]
    a, b, c = parts
    whole = tally_of(sums, group_B)
    zero = empty_tally(G, TOKENS, T, V)
    for name, tensor in whole.state_dict().items():
        exact = tensor.dtype == torch.int64
        tolerance = 0 if exact else 1e-12
        for total in ((a + b) + c, a + (b + c), (c + a) + b):
            torch.testing.assert_close(total.state_dict()[name], tensor, rtol=tolerance, atol=tolerance)
        assert torch.equal((a + b).state_dict()[name], (b + a).state_dict()[name])
        assert torch.equal((a + zero).state_dict()[name], a.state_dict()[name])
    with pytest.raises(ValueError, match="different scales"):
        a + empty_tally(G, (1, 4), T, V)


def test_counts_pass_the_largest_float32_integer():
    tally = tally_of(random_sums(2), torch.tensor([0, 1]))
    tally.counts_GSE[0, 0, 0] = 2**24
    assert int((tally + tally).counts_GSE[0, 0, 0] + 1) == 2**25 + 1


def test_squares_are_of_the_means_over_an_images_tokens():
    sums = random_sums(12)
    tally = tally_of(sums, torch.arange(12) % G)
    for s, (image, tokens) in enumerate(zip(sums, TOKENS, strict=True)):
        for of, square_X in (
            (image.soft_BTE / tokens, tally.soft_squares_STE[s]),
            (image.entropy_BT[:, :1] / tokens, tally.entropy_products_SS[s, s : s + 1]),
            (image.counts_BE, tally.count_squares_SE[s]),
        ):
            expected_X = sum(one_X.double() ** 2 for one_X in of)
            torch.testing.assert_close(square_X.double(), expected_X, rtol=1e-12, atol=0)
