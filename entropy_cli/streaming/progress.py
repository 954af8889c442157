"""How far a run has come: its sums, and what must not be done twice."""

from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypedDict

import torch
from torch import Tensor

from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.tally import Tally
from entropy_cli.images.plan import BLOCK
from entropy_cli.streaming.ranks import Ranks


class RunRecord(TypedDict, total=False):
    """How a run computed its images, for the provenance of what its state is merged into."""

    shard: tuple[int, int] | None
    device: str
    processes: int
    batch_size: int
    workers: int
    seconds: float
    images_per_s: float
    images_resumed: int
    python: str
    torch: str
    torchvision: str
    pillow: str


@dataclass
class Progress:
    """Everything that a run accumulates, saves and resumes from.

    Each of several processes has a progress of its own part; the first also holds what had been saved
    before.
    """

    blocks_done: Tensor  # bool, one for each block of the image set
    images: int = 0  # that were read, without the unreadable ones
    temperatures: list[list[float]] | None = None  # T for each scale; None until `auto` is fitted
    tally: Tally | None = None  # of the finished blocks; None until the temperatures are known
    failed: list[tuple[str, str]] = field(default_factory=list)  # path and reason of unreadable images
    history: list[HistoryPoint] = field(default_factory=list)  # at growing numbers of images
    pilot: dict[str, object] | None = None  # how `auto` found the temperatures
    precision_check: dict[str, object] | None = None  # what the precision changes on the first images
    digest_N: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # 0: not read
    runs: list[RunRecord] = field(default_factory=list)  # every run that added images
    half_added: bool = False  # a block is partly in the sums: such a progress must not be saved

    @classmethod
    def start(cls, blocks: int) -> "Progress":
        """Return a progress in which none of so many blocks is done."""
        digest_N = torch.zeros(BLOCK * blocks, dtype=torch.int64)
        return cls(blocks_done=torch.zeros(blocks, dtype=torch.bool), digest_N=digest_N)

    @property
    def repeats(self) -> int:
        """The number of images whose content is that of another image that was read."""
        read_N = self.digest_N[self.digest_N != 0]
        return len(read_N) - len(torch.unique(read_N))

    def meets(self, target: float) -> bool:
        """Return whether the intervals of the last estimate are at most `target` to either side."""
        widest = self.history[-1].widest if self.history else None
        return widest is not None and widest <= target

    def allocate(self, layout: SumsLayout, device: torch.device) -> None:
        """Move the tally to a device; one that is not there yet starts as zeros of a layout."""
        self.tally = self.tally.to(device) if self.tally else Tally.zeros(layout, device)

    def reduce(self, ranks: Ranks) -> "Progress":
        """Add up the progress of all processes; only the first may use the result."""
        if ranks.world == 1:
            return self
        return replace(
            self,
            blocks_done=ranks.all_reduce(self.blocks_done.long()) > 0,
            images=ranks.all_reduce_sum([self.images])[0],
            tally=self.tally and ranks.reduce(self.tally),
            digest_N=ranks.all_reduce(self.digest_N),
            failed=list(chain.from_iterable(ranks.all_gather(self.failed))),
        )
