"""Tokens drawn from q: against a plain loop, by their frequencies, and the same in every run."""

import math

import pytest
import torch

from entropy_cli.entropy.assign import assign, draw
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.images.uniforms import uniforms
from tests.entropy.test_assign import oracle


def first_code_up_to(q, uniform):
    """The code drawn by a number, by adding up."""
    total = 0.0
    for code, p in enumerate(q):
        total += p
        if total >= uniform:
            return code
    raise AssertionError("q adds up to less")


@pytest.mark.parametrize("rule", ["l2", "cosine"])
@pytest.mark.parametrize("chunk", [None, 40, 1])
def test_draws_are_those_of_a_plain_loop(rule, chunk):
    torch.manual_seed(0)
    z_BlC, codebook_VC = torch.randn(4, 6, 4).double(), torch.randn(13, 4).double()
    uniform_Bl = torch.rand(4, 6, dtype=torch.float64)
    codebook, temperatures = Codebook(codebook_VC, rule), (0.7, 0.1)
    sums = assign(z_BlC, codebook, temperatures, chunk, uniform_Bl)
    rows = [oracle(z, codebook_VC, 0.7, rule) for z in z_BlC.flatten(0, 1)]
    wanted = [first_code_up_to(r[4], u) for r, u in zip(rows, uniform_Bl.flatten(), strict=True)]
    assert sums.idx_Bl.flatten().tolist() == wanted
    assert sums.counts_BE.sum(0).tolist() == [wanted.count(v) for v in range(13)]
    hard = assign(z_BlC, codebook, temperatures, chunk)  # all else is as it was
    assert not torch.equal(sums.idx_Bl, hard.idx_Bl)
    for name in ("entropy_BT", "varentropy_BT", "distance_BT", "min_distance_B", "soft_BTE"):
        assert torch.equal(getattr(sums, name), getattr(hard, name)), name


def test_frequencies_are_q_and_codes_without_probability_are_never_drawn():
    logit_V, N = torch.tensor([-1e4, 0.0, -1.0, -3.0, -1e4]), 10_000
    q_V = torch.softmax(logit_V.double() / 0.5, 0)
    even_N = (torch.arange(N).double() + 0.5) / N
    idx_N = draw(logit_V.expand(N, 5), torch.tensor(0.5), even_N)
    counts_V = torch.bincount(idx_N, minlength=5)
    assert (counts_V - N * q_V).abs().max() <= 1 and counts_V[[0, 4]].tolist() == [0, 0]
    ends_2 = torch.tensor([2.0**-53, 1 - 2.0**-53]).double()
    assert draw(logit_V.expand(2, 5), torch.tensor(0.5), ends_2).tolist() == [1, 3]
    assert draw(logit_V.expand(2, 5), torch.tensor(1e-30), ends_2).tolist() == [1, 1]


def test_uniforms_depend_on_path_seed_and_place_alone():
    whole_BL = uniforms(["a/1.jpg", "b/2.jpg", ""], 3, 680)
    assert torch.equal(whole_BL[1:2], uniforms(["b/2.jpg"], 3, 680))
    assert torch.equal(whole_BL[:, :5], uniforms(["a/1.jpg", "b/2.jpg", ""], 3, 5))
    others_BL = uniforms(["a/1.jpg", "b/2.jpg", ""], 4, 680)
    assert len({*whole_BL.flatten().tolist(), *others_BL.flatten().tolist()}) == 6 * 680
    value_N = uniforms([str(i) for i in range(200)], 0, 500).flatten()
    assert value_N.min() > 0 and value_N.max() < 1
    error = math.sqrt(1 / 12 / len(value_N))
    assert abs(value_N.mean() - 0.5) < 4 * error and abs(value_N.var() - 1 / 12) < 4 * error / 3
    next_BL = value_N.view(200, 500)  # of neighbours, and of images
    for one, two in ((next_BL[:, :-1], next_BL[:, 1:]), (next_BL[:-1], next_BL[1:])):
        assert abs(((one - 0.5) * (two - 0.5)).mean()) < 4 / 12 / math.sqrt(len(value_N))
