"""Entropies, their bias corrections and Good-Turing coverage, against plain arithmetic."""

import math

import pytest
import torch

from entropy_cli.entropy.bias import (
    clustered_correction,
    coverage,
    estimate_marginal,
    estimate_unigram,
    grassberger,
    miller_madow,
)
from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.quantity import UNDERSAMPLED


def plain_entropy(weights):
    total = math.fsum(weights)
    return -math.fsum(w / total * math.log(w / total) for w in weights if w)


def plain_correction(x_iV):
    """Half the sum of the between-image variance of the mean over the mean, image by image."""
    M, V = len(x_iV), len(x_iV[0])
    total = 0.0
    for k in range(V):
        mean = math.fsum(x[k] for x in x_iV) / M
        if mean:
            variance = math.fsum((x[k] - mean) ** 2 for x in x_iV) / (M - 1) / M
            total += variance / mean
    return total / 2


@pytest.mark.parametrize("V", [1, 2, 4096, 16384])
def test_uniform_is_the_log_of_the_number(V):
    assert entropy(torch.ones(V)).item() == pytest.approx(math.log(V), abs=1e-12)


def test_one_hot_is_exactly_zero():
    assert entropy(torch.tensor([0.0, 7.0, 0.0])).item() == 0.0


def test_agrees_with_plain_arithmetic_and_works_on_rows():
    torch.manual_seed(0)
    weight_RV = torch.rand(3, 50).pow(8)
    expected = [plain_entropy(row) for row in weight_RV.tolist()]
    assert entropy(weight_RV).tolist() == pytest.approx(expected, abs=1e-12)


def test_clustered_correction_agrees_with_plain_arithmetic():
    torch.manual_seed(1)
    x_iV = torch.rand(9, 20).double().pow(5)
    x_iV = x_iV / x_iV.sum(1, keepdim=True)
    x_iV[:, 3] = 0  # a code never used
    got = clustered_correction(x_iV.mean(0), x_iV.square().sum(0), 9)
    assert got == pytest.approx(plain_correction(x_iV.tolist()), abs=1e-12)


def test_clustered_correction_of_one_token_an_image_is_miller_and_madows():
    torch.manual_seed(2)
    M = 4000
    count_V = torch.bincount(torch.randint(12, (M,)), minlength=12)
    got = clustered_correction(count_V.double() / M, count_V, M)
    assert got == pytest.approx(miller_madow(count_V) - entropy(count_V).item(), rel=2 / M)


def test_grassberger_and_coverage_agree_with_their_definition():
    def psi(x):  # by recurrence and asymptotic series
        shift = 0.0
        while x < 30:
            shift, x = shift - 1 / x, x + 1
        return shift + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4)

    counts = [8, 4, 2, 1, 1, 0, 23]
    N = sum(counts)
    G = math.fsum(n * (psi(n) + 0.5 * (-1) ** n * (psi((n + 1) / 2) - psi(n / 2))) for n in counts if n)
    assert grassberger(torch.tensor(counts)) == pytest.approx(math.log(N) - G / N, abs=1e-9)


@pytest.mark.parametrize("scales", [1, 2])
def test_coverage_goes_by_images_not_by_tokens(scales):
    """Code 1 is of one image, however often it is there; code 3 is of two, code 4 of one at a scale."""
    counts_iSV = torch.tensor([[[5, 7, 0, 1, 0], [9, 0, 0, 3, 1]], [[8, 0, 0, 1, 4], [3, 0, 0, 10, 0]]])[
        :, :scales
    ]
    count_SV, squares_SV = counts_iSV.sum(0), counts_iSV.square().sum(0)
    alone = 7 + 4 + (scales == 2)  # codes 1 and 4
    assert coverage(count_SV, squares_SV) == pytest.approx(1 - alone / int(counts_iSV.sum()))
    huge = torch.tensor([[2**33, 2**33]])  # whose square is beyond 64 bits
    assert coverage(huge, huge * 2**20) == 1


def unigram_of(count_iV):
    count_iV = torch.as_tensor(count_iV)
    return estimate_unigram(count_iV.sum(0), count_iV.square().sum(0), len(count_iV))


def test_well_covered_hard_tokens_are_corrected_by_the_clustered_estimator():
    count_iV = torch.tensor([[40, 30, 15, 10, 5], [45, 26, 14, 11, 4]]).repeat(25, 1)
    point = unigram_of(count_iV)
    x_iV = (count_iV.double() / count_iV.sum(1, keepdim=True)).tolist()
    assert point.estimator == "clustered Miller-Madow" and point.note is None
    assert point.value - point.plug_in == pytest.approx(plain_correction(x_iV), abs=1e-12)


def test_grassberger_takes_over_where_coverage_is_middling():
    # 100 images of one token: 3 codes seen once, coverage 0.97
    count_V = [37, 30, 20, 10, 1, 1, 1, 0, 0, 0, 0, 0]
    rows = [v for v, n in enumerate(count_V) for _ in range(n)]
    point = unigram_of(torch.nn.functional.one_hot(torch.tensor(rows), 12))
    assert point.estimator.startswith("Grassberger") and point.note is None
    clustering = (
        plain_correction([[float(v == row) for v in range(12)] for row in rows]) - 6 / 200
    )  # Miller-Madow's, 7 codes seen
    expected = grassberger(torch.tensor(count_V)) + clustering
    assert point.value == pytest.approx(expected, abs=1e-12)


def test_a_large_correction_of_hard_tokens_is_not_applied():
    count_iV = torch.tensor([[90, 10], [10, 90], [80, 20]])  # covered, but images differ too much
    point = unigram_of(count_iV)
    assert point.note == UNDERSAMPLED and point.value == point.plug_in
    # The same where coverage is middling: what the images' difference adds is not Grassberger's.
    point = unigram_of(torch.tensor([[9, 1, 0], [1, 9, 0], [8, 1, 1]]))
    assert point.note == UNDERSAMPLED and point.value == point.plug_in


@pytest.mark.parametrize(
    "rows",
    [
        list(range(20)),  # every token its own code: coverage 0
        [0],  # a single image
        [0] * 90 + list(range(1, 11)),  # coverage 0.9
    ],
)
def test_undersampled_hard_tokens_are_a_bound(rows):
    point = unigram_of(torch.nn.functional.one_hot(torch.tensor(rows), 20))
    assert point.note == UNDERSAMPLED and point.value == point.plug_in


def test_a_correction_beyond_ln_v_is_not_applied():
    count_iV = torch.eye(4, dtype=torch.int64).repeat(25, 1)  # uniform to the last count
    point = unigram_of(count_iV)
    assert point.value == point.plug_in == pytest.approx(math.log(4)) and point.note == UNDERSAMPLED


def test_a_large_correction_of_a_soft_marginal_is_not_applied():
    x_iV = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]]).double()
    mean_V, squares_V = x_iV.mean(0), x_iV.square().sum(0)
    assert clustered_correction(mean_V, squares_V, 3) > 0.05
    point = estimate_marginal(mean_V, squares_V, 3, covered=1.0)
    assert point.value == point.plug_in and point.note == UNDERSAMPLED


def test_a_poorly_covered_soft_marginal_is_not_corrected():
    x_iV = torch.tensor([[0.6, 0.4, 0.0], [0.59, 0.4, 0.01]]).double()
    mean_V, squares_V = x_iV.mean(0), x_iV.square().sum(0)
    assert estimate_marginal(mean_V, squares_V, 2, covered=0.949).note == UNDERSAMPLED
    assert estimate_marginal(mean_V, squares_V, 2, covered=0.951).note is None
