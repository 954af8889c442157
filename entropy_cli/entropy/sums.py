"""Sums over the tokens of each image at one scale: the output of the assignment."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from entropy_cli.entropy.vocabulary import Vocabulary


@dataclass(frozen=True)
class SumsLayout:
    """The sizes of sums over images.

    Attributes:
        groups: the number of jackknife groups.
        tokens_S: tokens that an image has at each scale.
        vocabularies: the codes of each scale.
        temperatures: the number of temperatures at each scale.
    """

    groups: int
    tokens_S: tuple[int, ...]
    vocabularies: tuple[Vocabulary, ...]
    temperatures: int


@dataclass
class ImageSums:
    """Sums over the l tokens of each image at one scale, for T temperatures; all float64 or int64.

    There are E entries: one for each code, or one for each level of each dimension where the codes are
    too many to count.
    """

    tokens: int  # l
    idx_Bl: Tensor  # the tokens: the nearest codes, or drawn ones
    entropy_BT: Tensor  # nats
    varentropy_BT: Tensor  # nats^2
    distance_BT: Tensor  # expected squared distance under q
    min_distance_B: Tensor  # squared distance to the nearest code
    soft_BTE: Tensor  # soft assignment
    entry_BN: Tensor | None = None  # entries that the tokens count for; None: idx_Bl

    def first(self, images: int) -> "ImageSums":
        """Return the sums of only the first images."""
        kept: dict[str, Any] = {k: v[:images] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **kept)

    @property
    def counts_BE(self) -> Tensor:
        """The number of tokens of each entry, int64."""
        B, _, E = self.soft_BTE.shape
        entry_BN = self.idx_Bl if self.entry_BN is None else self.entry_BN
        zeros_BE = entry_BN.new_zeros(B, E)
        return zeros_BE.scatter_add_(1, entry_BN, torch.ones_like(entry_BN))
