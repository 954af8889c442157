"""What the tokens of each image sum to at one scale: all that leaves the assignment."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from entropy_cli.entropy.vocabulary import Vocabulary


@dataclass(frozen=True)
class SumsLayout:
    """The sizes of sums over images.

    Attributes:
        groups: of the jackknife.
        tokens_S: tokens that an image has at each scale.
        vocabularies: codes of each scale.
        temperatures: at each scale.
    """

    groups: int
    tokens_S: tuple[int, ...]
    vocabularies: tuple[Vocabulary, ...]
    temperatures: int

    @classmethod
    def of_codes(
        cls, groups: int, tokens_S: Sequence[int], temperatures: int, codes: int
    ) -> "SumsLayout":
        """Make the layout of scales that all have so many codes."""
        return cls(groups, tuple(tokens_S), (Vocabulary(codes),) * len(tokens_S), temperatures)

    @property
    def entries(self) -> int:
        """Return the codes, or levels of all dimensions, of the scale that has most."""
        return max(vocabulary.entries for vocabulary in self.vocabularies)

    @property
    def counted_S(self) -> list[int]:
        """Return how many entries an image counts at each scale: one a token, or one a dimension."""
        return [
            tokens * (1 if vocabulary.counted else len(vocabulary.levels or ()))
            for tokens, vocabulary in zip(self.tokens_S, self.vocabularies, strict=True)
        ]


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
