"""Which images are read together, in which order, and by whom. Pure: numbers in, numbers out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

BLOCK = 16  # images; the unit of shards, ranks, saves and resumption
# A run that may stop is looked at after so many blocks or so large a share of those done, whichever is
# more.
CHECK_BLOCKS = 32
CHECK_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Some images of the seeded order, and the blocks of which this batch is the last part."""

    spans: tuple[range, ...]
    completed_blocks: tuple[int, ...]

    def __len__(self) -> int:
        """How many images."""
        return sum(map(len, self.spans))

    def __iter__(self) -> Iterator[int]:
        """Their places in the seeded order."""
        return chain.from_iterable(self.spans)


@dataclass(frozen=True)
class Segment:
    """The way to the next check at the estimate.

    Attributes:
        plans: this process's batches.
        rounds: most units that any process has in it; a unit is one or several whole blocks.
        check: whether to check at its end: not if that was done already, or blocks after it were.
    """

    plans: list[BatchPlan]
    rounds: int
    check: bool


def number_of_blocks(images: int) -> int:
    """Blocks that hold so many images; the last may not be full."""
    return -(-images // BLOCK)


def plan_batches(images: int, batch_size: int, blocks: Sequence[int]) -> list[BatchPlan]:
    """Cut blocks into batches: parts of one block, or several whole blocks.

    Which images share a batch must not depend on where a run was cut, so no batch crosses a block unless
    it holds whole ones.

    Args:
        images: how many there are.
        batch_size: the most images in a batch.
        blocks: numbers of the blocks to read, in order.
    """
    if batch_size >= BLOCK:
        whole = _blocks_at_once(batch_size)
        groups = [blocks[i : i + whole] for i in range(0, len(blocks), whole)]
        return [BatchPlan(tuple(_block(b, images) for b in group), tuple(group)) for group in groups]
    plans = []
    for block in blocks:
        span = _block(block, images)
        for start in range(span.start, span.stop, batch_size):
            stop = min(start + batch_size, span.stop)
            plans.append(BatchPlan((range(start, stop),), (block,) if stop == span.stop else ()))
    return plans


def plan_segments(
    images: int,
    batch_size: int,
    blocks: Sequence[int],
    done: Sequence[bool],
    points: Sequence[int],
    share: tuple[int, int] = (0, 1),
) -> list[Segment]:
    """Cut a run into segments, and each segment into the shares of the processes that work on it.

    Where segments end does not depend on the processes: every run looks at the same numbers of images.

    Args:
        images: how many there are.
        batch_size: the most images in a batch.
        blocks: the run's, in order, done or not.
        done: for every block of the images, whether it is done already.
        points: numbers of blocks after which segments end, see `check_points`.
        share: (I, N): this process is the I-th of N.
    """
    segments, start, (rank, ranks) = [], 0, share
    for end in points:
        todo = [block for block in blocks[start:end] if not done[block]]
        plans = plan_batches(images, batch_size, todo[rank::ranks])
        most = -(-len(todo) // ranks)
        check = bool(todo) or not any(done[block] for block in blocks[end:])
        segments.append(Segment(plans, -(-most // _blocks_at_once(batch_size)), check))
        start = end
    return segments


def check_points(blocks: int, *, early_stop: bool) -> list[int]:
    """Numbers of blocks after which to check at the estimate, up to all of them.

    They double; with `early_stop` no more than CHECK_BLOCKS or CHECK_SHARE of the blocks lie between.
    Looking brings the processes of a run together, so it is not done more often than is of use.
    """
    points, at = [], 1
    while at < blocks:
        points.append(at)
        at += min(at, max(CHECK_BLOCKS, int(CHECK_SHARE * at))) if early_stop else at
    return [*points, blocks] if blocks else []


def shard_blocks(blocks: int, shard: tuple[int, int] | None) -> range:
    """The blocks of shard I of N: every N-th from the I-th, so that any shard is a fair sample."""
    start, step = shard or (0, 1)
    return range(start, blocks, step)


def _blocks_at_once(batch_size: int) -> int:
    return max(1, batch_size // BLOCK)


def _block(block: int, images: int) -> range:
    return range(block * BLOCK, min((block + 1) * BLOCK, images))
