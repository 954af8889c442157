"""How far a run has come: its sums, and what must not be done twice."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.tally import Tally
from entropy_cli.streaming.accumulator import Accumulator
from entropy_cli.streaming.ranks import Ranks

# The statistics of a run: another one on the same pass is one more row.
ACCUMULATORS: tuple[type[Accumulator], ...] = (Tally,)


@dataclass
class Progress:
    """Everything that a run accumulates, saves and resumes from.

    Each of several processes has a progress of its own part; the first also holds what had been saved
    before.

    Attributes:
        blocks_done: bool, one for each block of the image set.
        images: number of images that were read, without the unreadable ones.
        temperatures: T temperatures for each scale; None until `auto` is fitted.
        accumulators: sums over the images of the finished blocks, by name; empty until the temperatures
            are known.
        failed: relative path and reason of each unreadable image.
        history: entries at growing numbers of images.
        pilot: the record of how `auto` found the temperatures.
        precision_check: what the encoder's precision changes, measured on the first images.
        half_added: whether a block is partly in the sums; such a progress must not be saved.
    """

    blocks_done: Tensor
    images: int = 0
    temperatures: list[list[float]] | None = None
    accumulators: dict[str, Accumulator] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    history: list[HistoryPoint] = field(default_factory=list)
    pilot: dict[str, object] | None = None
    precision_check: dict[str, object] | None = None
    half_added: bool = False

    @classmethod
    def start(cls, blocks: int) -> "Progress":
        """Return a progress in which none of so many blocks is done."""
        return cls(blocks_done=torch.zeros(blocks, dtype=torch.bool))

    @property
    def tally(self) -> Tally | None:
        """Return the accumulator of the entropies, None until the temperatures are known."""
        tally = self.accumulators.get(Tally.NAME)
        assert tally is None or isinstance(tally, Tally)
        return tally

    def allocate(self, layout: SumsLayout, device: torch.device) -> None:
        """Move the accumulators to a device; those that are not there yet start as zeros of a layout."""
        for kind in ACCUMULATORS:
            sums = self.accumulators.get(kind.NAME)
            self.accumulators[kind.NAME] = (
                kind.zeros(layout, device) if sums is None else sums.to(device)
            )

    def reduce(self, ranks: Ranks) -> "Progress":
        """Add up the progress of all processes; only the first may use the result."""
        if ranks.world == 1:
            return self
        done = ranks.all_reduce(self.blocks_done.long())
        return Progress(
            blocks_done=done > 0,
            images=ranks.all_reduce_sum([self.images])[0],
            temperatures=self.temperatures,
            accumulators={name: ranks.reduce(sums) for name, sums in self.accumulators.items()},
            failed=[entry for failed in ranks.all_gather(self.failed) for entry in failed],
            history=self.history,
            pilot=self.pilot,
            precision_check=self.precision_check,
        )
