"""How many codes there are, and whether they can be counted one by one. Imports no torch."""

import math
from dataclasses import dataclass

# Between which a table of vectors leaves the choice: how latents are compared with them.
VECTOR_RULES = ("l2", "cosine", "dot")
MAX_COUNTED = 2**18  # codes of a product; more would need too much memory for each group and scale


@dataclass(frozen=True)
class Vocabulary:
    """The codes of one scale.

    Attributes:
        size: how many there are.
        levels: of a product of small sets (bits, or levels), how many each dimension has, the most
            significant for a code's number first.
    """

    size: int
    levels: tuple[int, ...] | None = None

    @classmethod
    def product(cls, levels: tuple[int, ...]) -> "Vocabulary":
        """Every combination of levels."""
        return cls(math.prod(levels), levels)

    @property
    def counted(self) -> bool:
        """Whether each code is counted; if not, each level of each dimension is."""
        return self.levels is None or self.size <= MAX_COUNTED

    @property
    def entries(self) -> int:
        """How many numbers it takes to hold a sum for each code, or for each level."""
        return self.size if self.counted or self.levels is None else sum(self.levels)
