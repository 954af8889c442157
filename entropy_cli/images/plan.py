"""The schedule of a run: which images form a batch, in which order, and which process reads them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

BLOCK = 16  # images; the unit of shards, ranks, saves and resuming
# A run that may stop early checks its estimate after this many blocks, or this share of those done,
# whichever is more.
CHECK_BLOCKS = 32
CHECK_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The images of a batch, as ranges of the seeded order, and the blocks that end with it."""

    spans: tuple[range, ...]
    completed_blocks: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(map(len, self.spans))

    def __iter__(self) -> Iterator[int]:
        """Iterate over the images' indices in the seeded order."""
        return chain.from_iterable(self.spans)


@dataclass(frozen=True)
class Segment:
    """The part of a run between two checks of the estimate."""

    plans: list[BatchPlan]  # this process's batches
    rounds: int  # the largest number of units of a process; a unit is one or several whole blocks
    check: bool  # whether to check at its end: False if that was done before the run was resumed


def number_of_blocks(images: int) -> int:
    """Return the number of blocks that hold these images; the last may not be full."""
    return -(-images // BLOCK)


def plan_batches(images: int, batch_size: int, blocks: Sequence[int]) -> list[BatchPlan]:
    """Divide blocks of so many images into batches: parts of one block, or several whole blocks.

    Which images share a batch must not depend on where a run was interrupted.
    """
    plans, step = [], _blocks_per_unit(batch_size)
    for group in (tuple(blocks[i : i + step]) for i in range(0, len(blocks), step)):
        spans = tuple(range(block * BLOCK, min((block + 1) * BLOCK, images)) for block in group)
        if batch_size < BLOCK:
            span = spans[0]
            *parts, last = (span[i : i + batch_size] for i in range(0, len(span), batch_size))
            plans += [BatchPlan((part,), ()) for part in parts]
            spans = (last,)
        plans.append(BatchPlan(spans, group))
    return plans


def plan_segments(
    images: int,
    batch_size: int,
    blocks: Sequence[int],
    done: Sequence[bool],
    points: Sequence[int],
    share: tuple[int, int] = (0, 1),
) -> list[Segment]:
    """Divide a run into segments that end at `points`, see `check_points`; return a share of each.

    This process is the I-th of N in `share`. `blocks` are those of the run, `done` says of every block
    of the images whether it is done already. Segments end at the same numbers of images whatever the
    number of processes.
    """
    segments, start, (rank, ranks) = [], 0, share
    for end in points:
        todo = [block for block in blocks[start:end] if not done[block]]
        plans = plan_batches(images, batch_size, todo[rank::ranks])
        most = -(-len(todo) // ranks)
        check = bool(todo) or not any(done[block] for block in blocks[end:])
        segments.append(Segment(plans, -(-most // _blocks_per_unit(batch_size)), check))
        start = end
    return segments


def check_points(blocks: int, *, early_stop: bool) -> list[int]:
    """Return the numbers of blocks after which to check the estimate, up to all of them.

    They double; with `early_stop` they are no more than CHECK_BLOCKS or CHECK_SHARE of the blocks apart.
    A check synchronises the processes of a run, so it should not be done too often.
    """
    points, at = [], 1
    while at < blocks:
        points.append(at)
        at += min(at, max(CHECK_BLOCKS, int(CHECK_SHARE * at))) if early_stop else at
    return [*points, blocks] if blocks else []


def shard_blocks(blocks: int, shard: tuple[int, int] | None) -> range:
    """Return the blocks of shard I of N: every N-th from the I-th, so that each is a random sample."""
    start, step = shard or (0, 1)
    return range(start, blocks, step)


def _blocks_per_unit(batch_size: int) -> int:
    return max(1, batch_size // BLOCK)
