"""When a run may stop early, and that its interval then still holds what it promises."""

from itertools import pairwise

import pytest
import torch

from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.entropy.stopping import history_point, target_reached
from entropy_cli.images.plan import BLOCK, check_points

GROUPS, REPEATS = 32, 2000


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


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_at_the_stop_still_covers(skewed):
    """2,000 seeded runs over images without end; 95 +- 2 % of their intervals hold the truth."""
    generator = torch.Generator().manual_seed(7 + skewed)
    tokens_S = torch.tensor([1, 4, 9])
    truth, inside, images = 0.0, [0, 0, 0], []
    points = [at * BLOCK for at in check_points(1000, early_stop=True)]
    for _ in range(REPEATS):
        noise_M4 = torch.randn(points[-1], 4, generator=generator, dtype=torch.float64)
        if skewed:  # lognormal, less its mean
            noise_M4 = noise_M4.exp() - torch.tensor(0.5).double().exp()
        # Scales share most of what makes an image easy or hard.
        mean_MS = 0.15 * (noise_M4[:, :1] + 0.5 * noise_M4[:, 1:])
        entropy_MS = mean_MS * tokens_S
        group_M = torch.randint(GROUPS, (points[-1],), generator=generator)
        history, start = [], 0
        entropy_GS = torch.zeros(GROUPS, 3, dtype=torch.float64)
        images_G = torch.zeros(GROUPS, dtype=torch.int64)
        for end in points:
            part = slice(start, end)
            entropy_GS.index_add_(0, group_M[part], entropy_MS[part])
            images_G.index_add_(0, group_M[part], torch.ones(end - start, dtype=torch.int64))
            start = end
            if end < 500:
                continue
            history.append(history_point(entropy_GS, images_G, tokens_S))
            if target_reached(0.011, history, images_G):
                break
        else:
            pytest.fail("a run that never stops tests nothing")
        last = history[-1]
        inside[0] += abs(last.value - truth) <= last.half_width
        images.append(last.images)
    assert 0.93 <= inside[0] / REPEATS <= 0.97
    assert len(set(images)) > 3 and min(images) >= 1000  # stops where the data say, not at the least
