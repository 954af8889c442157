"""The shared vectors of known values, those that concern the estimator."""

import json
import math

import numpy as np
import pytest
import torch

from entropy_cli.entropy.assign import assign, soft_assign, soft_statistics
from entropy_cli.entropy.bias import clustered_correction, coverage, grassberger, miller_madow
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.jackknife import jackknife_variance
from entropy_cli.entropy.summary import summarise
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.entropy.temperature import fit_temperature
from entropy_cli.entropy.vocabulary import Vocabulary
from tests.reference import empty_tally


@pytest.fixture
def vector(shared):
    vectors = json.loads((shared / "design" / "test_vectors.json").read_text())["vectors"]
    return {v["id"]: (v["input"], v["expected"], {"abs": v["atol"]}) for v in vectors}.__getitem__


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


def soft(z, codebook, temperature, rule="l2"):
    return assign(double(z)[:, None], Codebook(double(codebook), rule), (temperature,))


def test_two_codes(vector):
    given, expected, close = vector("soft_2code")
    sums = soft(given["z"], given["codebook"], given["tau"])
    assert sums.soft_BTE[0, 0, 0].item() == pytest.approx(expected["q0"], **close)
    assert sums.entropy_BT.item() == pytest.approx(expected["H"], **close)
    assert sums.varentropy_BT.item() == pytest.approx(expected["varentropy"], **close)
    assert sums.idx_Bl.item() == expected["argmin"]


def test_tie(vector):
    given, expected, close = vector("tie_midpoint")
    for temperature in given["tau"]:
        sums = soft(given["z"], given["codebook"], temperature)
        assert sums.entropy_BT.item() == pytest.approx(expected["H"], **close)
        assert sums.idx_Bl.item() == expected["argmin"]


def test_three_codes(vector):
    given, expected, close = vector("soft_3code_2d")
    logit_NV, norm_N = Codebook(double(given["codebook"]), "l2").logits(double(given["z"]))
    assert (norm_N - logit_NV)[0].tolist() == pytest.approx(expected["d"], **close)
    for temperature in given["tau"]:
        sums = soft(given["z"], given["codebook"], temperature)
        name = f"tau{temperature:g}"
        assert sums.entropy_BT.item() == pytest.approx(expected[f"H_{name}"], **close)
        assert sums.varentropy_BT.item() == pytest.approx(expected[f"varentropy_{name}"], **close)


@pytest.mark.parametrize("name", ["onehot_limit", "huge_shift"])
def test_extreme_distances(vector, name):
    given, expected, close = vector(name)
    at = torch.tensor([0]), double([given["tau"]])
    soft = soft_statistics(*soft_assign(-double(given["distances"]), *at), *at)
    assert soft.entropy_NT.item() == pytest.approx(expected["H"], **close)


def test_uniform(vector):
    given, expected, close = vector("uniform_4096")
    for V in given["V"]:
        assert entropy(torch.ones(V)).item() == pytest.approx(expected[f"H{V}"], **close)


@pytest.mark.parametrize("name", ["marginal_mi", "marginal_weighted"])
def test_marginal(vector, name):
    given, expected, close = vector(name)
    q_NV, weight_N = double(given["q"]), double(given["weights"])
    conditional = (entropy(q_NV) @ weight_N / weight_N.sum()).item()
    marginal = entropy(weight_N @ q_NV).item()
    assert conditional == pytest.approx(expected["EH"], **close)
    assert marginal == pytest.approx(expected["Hmarg"], **close)
    assert marginal - conditional == pytest.approx(expected["MI"], **close)


def test_histogram(vector):
    given, expected, close = vector("hard_hist")
    count_V = torch.tensor(given["counts"])
    assert entropy(count_V).item() == pytest.approx(expected["H"], **close)
    assert miller_madow(count_V) == pytest.approx(expected["miller_madow"], **close)
    assert grassberger(count_V) == pytest.approx(expected["grassberger"], **close)
    assert coverage(count_V[None], count_V[None]) == pytest.approx(
        expected["good_turing_coverage"], **close
    )


def tally_with_entropies(tokens_S, entropy_S):
    """One image of which every token has the entropy of its scale."""
    tally = empty_tally(2, tokens_S, 1, 2)
    one = torch.ones(1, dtype=torch.float64)
    sums = [
        ImageSums(
            tokens=n,
            idx_Bl=torch.zeros(1, n, dtype=torch.int64),
            entropy_BT=(one * n * H)[:, None],
            varentropy_BT=one[:, None],
            distance_BT=one[:, None],
            min_distance_B=one,
            soft_BTE=torch.full((1, 1, 2), n / 2).double(),
        )
        for n, H in zip(tokens_S, entropy_S, strict=True)
    ]
    tally.add(torch.tensor([0]), sums)
    return tally


@pytest.mark.parametrize("name", ["scale_average", "per_image_histogram_ceiling"])
def test_averages(vector, name):
    given, expected, close = vector(name)
    tokens_S = [n * n for n in given["patch_nums"]]
    entropy_S = given.get("per_scale") or [math.log(n) for n in tokens_S]
    averages = summarise(
        tally_with_entropies(tokens_S, entropy_S), [Vocabulary(2)] * len(tokens_S)
    ).averages
    for kind, word in (
        ("token_weighted", "token_weighted"),
        ("over_scales", "unweighted"),
        ("last_scale", "last"),
    ):
        wanted = expected.get(word, expected.get(f"{word}_mean"))
        assert averages[kind]["assignment_entropy"].value == pytest.approx(wanted, **close)


def test_pooling_is_not_averaging(vector):
    given, expected, close = vector("pooled_scales")
    q_SV, n_S = double(given["q"]), double(given["n"])
    share_S = n_S / n_S.sum()
    mean, pool = (share_S @ entropy(q_SV)).item(), entropy(share_S @ q_SV).item()
    assert mean == pytest.approx(expected["mean_of_H"], **close)
    assert pool == pytest.approx(expected["H_of_pool"], **close)


def test_cosine(vector):
    given, expected, close = vector("cosine")
    sums = soft(given["z"], given["codebook"], given["tau"], "cosine")
    logit_NV, norm_N = Codebook(double(given["codebook"]), "cosine").logits(double(given["z"]))
    assert (norm_N[:, None] - logit_NV)[0].tolist() == pytest.approx(expected["d"], **close)
    assert sums.entropy_BT.item() == pytest.approx(expected["H"], **close)
    assert sums.idx_Bl.item() == expected["argmax_cos"]


@pytest.mark.parametrize("name", ["not_a_floor", "not_a_ceiling"])
def test_assignment_entropy_is_no_bound_for_hard_tokens(vector, name):
    given, expected, close = vector(name)
    sums = soft(given["z"], given["codebook"], given["tau"])
    conditional = sums.entropy_BT.mean().item()
    assert conditional == pytest.approx(expected["EH"], **close)
    assert entropy(sums.counts_BE.sum(0)).item() == pytest.approx(expected["H_hard"], **close)
    marginal = entropy(sums.soft_BTE.sum((0, 1))).item()
    assert marginal - conditional == pytest.approx(expected["MI"], **close)


@pytest.mark.parametrize("name", ["gmm2_sigma0.3", "gmm2_sigma0.5", "gmm2_sigma1.0"])
def test_two_gaussians(vector, name):
    """Latents at the quantiles of the mixture stand in for the integral, to about 1e-4."""
    given, expected, _ = vector(name)
    sigma, codes_VC = given["sigma"], double(given["codes"])[:, None]
    quantile_N = torch.special.ndtri((torch.arange(20_000).double() + 0.5) / 20_000)
    z_BlC = (codes_VC + sigma * quantile_N).reshape(1, -1, 1)
    codebook = Codebook(codes_VC, "l2")
    fit = fit_temperature([z_BlC], codebook)
    assert fit.value == pytest.approx(expected["tau_true"], rel=1e-3)
    assert fit.hard == pytest.approx(expected["tau_hard"], rel=1e-3)
    assert fit.ended == "converged"
    sums = assign(z_BlC, codebook, (expected["tau_true"], expected["tau_hard"], 1.0))
    A_T = (sums.entropy_BT[0] / 40_000).tolist()
    names = ("H_true", "EH_at_tau_hard", "EH_at_tau1")
    assert pytest.approx([expected[n] for n in names], abs=1e-5) == A_T


def test_hard_temperature(vector):
    given, expected, close = vector("tau_auto")
    # One code at the origin of D = 2 dimensions: the distances are the squared lengths.
    z_BlC = double([[[math.sqrt(d), 0.0] for d in given["d_min"]]])
    fit = fit_temperature([z_BlC], Codebook(double([[0.0, 0.0]]), "l2"))
    assert fit.hard == pytest.approx(expected["tau"], **close)


def test_jackknife(vector):
    given, expected, close = vector("jackknife")
    count_GV = torch.tensor(given["groups"]).long()
    total_V = count_GV.sum(0)
    deleted_G = entropy(total_V - count_GV)
    assert deleted_G.tolist() == pytest.approx(expected["deleted"], **close)
    variance = jackknife_variance(entropy(total_V).numpy(), deleted_G.numpy(), np.full(4, 4))
    assert np.sqrt(variance) == pytest.approx(expected["se"], **close)
    x_iV = count_GV.double() / 4
    corrected = entropy(total_V).item() + clustered_correction(x_iV.mean(0), x_iV.square().sum(0), 4)
    assert corrected == pytest.approx(expected["clustered_mm"], **close)


def test_jackknife_of_unequal_groups(vector):
    given, expected, close = vector("weighted_unequal_groups_jackknife")
    sum_G, size_G = double(given["sums"]), torch.tensor(given["sizes"])
    value = sum_G.sum() / size_G.sum()
    deleted_G = (sum_G.sum() - sum_G) / (size_G.sum() - size_G)
    assert value.item() == pytest.approx(expected["theta"], **close)
    variance = jackknife_variance(value.numpy(), deleted_G.numpy(), size_G.numpy())
    assert np.sqrt(variance) == pytest.approx(expected["se"], **close)


def test_counts_beyond_float32(vector):
    given, expected, _ = vector("fp32_counter_trap")
    tally, one = (
        empty_tally(1, [1], 1, 1),
        empty_tally(1, [1], 1, 1),
    )
    tally.counts_GSE += given["start"]
    one.counts_GSE += given["add"]
    assert (tally + one).counts_GSE.item() == expected["result"]
