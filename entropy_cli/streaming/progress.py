"""How far a run has come: its sums, and what must not be done twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.tally import Tally
from entropy_cli.streaming.accumulator import Accumulator
from entropy_cli.streaming.ranks import Ranks

# What a run sums up: one more statistic on the same pass is one more row.
ACCUMULATORS: tuple[type[Accumulator], ...] = (Tally,)


@dataclass
class Progress:
    """Everything a run accumulates; what is saved and resumed from.

    Of a run of several processes, each has a progress with its own part, and the first also what had
    been saved before.

    Attributes:
        blocks_done: bool, one for each block of the image set.
        images: number of images read, without the unreadable ones.
        temperatures: per scale, the T temperatures; None until `auto` is fitted.
        accumulators: sums over the images of the blocks done, by name; none until the temperatures are
            known.
        failed: relative path and reason of the images that could not be read.
        history: entries at growing numbers of images.
        pilot: how `auto` found the temperatures, for the record.
        precision_check: what the encoder's precision changes, measured on the first images.
        changing: a block is half counted; if it stays so, this must not be saved.
    """

    blocks_done: Tensor
    images: int = 0
    temperatures: list[list[float]] | None = None
    accumulators: dict[str, Accumulator] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    history: list[HistoryPoint] = field(default_factory=list)
    pilot: dict[str, object] | None = None
    precision_check: dict[str, object] | None = None
    changing: bool = False

    @classmethod
    def start(cls, blocks: int) -> "Progress":
        """Nothing done of so many blocks."""
        return cls(blocks_done=torch.zeros(blocks, dtype=torch.bool))

    @property
    def tally(self) -> Tally | None:
        """Return the accumulator of the entropies, if there is one yet."""
        tally = self.accumulators.get(Tally.NAME)
        assert tally is None or isinstance(tally, Tally)
        return tally

    def place(self, layout: SumsLayout, device: torch.device) -> None:
        """Put what was accumulated on a device, or zeros of a layout where there is nothing yet."""
        for kind in ACCUMULATORS:
            of = self.accumulators.get(kind.NAME)
            self.accumulators[kind.NAME] = kind.zeros(layout, device) if of is None else of.to(device)

    def finished(self, blocks: Sequence[int]) -> bool:
        """Whether all of these blocks are done."""
        return bool(self.blocks_done[list(blocks)].all())

    def of_all(self, ranks: Ranks) -> "Progress":
        """The progress of all processes together, which only the first may use."""
        if ranks.world == 1:
            return self
        done = ranks.all_reduce(self.blocks_done.long())
        return Progress(
            blocks_done=done > 0,
            images=ranks.all_reduce_sum([self.images])[0],
            temperatures=self.temperatures,
            accumulators={name: ranks.reduce(of) for name, of in self.accumulators.items()},
            failed=[entry for failed in ranks.all_gather(self.failed) for entry in failed],
            history=self.history,
            pilot=self.pilot,
            precision_check=self.precision_check,
        )
