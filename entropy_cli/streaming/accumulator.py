"""The protocol of the statistics that a run accumulates; their only operation is `+`.

Resume, shards, processes and merging need nothing else of it, so that another statistic on the same pass
is one more class of this shape. `entropy.tally.Tally` is the first.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from entropy_cli.entropy.sums import ImageSums, SumsLayout

Self_ = TypeVar("Self_", bound="Accumulator")


class Accumulator(Protocol):
    """Sums over images, kept on one device.

    Attributes:
        NAME: of its section in a saved state.
        VERSION: of that section; another version is not read.
        CONSTANTS: tensors of the state dict that describe the sums and are not added up.
    """

    NAME: ClassVar[str]
    VERSION: ClassVar[int]
    CONSTANTS: ClassVar[tuple[str, ...]]

    @classmethod
    def zeros(cls: type[Self_], layout: SumsLayout, device: torch.device | str = "cpu") -> Self_:
        """Make the neutral element of `+`."""
        ...

    def add(self, group_B: Tensor, scales: Sequence[ImageSums]) -> None:
        """Add a batch of images in place, given their jackknife groups and their sums at every scale."""
        ...

    def __add__(self: Self_, other: Self_) -> Self_:
        """Return the statistic of the union of two disjoint sets of images."""
        ...

    def to(self: Self_, device: torch.device | str) -> Self_:
        """Copy to a device; return the accumulator itself if it is there already."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor by name."""
        ...

    @classmethod
    def from_state_dict(
        cls: type[Self_], tensors: Mapping[str, Tensor], layout: SumsLayout, images: int
    ) -> Self_:
        """Rebuild it from tensors that may have been damaged.

        Args:
            tensors: what `state_dict` gave, on the CPU.
            layout: the shapes that the run's settings ask for.
            images: how many images were summed up.

        Raises:
            ValueError: names, types, shapes or values that no such sums can have.
        """
        ...
