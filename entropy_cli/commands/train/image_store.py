"""Images to train on and images held out: which, in which order, and in memory where they fit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.loader import Source, open_loader, read_batches
from entropy_cli.images.plan import BLOCK, BatchPlan, number_of_blocks, plan_batches
from entropy_cli.images.synthetic import KINDS, synthetic_image

MOST_CACHED_BYTES = 2**30
Progress = Callable[[int], object]


@dataclass(frozen=True)
class SyntheticPictures:
    """Procedural pictures as a source; each is made of the seed and its number alone."""

    size: int
    seed: int

    def name(self, index: int) -> str:
        """Kind and number."""
        return f"{KINDS[index % len(KINDS)]}/{index:06d}"

    def group(self, index: int) -> int:
        """None are needed."""
        return 0

    def read(self, index: int) -> np.ndarray:
        """Make it: uint8 (H, W, 3)."""
        generator = torch.Generator().manual_seed((self.seed << 32) + index)
        picture_3HW = synthetic_image(KINDS[index % len(KINDS)], self.size, generator)
        return picture_3HW.mul(255).round().byte().permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class Part:
    """Some places of a source."""

    source: Source
    places: Sequence[int]

    def __len__(self) -> int:
        """How many."""
        return len(self.places)

    def name(self, index: int) -> str:
        """Of the source's."""
        return self.source.name(self.places[index])

    def group(self, index: int) -> int:
        """Of the source's."""
        return self.source.group(self.places[index])

    def read(self, index: int) -> np.ndarray | str:
        """Of the source's."""
        return self.source.read(self.places[index])


@dataclass
class Shelf:
    """Images of a part, read at once and kept, or read when they are asked for.

    Attributes:
        img_N3HW: those that could be read, uint8, if they are kept.
        failed: name and reason of the others, as far as they are known.
    """

    part: Part
    workers: int
    img_N3HW: Tensor | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are to choose from."""
        return len(self.part) if self.img_N3HW is None else len(self.img_N3HW)

    def batches(self, choices: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Images by their numbers, uint8 (B, 3, H, W), batch by batch.

        A picture that can't be read is left out and another of its batch taken twice.

        Raises:
            DatasetError: of a batch none can be read.
        """
        if self.img_N3HW is not None:
            for choice in choices:
                yield self.img_N3HW[torch.as_tensor(choice)]
            return
        loader = open_loader(self.part, _Plans(choices), workers=self.workers)
        for batch, choice in zip(read_batches(loader), choices, strict=True):
            self.failed |= dict(batch.failed)
            if not len(batch.input_B):
                name, reason = batch.failed[0]
                raise DatasetError(f"{name} and the others of its batch can't be read: {reason}.")
            again = torch.arange(len(choice)) % len(batch.input_B)
            yield batch.input_B[again] if batch.failed else batch.input_B


def fits_memory(part: Part, size: int) -> bool:
    """Whether pictures of a size are better kept than read again."""
    return len(part) * size * size * 3 <= MOST_CACHED_BYTES


def open_shelf(part: Part, size: int, workers: int, progress: Progress, *, keep: bool) -> Shelf:
    """Images of a size in the part's order, read now if they are to be kept."""
    shelf = Shelf(part, workers)
    if not keep:
        return shelf
    plans = plan_batches(len(part), BLOCK, range(number_of_blocks(len(part))))
    read = []
    for batch in read_batches(open_loader(part, plans, workers=workers)):
        shelf.failed |= dict(batch.failed)
        if len(batch.input_B):
            read.append(batch.input_B)
        progress(len(batch.input_B) + len(batch.failed))
    shelf.img_N3HW = torch.cat(read).contiguous() if read else torch.empty(0, 3, size, size)
    return shelf


@dataclass(frozen=True)
class _Plans(Sequence[BatchPlan]):
    """Of each choice the loader's plan, made when it is asked for."""

    choices: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, item: int) -> BatchPlan:  # type: ignore[override]
        return BatchPlan(tuple(range(i, i + 1) for i in self.choices[item]), ())


@dataclass(frozen=True)
class Order(Sequence[Sequence[int]]):
    """Which pictures a process computes, part by part: its share of each part of the batch of a step.

    All pictures come once, in an order of the seed, then all in another. The batch of a step and its
    parts, whose pictures batch norms see together, are the same however many processes share them.

    Attributes:
        images: to choose from.
        batch_size: of all processes together.
        parts: of a batch, that are computed one after the other.
        first, last: steps, from 0; `last` is not one of them.
        share: (I, N): the I-th of N.
    """

    images: int
    batch_size: int
    parts: int
    first: int
    last: int
    seed: int
    share: tuple[int, int]

    def __len__(self) -> int:
        """Parts in all."""
        return (self.last - self.first) * self.parts

    def __getitem__(self, item: int) -> list[int]:  # type: ignore[override]
        """Numbers of a part's pictures."""
        step, part = divmod(item, self.parts)
        if step >= self.last - self.first:
            raise IndexError(item)
        rank, world = self.share
        size = self.batch_size // self.parts // world
        start = (self.first + step) * self.batch_size + (part * world + rank) * size
        found = []
        for place in range(start, start + size):
            epoch, position = divmod(place, self.images)
            found.append(int(_permutation(self.seed, epoch, self.images)[position]))
        return found

    def corners(self, item: int, slack: int) -> np.ndarray:
        """Of a part's crops, up to `slack` pixels from the top and left: integers (B, 2)."""
        step, part = divmod(item, self.parts)
        generator = np.random.default_rng([self.seed, self.first + step, slack])
        corner_B2 = generator.integers(0, slack + 1, (self.batch_size, 2))
        of_part = np.split(corner_B2, self.parts)[part]
        return np.split(of_part, self.share[1])[self.share[0]]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(images)


def cropped(img_B3HW: Tensor, size: int, corner_B2: np.ndarray | None = None) -> Tensor:
    """A square of each picture, its corner's row and column given; without, of the centre."""
    slack = img_B3HW.shape[-1] - size
    if corner_B2 is None:
        return img_B3HW[..., slack // 2 : slack // 2 + size, slack // 2 : slack // 2 + size]
    places = zip(img_B3HW, corner_B2.tolist(), strict=True)
    return torch.stack([img_3HW[:, y : y + size, x : x + size] for img_3HW, (y, x) in places])
