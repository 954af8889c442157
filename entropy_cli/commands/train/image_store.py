"""The images of a training: batches in a seeded order, and a cache in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.loader import Batch, Source, open_loader, read_batches
from entropy_cli.images.plan import BLOCK, BatchPlan

MOST_CACHED_BYTES = 2**30


@dataclass
class ImageStore:
    """Some images of a source, cached in memory or read on demand.

    Attributes:
        indices: of the images in the source.
        img_N3HW: the readable images, uint8; None if they are not cached.
        failed: name and reason of the images known to be unreadable.
    """

    source: Source
    indices: range
    workers: int
    img_N3HW: Tensor | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of images to choose from."""
        return len(self.indices) if self.img_N3HW is None else len(self.img_N3HW)

    def fits_in_memory(self, size: int) -> bool:
        """Return whether images of a size are few enough to cache."""
        return len(self) * size * size * 3 <= MOST_CACHED_BYTES

    def cache(self, size: int, progress: Callable[[int], object]) -> None:
        """Read all images of a size now, and keep the readable ones."""
        read = [torch.empty(0, 3, size, size, dtype=torch.uint8)]
        for batch in self._read(in_batches(len(self), BLOCK)):
            if len(batch.input_B):
                read.append(batch.input_B)
            progress(len(batch.input_B) + len(batch.failed))
        self.img_N3HW = torch.cat(read).contiguous()

    def batches(self, batch_indices: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Yield the images of each list of indices, uint8 (B, 3, H, W).

        An unreadable image is replaced by another of its batch.

        Raises:
            DatasetError: no image of a batch can be read.
        """
        if self.img_N3HW is not None:
            for indices in batch_indices:
                yield self.img_N3HW[torch.as_tensor(indices)]
            return
        for batch, indices in zip(self._read(batch_indices), batch_indices, strict=True):
            if not len(batch.input_B):
                name, reason = batch.failed[0]
                raise DatasetError(f"{name}: can't be read, like all others of its batch: {reason}.")
            repeated = torch.arange(len(indices)) % len(batch.input_B)
            yield batch.input_B[repeated] if batch.failed else batch.input_B

    def _read(self, batch_indices: Sequence[Sequence[int]]) -> Iterator[Batch]:
        plans = _BatchPlans(self.indices, batch_indices)
        for batch in read_batches(open_loader(self.source, plans, workers=self.workers)):
            self.failed |= dict(batch.failed)
            yield batch


def in_batches(images: int, size: int) -> list[range]:
    """Divide the indices of images, in their order, into batches."""
    return [range(i, min(i + size, images)) for i in range(0, images, size)]


@dataclass(frozen=True)
class _BatchPlans(Sequence[BatchPlan]):
    """The loader's plan of each batch, built on access."""

    indices: range
    batch_indices: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.batch_indices)

    def __getitem__(self, item: int) -> BatchPlan:  # type: ignore[override]
        return BatchPlan(tuple(self.indices[i : i + 1] for i in self.batch_indices[item]), ())


@dataclass(frozen=True)
class BatchSampler(Sequence[Sequence[int]]):
    """The image indices of a process's share of each micro-batch.

    Every epoch visits all images once, in another seeded order. A step's batch and its micro-batches,
    which batch norms see as a whole, are the same for any number of processes.

    Attributes:
        images: number of images.
        batch_size: over all processes.
        accum_steps: micro-batches per step.
        first, last: range of steps, from 0; `last` is excluded.
        share: rank and number of processes.
    """

    images: int
    batch_size: int
    accum_steps: int
    first: int
    last: int
    seed: int
    share: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of micro-batches."""
        return (self.last - self.first) * self.accum_steps

    def __getitem__(self, item: int) -> list[int]:  # type: ignore[override]
        """Return the indices of this process's images in a micro-batch."""
        if item >= len(self):
            raise IndexError(item)
        step, micro_batch = divmod(item, self.accum_steps)
        rank, world = self.share
        size = self.batch_size // self.accum_steps // world
        start = (self.first + step) * self.batch_size + (micro_batch * world + rank) * size
        places = (divmod(place, self.images) for place in range(start, start + size))
        return [int(_permutation(self.seed, epoch, self.images)[at]) for epoch, at in places]

    def crop_corners(self, item: int, slack: int) -> np.ndarray:
        """Draw the crops' offsets from the top and left, up to `slack` pixels: integers (B, 2)."""
        step, micro_batch = divmod(item, self.accum_steps)
        generator = np.random.default_rng([self.seed, self.first + step, slack])
        corner_B2 = generator.integers(0, slack + 1, (self.batch_size, 2))
        rank, world = self.share
        return np.split(np.split(corner_B2, self.accum_steps)[micro_batch], world)[rank]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(images)


def crop(img_B3HW: Tensor, size: int, corner_B2: np.ndarray | None = None) -> Tensor:
    """Crop squares at the given rows and columns, or at the centre without them."""
    slack = img_B3HW.shape[-1] - size
    if corner_B2 is None:
        return img_B3HW[..., slack // 2 : slack // 2 + size, slack // 2 : slack // 2 + size]
    places = zip(img_B3HW, corner_B2.tolist(), strict=True)
    return torch.stack([img_3HW[:, y : y + size, x : x + size] for img_3HW, (y, x) in places])
