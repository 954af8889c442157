"""What the probe sees of other tokens: their codes, or what coarser scales add up to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.entropy.ladder.contexts import Layout, parents
from entropy_cli.entropy.ladder.ladder import Context

# Places before a token: rows above it and columns to the left.
BEFORE = ((0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, -1), (1, 2), (2, 0))
NEXT_TO = ((0, 1), (1, 0), (1, 1), (1, -1))


class Seen(NamedTuple):
    """What is seen of the tokens of one scale, beside place and class.

    Attributes:
        vector_BlF: numbers, float32; F may be 0.
        code_BlK: codes at K other places, V for none; int64, K may be 0.
    """

    vector_BlF: Tensor
    code_BlK: Tensor


class Sight(Protocol):
    """What a model may see; `vectors` and `codes` are F and K of what it returns."""

    @property
    def vectors(self) -> int:
        """The numbers F that are seen of each token."""
        ...

    @property
    def codes(self) -> int:
        """The codes K that are seen of each token."""
        ...

    @property
    def words(self) -> str:
        """What is seen, in words."""
        ...

    def __call__(self, idx_BL: Tensor) -> list[Seen]:
        """Return what is seen of the tokens of each scale of some images."""
        ...


@dataclass(frozen=True)
class CodesAround:
    """Learned vectors of codes at other places: the parents of a token, or those before it."""

    layout: Layout
    vocab_size: int
    context: Context
    vectors: int = 0

    @property
    def codes(self) -> int:
        """The number of places."""
        return {"var": 9, "raster": len(BEFORE), "depth": 3 + len(NEXT_TO), "none": 0}[self.context]

    @property
    def words(self) -> str:
        """What is seen, in words."""
        return {
            "var": "the 3x3 parents at the next coarser scale",
            "raster": "eight tokens before it",
            "depth": "three depths before it, and four places before it at its depth",
            "none": "nothing",
        }[self.context]

    def __call__(self, idx_BL: Tensor) -> list[Seen]:
        """Return the codes seen at each scale."""
        found = []
        for s, tokens in enumerate(self.layout.tokens):
            parts = {"var": self._parents, "raster": self._before, "depth": self._depths}
            code_BlK = (
                parts[self.context](idx_BL, s)
                if self.context in parts
                else idx_BL.new_empty((len(idx_BL), tokens, 0))
            )
            found.append(Seen(torch.empty(len(idx_BL), tokens, 0), code_BlK))
        return found

    def _parents(self, idx_BL: Tensor, s: int) -> Tensor:
        tokens = self.layout.tokens[s]
        if s == 0:
            return torch.full((len(idx_BL), tokens, 9), self.vocab_size)
        side, coarser = math.isqrt(tokens), math.isqrt(self.layout.tokens[s - 1])
        near_p = torch.from_numpy(parents(side, coarser)[0])
        grid_Bqq = torch.unflatten(idx_BL[:, self.layout.columns(s - 1)], 1, (coarser, coarser))
        padded = functional.pad(grid_Bqq, (1, 1, 1, 1), value=self.vocab_size)
        around = [
            padded[:, near_p[:, None] + y, near_p + x].flatten(1) for y in range(3) for x in range(3)
        ]
        return torch.stack(around, 2)

    def _before(self, idx_BL: Tensor, s: int, places: Sequence[tuple[int, int]] = BEFORE) -> Tensor:
        """Return the codes so many rows above and columns to the left."""
        side = math.isqrt(self.layout.tokens[s])
        grid_Bpp = torch.unflatten(idx_BL[:, self.layout.columns(s)], 1, (side, side))
        padded = functional.pad(grid_Bpp, (3, 1, 2, 0), value=self.vocab_size)
        parts = [
            padded[:, 2 - up : 2 - up + side, 3 - left : 3 - left + side].flatten(1)
            for up, left in places
        ]
        return torch.stack(parts, 2)

    def _depths(self, idx_BL: Tensor, s: int) -> Tensor:
        none_Bl = torch.full((len(idx_BL), self.layout.tokens[s]), self.vocab_size)
        parts = [
            idx_BL[:, self.layout.columns(s - back)] if s >= back else none_Bl for back in (1, 2, 3)
        ]
        before_BlK = self._before(idx_BL, s, NEXT_TO)
        return torch.cat([torch.stack(parts, 2), before_BlK], 2)
