"""When a run may stop early, and that its interval then still holds what it promises."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.entropy.stopping import history_point, target_reached
from entropy_cli.images.plan import BLOCK, check_points

GROUPS, REPEATS = 32, 1000
POINTS = [at * BLOCK for at in check_points(600, early_stop=True)]


def point(images, widest):
    return HistoryPoint(images, 1.0, widest, widest)


@pytest.mark.parametrize(
    "widths, images_G, stops",
    [
        ([0.009, 0.01], [40] * 32, True),
        ([0.01, 0.009], [32] * 32, True),
        ([0.009, 0.011], [40] * 32, False),
        ([0.011, 0.009], [40] * 32, False),  # once is not enough
        ([0.009], [40] * 32, False),
        ([None, 0.009], [40] * 32, False),
        ([0.001, 0.001], [31] * 32, False),  # 992 images
        ([0.001, 0.001], [9] + [40] * 31, False),  # a group of nine
        ([0.001, 0.001], [10] + [40] * 31, True),
    ],
)
def test_two_narrow_looks_in_a_row_and_images_enough(widths, images_G, stops):
    images_G = torch.tensor(images_G)
    history = [point(10, 0.001), point(20, 0.5), *(point(1000 + i, w) for i, w in enumerate(widths))]
    assert target_reached(0.01, history, images_G) == stops


def test_looks_come_ever_less_often():
    points = check_points(80_000, early_stop=True)
    assert points[:9] == [1, 2, 4, 8, 16, 32, 64, 96, 128] and points[-1] == 80_000
    for at, following in pairwise(points[5:-1]):
        assert 500 <= (following - at) * BLOCK <= max(512, 0.02 * at * BLOCK)
    for closely in (False, True):
        assert check_points(0, early_stop=closely) == [] and check_points(1, early_stop=closely) == [1]
        assert check_points(5, early_stop=closely) == [1, 2, 4, 5]
    assert check_points(1000, early_stop=False) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]


def shifts(kind, size, generator):
    """How far the images' entropies lie from their mean, in standard deviations of the bulk."""
    normal_M = torch.randn(size, generator=generator, dtype=torch.float64)
    if kind == "lognormal":
        return normal_M.exp() - math.exp(0.5)
    if kind == "rare":  # 2 % of the images lie 6 standard deviations above the others
        is_rare_M = torch.rand(size, generator=generator) < 0.02
        return normal_M + 6 * (is_rare_M.double() - 0.02)
    return normal_M


def stops(shift_M, group_M, target):
    """The estimates at which a run stops by the jackknife alone, and by the wider interval."""
    entropy_GS = torch.zeros(GROUPS, 1, dtype=torch.float64)
    products_SS = torch.zeros(1, 1, dtype=torch.float64)
    images_G = torch.zeros(GROUPS, dtype=torch.int64)
    history, start, alone = [], 0, None
    for end in POINTS:
        part = slice(start, end)
        entropy_GS.index_add_(0, group_M[part], shift_M[part, None])
        products_SS += shift_M[part].square().sum()
        images_G.index_add_(0, group_M[part], torch.ones(end - start, dtype=torch.int64))
        start = end
        if end < 500:
            continue
        history.append(history_point(entropy_GS, products_SS, images_G, torch.tensor([1])))
        by_groups = [replace(point, widest=point.half_width) for point in history]
        if alone is None and target_reached(target, by_groups, images_G):
            alone = by_groups[-1]
        if target_reached(target, history, images_G):
            return alone, history[-1]
    raise AssertionError("a run that never stops tests nothing")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "lognormal", "rare"])
def test_the_interval_at_the_stop_still_covers(kind):
    """Seeded runs over images without end, with a target that takes about 3,000 of them."""
    generator = torch.Generator().manual_seed(7)
    sd = {"lognormal": math.sqrt(math.e * (math.e - 1)), "rare": math.sqrt(1 + 36 * 0.02 * 0.98)}
    target = 2 * sd.get(kind, 1.0) / math.sqrt(2500)
    inside, images = [0, 0], [0, 0]
    for _ in range(REPEATS):
        shift_M = 20 + shifts(kind, POINTS[-1], generator)
        group_M = torch.randint(GROUPS, (POINTS[-1],), generator=generator)
        for rule, point in enumerate(stops(shift_M, group_M, target)):
            inside[rule] += abs(point.value - 20) <= point.widest
            images[rule] += point.images
    assert 0.935 <= inside[1] / REPEATS <= 0.975 and inside[1] > inside[0]
    assert images[1] <= 1.1 * images[0]
