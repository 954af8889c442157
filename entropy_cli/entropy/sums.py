"""What the tokens of each image sum to at one scale: all that leaves the assignment."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass
class ImageSums:
    """Sums over the l tokens of each image at one scale, for T temperatures; all float64 or int64.

    E entries are one for each code, or one for each level of each dimension where codes are too many.
    """

    tokens: int  # l
    idx_Bl: Tensor  # the nearest code
    entropy_BT: Tensor  # nats
    varentropy_BT: Tensor  # nats^2
    distance_BT: Tensor  # expected squared distance under q
    min_distance_B: Tensor  # squared distance to the nearest code
    soft_BTE: Tensor  # soft assignment
    entry_BN: Tensor | None = None  # entries that hard assignment counts, if not idx_Bl

    def first(self, images: int) -> "ImageSums":
        """The sums of the first images only."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        cut: dict[str, Any] = {k: v[:images] if isinstance(v, Tensor) else v for k, v in values.items()}
        return ImageSums(**cut)

    @property
    def counts_BE(self) -> Tensor:
        """Hard assignment: how many tokens each entry is nearest to."""
        B, _, E = self.soft_BTE.shape
        entry_BN = self.idx_Bl if self.entry_BN is None else self.entry_BN
        zeros_BE = entry_BN.new_zeros(B, E)
        return zeros_BE.scatter_add_(1, entry_BN, torch.ones_like(entry_BN))
