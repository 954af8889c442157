"""Soft and hard assignment against plain float64 arithmetic, limits and invariances."""

import math

import pytest
import torch

from entropy_cli.core.errors import ShapeError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook


def oracle(z_C, codebook_VC, temperature, rule):
    """Distances, entropy, varentropy, expected distance and q of one latent, number by number."""
    z = [float(x) for x in z_C]
    codes = [[float(x) for x in row] for row in codebook_VC]
    if rule == "cosine":
        z, *codes = ([x / math.hypot(*v) for x in v] for v in [z, *codes])
    d = [sum((a - b) ** 2 for a, b in zip(z, code, strict=True)) for code in codes]
    weight = [math.exp(-(x - min(d)) / temperature) for x in d]
    q = [w / sum(weight) for w in weight]
    H = -sum(p * math.log(p) for p in q if p > 0)
    Vt = sum(p * (math.log(p) + H) ** 2 for p in q if p > 0)
    return d, H, Vt, sum(p * x for p, x in zip(q, d, strict=True)), q


@pytest.mark.parametrize("rule", ["l2", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [None, 40, 1])
def test_agrees_with_plain_arithmetic(rule, dtype, chunk):
    torch.manual_seed(0)
    B, tokens, V, C = 3, 5, 13, 4
    z_BlC = torch.randn(B, tokens, C, dtype=dtype)
    codebook_VC = torch.randn(V, C, dtype=dtype) + 5  # off centre: cancellation would show
    temperatures = (0.3, 1.0, 7.0)
    sums = assign(z_BlC, Codebook(codebook_VC, rule), temperatures, chunk)
    tolerance = {"abs": 2e-5 if dtype == torch.float32 else 1e-11}
    for b in range(B):
        for t, temperature in enumerate(temperatures):
            rows = [oracle(z, codebook_VC, temperature, rule) for z in z_BlC[b]]
            assert sums.entropy_BT[b, t].item() == pytest.approx(sum(r[1] for r in rows), **tolerance)
            assert sums.varentropy_BT[b, t].item() == pytest.approx(sum(r[2] for r in rows), **tolerance)
            assert sums.distance_BT[b, t].item() == pytest.approx(sum(r[3] for r in rows), rel=1e-5)
            q_V = [sum(r[4][v] for r in rows) for v in range(V)]
            assert sums.soft_BTE[b, t].tolist() == pytest.approx(q_V, **tolerance)
        nearest = [min(range(V), key=r[0].__getitem__) for r in rows]
        assert sums.idx_Bl[b].tolist() == nearest
        assert sums.counts_BE[b].tolist() == [nearest.count(v) for v in range(V)]
        assert sums.min_distance_B[b].item() == pytest.approx(sum(min(r[0]) for r in rows), rel=1e-4)


def test_bounds_and_temperature_limits():
    torch.manual_seed(1)
    z_BlC, codebook_VC = torch.randn(2, 50, 8), torch.randn(64, 8)
    temperatures = (1e-30, 1e-3, 0.1, 0.5, 1.0, 3.0, 30.0, 1e3, 1e30)
    sums = assign(z_BlC, Codebook(codebook_VC, "l2"), temperatures)
    entropy_T = sums.entropy_BT.sum(0) / 100
    assert entropy_T.isfinite().all() and sums.varentropy_BT.isfinite().all()
    assert (entropy_T[1:] - entropy_T[:-1] >= -1e-6).all()  # grows with the temperature
    assert entropy_T[0].item() == 0
    assert entropy_T[-1].item() == pytest.approx(math.log(64), abs=1e-6)
    assert torch.equal(sums.soft_BTE[:, 0].round().long(), sums.counts_BE)  # one-hot in the limit


def test_varentropy_is_the_slope_of_the_entropy_in_log_temperature():
    torch.manual_seed(2)
    z_BlC, codebook = torch.randn(1, 20, 4).double(), Codebook(torch.randn(30, 4).double(), "l2")
    step = 1e-4
    sums = assign(z_BlC, codebook, (math.exp(-step), 1.0, math.exp(step)))
    slope = (sums.entropy_BT[0, 2] - sums.entropy_BT[0, 0]).item() / (2 * step)
    assert sums.varentropy_BT[0, 1].item() == pytest.approx(slope, rel=1e-6)


def test_the_first_of_equally_near_codes_is_chosen():
    codebook = Codebook(torch.tensor([[5.0], [0.0], [1.0], [0.0], [1.0]]), "l2")
    sums = assign(torch.tensor([[[0.5], [0.1], [0.9]]]), codebook, (1.0,))
    assert sums.idx_Bl.tolist() == [[1, 1, 2]]


def test_chunks_do_not_matter():
    torch.manual_seed(3)
    z_BlC, codebook = torch.randn(5, 7, 6).double(), Codebook(torch.randn(90, 6).double(), "l2")
    whole = assign(z_BlC, codebook, (0.5, 1.0))
    for chunk in (1, 100, 640, 1300, 10**6):
        parts = assign(z_BlC, codebook, (0.5, 1.0), chunk)
        assert torch.equal(parts.counts_BE, whole.counts_BE)
        for name in ("entropy_BT", "varentropy_BT", "distance_BT", "soft_BTE"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-9, rtol=0)


def test_a_constant_added_to_all_distances_changes_nothing():
    z_BlC, codes_VC = torch.zeros(1, 1, 1).double(), torch.tensor([[1e3], [1e3 + 2.5e-4]]).double()
    far = assign(z_BlC, Codebook(codes_VC, "l2"), (1.0,))
    d_V = codes_VC[:, 0].square()
    q_V = torch.softmax(d_V[0] - d_V, 0)
    assert far.entropy_BT.item() == pytest.approx(-(q_V * q_V.log()).sum().item(), abs=1e-9)
    assert far.distance_BT.item() == pytest.approx((q_V @ d_V).item(), rel=1e-12)


@pytest.mark.parametrize("V", [128, 384, 1000, 4096])
def test_the_nearest_code_is_the_first_of_equals_whatever_the_number_of_codes(V):
    """A two-step search takes numbers of codes that divide into blocks."""
    torch.manual_seed(1)
    codes_VC = torch.randint(-2, 3, (V, 3)).float()  # most are there many times
    z_BlC = torch.randn(3, 40, 3)
    distance_NV = (z_BlC.reshape(-1, 1, 3) - codes_VC).double().square().sum(2)
    same = assign(z_BlC, Codebook(codes_VC, "l2"), ()).idx_Bl.flatten()
    for n, v in enumerate(same.tolist()):
        nearest = distance_NV[n].min()
        assert distance_NV[n, v] == nearest and (distance_NV[n, :v] > nearest).all()


@pytest.mark.parametrize("z_BlC", [torch.zeros(2, 3), torch.zeros(1, 2, 5), torch.zeros(0, 2, 4)])
def test_wrong_shapes_are_named(z_BlC):
    with pytest.raises(ShapeError, match="expected"):
        assign(z_BlC, Codebook(torch.randn(3, 4), "l2"), (1.0,))


@pytest.mark.parametrize("rule", ["l2", "dot"])
def test_codes_far_from_zero_keep_the_digits_of_their_differences(rule):
    """float32 has no digits left after 2 z.e - |e|^2 unless the codes' mean is subtracted first."""
    generator = torch.Generator().manual_seed(2)
    z_BlC, code_VC = (
        (torch.randn(shape, generator=generator) * 64).round() / 64 + shift
        for shape, shift in (((1, 40, 4), 1024 * (rule == "l2")), ((13, 4), 1024))
    )
    sums = assign(z_BlC, Codebook(code_VC, rule), (1.0,))
    z_lC, exact_VC = z_BlC[0].double(), code_VC.double()
    logit_lV = z_lC @ exact_VC.T if rule == "dot" else -(torch.cdist(z_lC, exact_VC) ** 2)
    log_q_lV = logit_lV.log_softmax(1)
    expected = -(log_q_lV.exp() * log_q_lV).sum().item()
    assert sums.entropy_BT.item() == pytest.approx(expected, abs=1e-3)
    assert torch.equal(sums.idx_Bl[0], log_q_lV.argmax(1))
