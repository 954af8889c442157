"""Who reads what: every block once, whoever shares them."""

from itertools import pairwise

import pytest

from entropy_cli.images.plan import BLOCK, check_points, number_of_blocks, plan_segments, shard_blocks


@pytest.mark.parametrize("images", [1, 16, 70, 1000])
@pytest.mark.parametrize("batch_size", [3, 16, 64])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_processes_share_each_leg(images, batch_size, ranks):
    blocks = number_of_blocks(images)
    done = [block % 5 == 3 for block in range(blocks)]
    points = check_points(blocks, early_stop=True)
    of_rank = [
        plan_segments(images, batch_size, range(blocks), done, points, (r, ranks)) for r in range(ranks)
    ]
    seen = []
    for end, segments in zip(points, zip(*of_rank, strict=True), strict=True):
        assert len({(segment.rounds, segment.check) for segment in segments}) == 1
        units = [sum(bool(plan.completed_blocks) for plan in segment.plans) for segment in segments]
        assert max(units) == segments[0].rounds
        mine = [b for segment in segments for plan in segment.plans for b in plan.completed_blocks]
        assert all(b < end for b in mine)
        for segment in segments:
            read = [i for plan in segment.plans for i in plan]
            completed = [b for plan in segment.plans for b in plan.completed_blocks]
            assert sorted({i // BLOCK for i in read}) == completed
            assert all(len(plan) <= batch_size for plan in segment.plans)
        seen += mine
    assert sorted(seen) == [b for b in range(blocks) if not done[b]]


@pytest.mark.parametrize("number", [1, 2, 3, 7, 100])
def test_shards_part_the_blocks(number):
    parts = [shard_blocks(70, (i, number)) for i in range(number)]
    assert sorted(b for part in parts for b in part) == list(range(70))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert shard_blocks(70, None) == range(70)


def test_looks_not_taken_before_a_cut_are_taken_after_it():
    def looks(done):
        points = check_points(8, early_stop=False)
        return [segment.check for segment in plan_segments(16 * 8, 4, range(8), done, points)]

    assert looks([False] * 8) == [True] * 4  # after 1, 2, 4 and 8 blocks
    assert looks([True] * 3 + [False] * 5) == [False, False, True, True]
    assert looks([True] * 4 + [False] * 4) == [False, False, True, True]
    assert looks([True] * 8) == [False, False, False, True]


def test_looks_are_as_far_apart_as_the_run_is_long():
    """Of a million images: doubling up to 32 blocks, then every 32, then every 2 % of those done."""
    points = check_points(62_500, early_stop=True)
    assert points[:8] == [1, 2, 4, 8, 16, 32, 64, 96] and points[-1] == 62_500
    for at, following in pairwise(points[5:-1]):
        assert following - at == max(32, at // 50)
