"""How far a run has come: its sums, and what must not be done twice."""

from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypedDict

import torch
from torch import Tensor

from entropy_cli.entropy.accumulator import Accumulator
from entropy_cli.entropy.loss_tally import LossTally
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
    losses: LossTally | None = None  # of a generator on the same blocks
    failed: list[tuple[str, str]] = field(default_factory=list)  # path and reason of unreadable images
    history: list[HistoryPoint] = field(default_factory=list)  # at growing numbers of images
    pilot: dict[str, object] | None = None  # how `auto` found the temperatures
    precision_check: dict[str, object] | None = None  # what the precision changes on the first images
    model_check: dict[str, Any] | None = None  # what a generator's changes on them
    digest_N: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # 0: not read
    # A generator's loss of each image, all its tokens, in nats; 0 for those that were not read.
    nats_N: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    runs: list[RunRecord] = field(default_factory=list)  # every run that added images
    half_added: bool = False  # a block is partly in the sums: such a progress must not be saved

    @classmethod
    def start(cls, blocks: int) -> "Progress":
        """Return a progress in which none of so many blocks is done."""
        digest_N = torch.zeros(BLOCK * blocks, dtype=torch.int64)
        nats_N = torch.zeros(BLOCK * blocks, dtype=torch.float64)
        blocks_done = torch.zeros(blocks, dtype=torch.bool)
        return cls(blocks_done=blocks_done, digest_N=digest_N, nats_N=nats_N)

    @property
    def accumulators(self) -> list[Accumulator]:
        """The sums that there are; the first is the one that a run watches on the way."""
        return [sums for sums in (self.losses, self.tally) if sums is not None]

    @property
    def repeats(self) -> int:
        """The number of images whose content is that of another image that was read."""
        read_N = self.digest_N[self.digest_N != 0]
        return len(read_N) - len(torch.unique(read_N))

    def meets(self, target: float) -> bool:
        """Return whether the intervals of the last estimate are at most `target` to either side."""
        widest = self.history[-1].widest if self.history else None
        return widest is not None and widest <= target

    def allocate(
        self, layout: SumsLayout | None, device: torch.device, losses: SumsLayout | None = None
    ) -> None:
        """Move the sums to a device; those that are not there yet start as zeros of their layouts.

        Without a layout there are no sums: of the entropies, or of a generator's losses.
        """
        if layout is not None:
            self.tally = self.tally.to(device) if self.tally else Tally.zeros(layout, device)
        if losses is not None:
            self.losses = self.losses.to(device) if self.losses else LossTally.zeros(losses, device)

    def reduce(self, ranks: Ranks) -> "Progress":
        """Add up the progress of all processes; only the first may use the result."""
        if ranks.world == 1:
            return self
        return replace(
            self,
            blocks_done=ranks.all_reduce(self.blocks_done.long()) > 0,
            images=ranks.all_reduce_sum([self.images])[0],
            tally=self.tally and ranks.reduce(self.tally),
            losses=self.losses and ranks.reduce(self.losses),
            digest_N=ranks.all_reduce(self.digest_N),
            nats_N=ranks.all_reduce(self.nats_N),
            failed=list(chain.from_iterable(ranks.all_gather(self.failed))),
        )
