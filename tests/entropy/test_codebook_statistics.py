"""Statistics of codebooks against brute force in plain Python."""

import math
import statistics

import pytest
import torch

from entropy_cli.core.errors import ShapeError
from entropy_cli.entropy import codebook_statistics as module
from entropy_cli.entropy.codebook_statistics import codebook_statistics, nearest_distances, usage


def brute_force(rows):
    """Everything, from a list of lists."""
    finite = [row for row in rows if all(map(math.isfinite, row))]
    numbers = [x for row in finite for x in row]
    lengths = [math.sqrt(sum(x * x for x in row)) for row in finite]
    nearest = [
        min((math.dist(a, b) for j, b in enumerate(finite) if j != i), default=None)
        for i, a in enumerate(finite)
    ]

    def spread(values):
        known = [v for v in values if v is not None]
        return (min(known), statistics.median(known), max(known)) if known else None

    return {
        "non_finite": len(rows) - len(finite),
        "zero": sum(not any(row) for row in finite),
        "duplicates": sum(finite.count(row) > 1 for row in finite),
        "mean": statistics.fmean(numbers) if numbers else None,
        "std": statistics.pstdev(numbers) if numbers else None,
        "norm": spread(lengths),
        "nearest": spread(nearest),
    }


def check(code_VC):
    got, expected = codebook_statistics(code_VC), brute_force(code_VC.tolist())
    assert (got.codes, got.dims) == tuple(code_VC.shape)
    for name, value in expected.items():
        ours = getattr(got, name)
        if isinstance(value, tuple):
            assert (ours.min, ours.median, ours.max) == pytest.approx(value, rel=1e-4, abs=0), name
        else:
            assert ours == (None if value is None else pytest.approx(value, rel=1e-9)), name
    return got


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("V", "C"), [(2, 1), (37, 3), (64, 16)])
def test_statistics_agree_with_brute_force(V, C, seed, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 16)  # several blocks, the last one smaller
    code_VC = torch.randn(V, C, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed - 3)
    if V > 2:
        code_VC[5] = code_VC[30] = code_VC[31]
        code_VC[7] = 0
        code_VC[8] = -0.0
        code_VC[9, 0] = math.nan
        code_VC[10, -1] = math.inf
        got = check(code_VC)
        assert (got.duplicates, got.zero, got.non_finite, got.nearest.min) == (5, 2, 2, 0)
    else:
        check(code_VC)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_codes_of_other_types_have_the_statistics_of_their_numbers(dtype):
    check(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).to(dtype))


def test_codes_that_all_but_coincide_keep_their_digits(monkeypatch):
    """Clusters far apart, of codes closer to each other than float32 tells their squared norms."""
    monkeypatch.setattr(module, "ROWS", 32)
    generator = torch.Generator().manual_seed(0)
    centre_VC = torch.randn(20, 8, generator=generator).repeat_interleave(5, 0) * 100
    check(centre_VC + 1e-3 * torch.randn(100, 8, generator=generator))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_sizes_whose_squares_leave_float32(size):
    check(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * size)


def test_few_codes_none_or_too_many(monkeypatch):
    alone = codebook_statistics(torch.tensor([[3.0, 4.0]]))
    assert alone.norm.min == 5 and alone.nearest is None and alone.duplicates == 0
    for empty in (torch.zeros(0, 3), torch.full((4, 3), math.nan)):
        got = codebook_statistics(empty)
        assert (got.mean, got.std, got.norm, got.nearest) == (None,) * 4
        assert got.non_finite == len(empty)
    monkeypatch.setattr(module, "MAX_COMPARED", 5)
    assert codebook_statistics(torch.eye(6)).nearest is None
    assert codebook_statistics(torch.eye(5)).nearest.min == pytest.approx(2**0.5)
    with pytest.raises(ShapeError):
        codebook_statistics(torch.zeros(3))


def test_progress_counts_every_code(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 16)
    seen = []
    nearest_distances(torch.randn(50, 2), seen.append)
    assert sum(seen) == 50 and len(seen) == 4


def test_usage_counts_codes_never_and_rarely_chosen():
    got = usage(torch.tensor([0.0, 0, 0.001, 50, 49.999]))
    assert (got.never, got.rare) == (2, 1) and got.top_share == pytest.approx(0.5)
    assert usage(torch.zeros(4)) is None
    assert usage(torch.tensor([1.0, math.nan])) is None
    assert usage(torch.tensor([1, 3])).top_share == 0.75


@pytest.mark.parametrize(("count", "rare"), [(9.99, 1), (10, 0), (6, 1), (15, 0), (0, 0)])
def test_a_code_is_rare_below_a_hundredth_of_an_even_share(count, rare):
    got = usage(torch.tensor([count, 1000, 1000, 2000 - count], dtype=torch.float64))
    assert (got.rare, got.never) == (rare, int(count == 0))
