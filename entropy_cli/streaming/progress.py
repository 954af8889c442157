"""How far a run has come: its tally, and what must not be done twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.entropy.tally import Tally
from entropy_cli.streaming.ranks import Ranks


@dataclass
class Progress:
    """Everything a run accumulates; what is saved and resumed from.

    Of a run of several processes, each has a progress with its own part, and the first also what had
    been saved before.

    Attributes:
        blocks_done: bool, one for each block of the image set.
        images: number of images read, without the unreadable ones.
        temperatures: per scale, the T temperatures; None until `auto` is fitted.
        tally: sums over the images of the blocks done; None until the temperatures are known.
        failed: relative path and reason of the images that could not be read.
        history: entries at growing numbers of images.
        pilot: how `auto` found the temperatures, for the record.
        precision_check: what the encoder's precision changes, measured on the first images.
        changing: a block is half counted; if it stays so, this must not be saved.
    """

    blocks_done: Tensor
    images: int = 0
    temperatures: list[list[float]] | None = None
    tally: Tally | None = None
    failed: list[tuple[str, str]] = field(default_factory=list)
    history: list[HistoryPoint] = field(default_factory=list)
    pilot: dict[str, object] | None = None
    precision_check: dict[str, object] | None = None
    changing: bool = False

    @classmethod
    def start(cls, blocks: int) -> "Progress":
        """Nothing done of so many blocks."""
        return cls(blocks_done=torch.zeros(blocks, dtype=torch.bool))

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
            tally=None if self.tally is None else ranks.reduce_tally(self.tally),
            failed=[entry for failed in ranks.all_gather(self.failed) for entry in failed],
            history=self.history,
            pilot=self.pilot,
            precision_check=self.precision_check,
        )
