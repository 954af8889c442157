"""Codes that are all combinations of bits or levels: the closed form against every code one by one."""

import itertools
import math

import pytest
import torch

from entropy_cli.core.errors import ShapeError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Grid
from entropy_cli.entropy.vocabulary import MAX_COUNTED, Vocabulary

TEMPERATURES = (0.05, 0.3, 1.0, 7.0)


def codes_of(grid):
    """Every code, in the order of its number: the first dimension counts fastest, but in BSQ slowest."""
    if grid.rule == "bsq":
        codes = list(itertools.product(*grid.coordinates))
    else:
        codes = [code[::-1] for code in itertools.product(*grid.coordinates[::-1])]
    return torch.tensor(codes, dtype=torch.float64)


def one_by_one(z_BlC, grid, temperature):
    """Entropy, varentropy, distance and soft sums of each image from all distances."""
    if grid.rule == "bsq":
        z_BlC = z_BlC / z_BlC.square().sum(2, keepdim=True).sqrt()
    distance_BlV = (z_BlC[:, :, None] - codes_of(grid)).square().sum(3)
    log_q_BlV = (-distance_BlV / temperature).log_softmax(2)
    q_BlV = log_q_BlV.exp()
    entropy_Bl = -(q_BlV * log_q_BlV).sum(2)
    spread_Bl = (q_BlV * (log_q_BlV + entropy_Bl[..., None]).square()).sum(2)
    soft_BV, distance_B = q_BlV.sum(1), (q_BlV * distance_BlV).sum((1, 2))
    return entropy_Bl.sum(1), spread_Bl.sum(1), distance_B, soft_BV, distance_BlV


def random_latents(B, tokens, C, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, tokens, C, generator=generator, dtype=torch.float64)


GRIDS = {
    "sign": Grid.of_bits(10, "sign"),
    "bsq": Grid.of_bits(10, "bsq"),
    "levels 8,5,5,5": Grid.of_levels((8, 5, 5, 5)),
    "levels 5,3": Grid.of_levels((5, 3)),
    "one bit": Grid.of_bits(1, "sign"),
    "one dimension": Grid.of_levels((7,)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_the_closed_form_is_the_sum_over_all_codes(name):
    grid = GRIDS[name]
    z_BlC = random_latents(3, 6, grid.latent_dim) * (2 if grid.rule == "levels" else 1)
    sums = assign(z_BlC, grid, TEMPERATURES)
    close = {"atol": 1e-12, "rtol": 1e-12}
    for t, temperature in enumerate(TEMPERATURES):
        H_B, spread_B, distance_B, soft_BV, distance_BlV = one_by_one(z_BlC, grid, temperature)
        torch.testing.assert_close(sums.entropy_BT[:, t], H_B, **close)
        torch.testing.assert_close(sums.varentropy_BT[:, t], spread_B, **close)
        torch.testing.assert_close(sums.distance_BT[:, t], distance_B, **close)
        torch.testing.assert_close(sums.soft_BTE[:, t], soft_BV, **close)
    assert torch.equal(sums.idx_Bl, distance_BlV.argmin(2))
    torch.testing.assert_close(sums.min_distance_B, distance_BlV.amin(2).sum(1), **close)
    expected_BV = torch.stack([row.bincount(minlength=grid.vocabulary.size) for row in sums.idx_Bl])
    assert torch.equal(sums.counts_BE, expected_BV)


def test_eighteen_bits_of_which_ten_are_open():
    """The 2^18 codes of Open-MAGVIT2, where eight bits are certain, are 2^10."""
    open_BlC = random_latents(2, 5, 10)
    certain_C = torch.tensor([1, -1, -1, 1, 1, 1, -1, 1]).double() * 60
    z_BlC = torch.cat([open_BlC, certain_C.expand(2, 5, 8)], 2)
    sums = assign(z_BlC, Grid.of_bits(18, "sign"), [1.0, 0.2])
    few = Grid.of_bits(10, "sign")
    above = sum(2**c for c in range(8) if certain_C[c] > 0) * 2**10
    for t, temperature in enumerate((1.0, 0.2)):
        H_B, spread_B, _, soft_BV, distance_BlV = one_by_one(open_BlC, few, temperature)
        torch.testing.assert_close(sums.entropy_BT[:, t], H_B, atol=1e-12, rtol=0)
        torch.testing.assert_close(sums.varentropy_BT[:, t], spread_B, atol=1e-12, rtol=0)
        torch.testing.assert_close(
            sums.soft_BTE[:, t, above : above + 2**10], soft_BV, atol=1e-12, rtol=0
        )
        assert sums.soft_BTE[:, t].sum(1).tolist() == pytest.approx([5, 5], abs=1e-12)
    assert torch.equal(sums.idx_Bl, distance_BlV.argmin(2) + above)


@pytest.mark.parametrize(
    "z, grid, temperature, expected",
    [
        ([0.3, -0.1, 0.0], Grid.of_bits(3, "sign"), 1.0, 1.9077400960541273),
        ([18**-0.5] * 18, Grid.of_bits(18, "bsq"), 0.1, 5.762900307786517),
        ([0.3, 0.9], Grid.of_levels((5, 3)), 1 / 6, 0.3344736373334339),
    ],
    ids=["lfq_bits", "bsq_bits", "fsq"],
)
def test_known_values(z, grid, temperature, expected):
    sums = assign(torch.tensor([[z]], dtype=torch.float64), grid, [temperature])
    assert sums.entropy_BT.item() == pytest.approx(expected, abs=1e-10)


def test_bsq_looks_at_directions_only():
    z_BlC = random_latents(1, 4, 6)
    one, other = (assign(z_BlC * scale, Grid.of_bits(6, "bsq"), [0.5]) for scale in (1, 1000))
    torch.testing.assert_close(one.entropy_BT, other.entropy_BT, atol=1e-12, rtol=0)


def test_a_bit_is_a_sigmoid():
    """Of 4 a z / T, as the published entropy terms have it."""
    sums = assign(torch.tensor([[[0.3]]]), Grid.of_bits(1, "sign"), [0.7])
    assert sums.soft_BTE[0, 0, 1].item() == pytest.approx(1 / (1 + math.exp(-4 * 0.3 / 0.7)), abs=1e-7)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (5, 3), (2, 4, 3)])
def test_codes_are_numbered_as_fsq_numbers_them(levels):
    grid = Grid.of_levels(levels)
    basis = [math.prod(levels[:c]) for c in range(len(levels))]  # cumprod([1] + levels[:-1])
    half = [n // 2 for n in levels]
    z_BlC = random_latents(1, 50, len(levels)) * 3
    rounded = [
        [min(max(round(x), -h), n - 1 - h) for x, h, n in zip(z, half, levels, strict=True)]
        for z in z_BlC[0].tolist()
    ]
    numbers = [sum((x + h) * b for x, h, b in zip(code, half, basis, strict=True)) for code in rounded]
    assert assign(z_BlC, grid, []).idx_Bl[0].tolist() == numbers
    # Each code is its own nearest.
    codes_VC = codes_of(grid)
    assert assign(codes_VC[None], grid, []).idx_Bl[0].tolist() == list(range(len(codes_VC)))


def test_the_first_sign_is_least_significant_but_in_bsq_most():
    z_BlC = torch.tensor([[[1.0, -1, -1], [-1, -1, 1]]])
    assert assign(z_BlC, Grid.of_bits(3, "sign"), []).idx_Bl.tolist() == [[1, 4]]
    assert assign(z_BlC, Grid.of_bits(3, "bsq"), []).idx_Bl.tolist() == [[4, 1]]


def test_ties_go_to_the_lower_code():
    for rule in ("sign", "bsq"):
        sums = assign(torch.zeros(1, 1, 3), Grid.of_bits(3, rule), [1.0, 0.01])
        assert sums.idx_Bl.item() == 0
        assert sums.entropy_BT[0].tolist() == pytest.approx([3 * math.log(2)] * 2, abs=1e-12)
    halfway = torch.tensor([[[0.5], [-0.5], [-1.5], [1.5]]])
    assert assign(halfway, Grid.of_levels((5,)), []).idx_Bl.tolist() == [[2, 1, 0, 3]]


def test_latents_of_another_length():
    with pytest.raises(ShapeError, match="expected"):
        assign(torch.zeros(1, 1, 4), Grid.of_bits(3, "sign"), [1.0])


def test_what_is_counted():
    assert Vocabulary.product((2,) * 18) == Vocabulary(MAX_COUNTED, (2,) * 18)
    assert Vocabulary.product((2,) * 18).counted and Vocabulary.product((2,) * 18).entries == 2**18
    assert not Vocabulary.product((2,) * 19).counted and Vocabulary.product((2,) * 19).entries == 38
    assert Vocabulary(2**20).counted  # in a table, which is as large
    assert Grid.of_levels((8, 5, 3)).vocabulary == Vocabulary(120, (3, 5, 8))
    assert Grid.of_bits(4, "bsq").vocabulary == Vocabulary(16, (2,) * 4)


def bits_of(idx_Bl, bits):
    """Of each token, the first dimension last."""
    return idx_Bl[..., None] >> torch.arange(bits - 1, -1, -1) & 1


@pytest.mark.parametrize("bits", [19, 40, 64])
def test_of_too_many_codes_the_levels_are_counted(bits):
    z_BlC = random_latents(2, 6, bits)
    sums = assign(z_BlC, Grid.of_bits(bits, "sign"), [1.0])
    assert sums.soft_BTE.shape == sums.counts_BE[:, None].shape == (2, 1, 2 * bits)
    positive_BlC = z_BlC.flip(2) > 0
    assert torch.equal(sums.counts_BE.view(2, bits, 2)[..., 1], positive_BlC.sum(1))
    assert torch.equal(sums.counts_BE.view(2, bits, 2)[..., 0], (~positive_BlC).sum(1))
    chance_BlC = torch.sigmoid(4 * z_BlC.flip(2))
    torch.testing.assert_close(sums.soft_BTE[:, 0].view(2, bits, 2)[..., 1], chance_BlC.sum(1))
    chance_BlC = torch.stack([chance_BlC, 1 - chance_BlC])
    expected_B = -(chance_BlC * chance_BlC.log()).sum((0, 2, 3))
    torch.testing.assert_close(sums.entropy_BT[:, 0], expected_B)
    if bits < 63:
        assert torch.equal(bits_of(sums.idx_Bl, bits), positive_BlC.long())
    cut = sums.first(1)
    assert torch.equal(cut.counts_BE, sums.counts_BE[:1])
