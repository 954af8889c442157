"""How far a run has come: its tally, and what must not be done twice."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from entropy_cli.functional.quantity import HistoryPoint
from entropy_cli.functional.summary import token_weighted_entropy
from entropy_cli.functional.tally import Tally

HISTORY_GROWTH = 1.1  # between entries, so that a run of any length has about a hundred


@dataclass
class Progress:
    """Everything a run accumulates; what is saved and resumed from.

    Attributes:
        blocks_done: bool, one for each block of the image set.
        temperatures: per scale, the T temperatures; None until `auto` is fitted.
        tally: sums over the images of the blocks done; None until the temperatures are known.
        failed: relative path and reason of the images that could not be read.
        history: entries at growing numbers of images.
        pilot: how `auto` found the temperatures, for the record.
        changing: a block is half counted; if it stays so, this must not be saved.
    """

    blocks_done: Tensor
    temperatures: list[list[float]] | None = None
    tally: Tally | None = None
    failed: list[tuple[str, str]] = field(default_factory=list)
    history: list[HistoryPoint] = field(default_factory=list)
    pilot: dict[str, object] | None = None
    changing: bool = False

    @classmethod
    def start(cls, blocks: int) -> "Progress":
        """Nothing done of so many blocks."""
        return cls(blocks_done=torch.zeros(blocks, dtype=torch.bool))

    @property
    def images(self) -> int:
        """Images read, without the unreadable ones."""
        return 0 if self.tally is None else int(self.tally.images_G.sum())

    @property
    def finished(self) -> bool:
        """Whether every block is done."""
        return bool(self.blocks_done.all())

    def note_history(self) -> None:
        """Add an entry if enough images have come since the last, or if this is the end."""
        if self.tally is None or not self.images:
            return
        last = self.history[-1].images if self.history else 0
        due = self.images >= last * HISTORY_GROWTH
        if self.images > last and (due or self.finished):
            self.history.append(HistoryPoint(self.images, *token_weighted_entropy(self.tally)))
