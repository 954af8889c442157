"""The number of codes, and whether they can be counted one by one. Imports no torch."""

import math
from dataclasses import dataclass

# The rules a user can choose for a codebook of vectors: how latents are compared with its codes.
VECTOR_RULES = ("l2", "cosine", "dot")
MOST_LEVELS = 2**16  # of a dimension; each is counted, and compared with each latent
MAX_COUNTED = 2**18  # codes of a product; more would need too much memory for each group and scale


@dataclass(frozen=True)
class Vocabulary:
    """The codes of one scale.

    Attributes:
        size: the number of codes.
        levels: for a product of small sets (bits, or levels), the number of levels of each dimension,
            the most significant for a code's index first; else None.
    """

    size: int
    levels: tuple[int, ...] | None = None

    @classmethod
    def product(cls, levels: tuple[int, ...]) -> "Vocabulary":
        """Make the vocabulary of every combination of levels."""
        return cls(math.prod(levels), levels)

    @property
    def counted(self) -> bool:
        """True if each code is counted, False if each level of each dimension is."""
        return self.levels is None or self.size <= MAX_COUNTED

    @property
    def entries(self) -> int:
        """The number of sums to keep: one for each code, or one for each level."""
        return self.size if self.counted or self.levels is None else sum(self.levels)
