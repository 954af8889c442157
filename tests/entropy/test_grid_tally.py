"""Tallies of codes that are combinations of bits or levels: the bound, its error, mixed scales."""

import math

import pytest
import torch

from entropy_cli.entropy import vocabulary as vocabularies
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.point_estimates import NO_PRODUCT
from entropy_cli.entropy.quantity import TOO_MANY
from entropy_cli.entropy.summary import summarise
from entropy_cli.entropy.vocabulary import Vocabulary
from tests.entropy.test_grid import one_by_one, random_latents
from tests.reference import empty_tally


def tally_of(sums, group_B, entries):
    """Of one scale."""
    tally = empty_tally(4, [sums.tokens], sums.soft_BTE.shape[1], entries)
    tally.add(group_B, [sums])
    return tally


def binary(p):
    return -sum(x * math.log(x) for x in (p, 1 - p) if x)


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "too many"])
def test_the_bound_on_the_marginal_entropy(monkeypatch, counted):
    """The sum of the bits' entropies, with its error; the marginal is given if codes are counted."""
    z_BlC = random_latents(12, 7, 5)
    z_BlC[:, :, 1] = z_BlC[:, :, 0] + 0.1 * z_BlC[:, :, 1]  # two bits that go together
    group_B = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3])
    if not counted:
        monkeypatch.setattr(vocabularies, "MAX_COUNTED", 31)
    vocabulary = Grid.of_bits(5, "sign").vocabulary
    assert vocabulary.counted == counted
    sums = assign(z_BlC, Grid.of_bits(5, "sign"), [1.0, 0.2])
    tally = tally_of(sums, group_B, vocabulary.entries)
    codes_q_BV = one_by_one(z_BlC, Grid.of_bits(5, "sign"), 0.2)[3]
    chance_BC = torch.sigmoid(20 * z_BlC).sum(1)

    def bound(keep_B):
        tokens = 7 * int(keep_B.sum())
        return sum(binary(p) for p in (chance_BC[keep_B].sum(0) / tokens).tolist())

    of_scale = summarise(tally, [vocabulary], 1).scales[0]
    found, marginal = of_scale["marginal_entropy_bound"], entropy(codes_q_BV.sum(0)).item()
    assert (
        found.value == found.plug_in == pytest.approx(bound(torch.ones(12, dtype=torch.bool)), abs=1e-12)
    )
    assert found.value > marginal + 0.1
    assert found.se == pytest.approx(jackknife(found.value, bound, group_B), rel=1e-9)
    assert found.ci95 is not None and found.ci95[0] < found.value < found.ci95[1]
    if counted:
        assert of_scale["marginal_entropy"].plug_in == pytest.approx(marginal, abs=1e-12)
    else:
        for name in ("marginal_entropy", "mutual_information", "unigram_entropy", "usage"):
            assert of_scale[name].value is None and of_scale[name].note == TOO_MANY
    assert of_scale["assignment_entropy"].se is not None


def jackknife(value, of_images, group_B):
    """Delete-a-group error for groups of unequal size, group by group."""
    n, sizes = len(group_B), group_B.bincount().tolist()
    deleted = [of_images(group_B != g) for g in range(len(sizes))]
    centre = len(sizes) * value - sum((1 - m / n) * x for m, x in zip(sizes, deleted, strict=True))
    terms = [
        (n / m * value - (n / m - 1) * x - centre) ** 2 / (n / m - 1)
        for m, x in zip(sizes, deleted, strict=True)
    ]
    return math.sqrt(sum(terms) / len(terms))


def test_a_table_has_no_bound():
    sums = assign(random_latents(4, 5, 3), Codebook(random_latents(1, 9, 3)[0], "l2"), [1.0])
    of_scale = summarise(tally_of(sums, torch.tensor([0, 1, 2, 3]), 9), [Vocabulary(9)]).scales[0]
    assert of_scale["marginal_entropy_bound"].value is None
    assert of_scale["marginal_entropy_bound"].note == NO_PRODUCT


def test_scales_of_different_vocabularies_in_one_tally():
    """As many entries as the largest needs; each scale's numbers are those of a tally of its own."""
    group_B = torch.tensor([0, 0, 1, 1, 2, 3])
    books = [
        Grid.of_levels((8, 5)),
        Codebook(random_latents(1, 9, 2)[0], "l2"),
        Grid.of_bits(19, "bsq"),
        Grid.of_bits(3, "sign"),
    ]
    of_scales = [
        assign(random_latents(6, n, book.latent_dim, seed=n), book, [1.0, 0.1])
        for n, book in enumerate(books, start=3)
    ]
    known = [book.vocabulary for book in books]
    together = empty_tally(4, [sums.tokens for sums in of_scales], 2, max(v.entries for v in known))
    for part in (slice(0, 2), slice(2, 6)):  # two batches
        kept = [assign_part(sums, part) for sums in of_scales]
        together.add(group_B[part], kept)
    for t in (0, 1):
        summary = summarise(together, known, t)
        for s, (sums, vocabulary) in enumerate(zip(of_scales, known, strict=True)):
            alone = summarise(tally_of(sums, group_B, vocabulary.entries), [vocabulary], t).scales[0]
            for name, estimate in alone.items():
                both = summary.scales[s][name]
                assert both.note == estimate.note, name
                for field in ("value", "plug_in", "se"):
                    expected = getattr(estimate, field)
                    assert getattr(both, field) == (
                        None if expected is None else pytest.approx(expected, abs=1e-12)
                    ), (name, field)
        average = summary.averages["over_scales"]
        A = [of_scale["assignment_entropy"].value for of_scale in summary.scales]
        assert average["assignment_entropy"].value == pytest.approx(sum(A) / 4, abs=1e-12)
        assert average["marginal_entropy"].value is None
        assert average["marginal_entropy"].note == TOO_MANY
        assert average["marginal_entropy_bound"].note == NO_PRODUCT
        last = summary.averages["last_scale"]["marginal_entropy_bound"]
        assert last == summary.scales[-1]["marginal_entropy_bound"]


def assign_part(sums, part):
    """The sums of some of the images."""
    kept = {k: v[part] if isinstance(v, torch.Tensor) else v for k, v in vars(sums).items()}
    return type(sums)(**kept)


def test_the_average_of_bounds():
    grids = [Grid.of_bits(4, "sign"), Grid.of_levels((3, 5))]
    of_scales = [assign(random_latents(6, 3 + s, g.latent_dim), g, [1.0]) for s, g in enumerate(grids)]
    known = [grid.vocabulary for grid in grids]
    tally = empty_tally(4, [3, 4], 1, 16)
    tally.add(torch.tensor([0, 0, 1, 1, 2, 3]), of_scales)
    summary = summarise(tally, known)
    first, second = (of_scale["marginal_entropy_bound"].value for of_scale in summary.scales)
    averages = {kind: of["marginal_entropy_bound"] for kind, of in summary.averages.items()}
    assert averages["token_weighted"].value == pytest.approx((3 * first + 4 * second) / 7, abs=1e-12)
    assert averages["over_scales"].value == pytest.approx((first + second) / 2, abs=1e-12)
    assert all(average.se for average in averages.values())


def test_the_interval_of_an_average_ends_at_the_average_of_the_largest_entropies():
    known = [Vocabulary(4), Vocabulary(64)]
    tally = empty_tally(2, [1, 3], 1, 64)
    books = [Codebook(random_latents(1, v.size, 2)[0], "l2") for v in known]
    tally.add(
        torch.tensor([0, 1]),
        [assign(random_latents(2, n, 2), book, [1.0]) for n, book in zip((1, 3), books, strict=True)],
    )
    largest_S = torch.tensor([math.log(v.size) for v in known], dtype=torch.float64)
    for g, share in enumerate((0.9, 0.8)):  # of the largest entropy: an interval of two groups is wide
        tally.entropy_GST[g, :, 0] = share * largest_S * tally.tokens_S
    averages = summarise(tally, known).averages
    ends = {kind: of["assignment_entropy"].ci95[1] for kind, of in averages.items()}
    first, last = largest_S.tolist()
    assert ends["token_weighted"] == pytest.approx((first + 3 * last) / 4, abs=1e-12)
    assert ends["over_scales"] == pytest.approx((first + last) / 2, abs=1e-12)
    assert ends["last_scale"] == last


def test_levels_of_different_numbers_are_counted_each(monkeypatch):
    """What is counted of too many codes is what the codes' own counts add up to."""
    grid = Grid.of_levels((5, 3, 4))
    z_BlC = 2 * random_latents(2, 30, 3)
    of_codes = assign(z_BlC, grid, [0.5])
    monkeypatch.setattr(vocabularies, "MAX_COUNTED", 59)
    of_levels = assign(z_BlC, grid, [0.5])
    assert torch.equal(of_codes.idx_Bl, of_levels.idx_Bl)
    for codes_BV, levels_BE in (
        (of_codes.counts_BE.double(), of_levels.counts_BE.double()),
        (of_codes.soft_BTE[:, 0], of_levels.soft_BTE[:, 0]),
    ):
        codes_B453 = codes_BV.view(2, 4, 3, 5)  # the most significant first
        added = [codes_B453.sum((2, 3)), codes_B453.sum((1, 3)), codes_B453.sum((1, 2))]
        torch.testing.assert_close(levels_BE, torch.cat(added, 1), atol=1e-12, rtol=0)
