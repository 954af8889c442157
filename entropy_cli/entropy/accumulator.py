"""Sufficient statistics of a run: named sums over images by jackknife group, added by `+`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from entropy_cli.entropy.sums import SumsLayout

ROUNDING = 1e-6  # relative, of sums in float64 of numbers that were float32
Sums = TypeVar("Sums", bound="Accumulator")


@dataclass
class Accumulator(ABC):
    """Sums over the images read so far, for G groups and S scales.

    The name of every tensor ends in its shape, a letter for each axis. Sums are float64, counts int64.
    Adding two accumulators of disjoint images gives that of their union.
    """

    NAME: ClassVar[str]
    VERSION: ClassVar[int]
    INTEGERS: ClassVar[tuple[str, ...]] = ("tokens_S", "images_G")
    CONSTANTS: ClassVar[tuple[str, ...]] = ("tokens_S",)
    SIGNED: ClassVar[tuple[str, ...]] = ()  # what may be negative

    tokens_S: Tensor  # tokens of an image at each scale: a constant, not a sum
    images_G: Tensor

    @classmethod
    def zeros(cls: type[Sums], layout: SumsLayout, device: torch.device | str = "cpu") -> Sums:
        """Return empty sums, the neutral element of `+`."""
        size = {"G": layout.groups, "S": len(layout.tokens_S), "T": layout.temperatures}
        size["E"] = max(vocabulary.entries for vocabulary in layout.vocabularies)
        tensors = {}
        for field in fields(cls):
            shape = [size[axis] for axis in field.name.rpartition("_")[2]]
            dtype = torch.int64 if field.name in cls.INTEGERS else torch.float64
            tensors[field.name] = torch.zeros(shape, dtype=dtype, device=device)
        tensors["tokens_S"] += torch.tensor(layout.tokens_S, device=device)
        return cls(**tensors)

    def __add__(self: Sums, other: Sums) -> Sums:
        """Return the sums over the union of two disjoint sets of images."""
        if not torch.equal(self.tokens_S, other.tokens_S):
            raise ValueError("sums of different scales can't be added")
        left, right = self.state_dict(), other.state_dict()
        added = {name: left[name] + right[name] for name in left if name not in self.CONSTANTS}
        return type(self)(tokens_S=self.tokens_S, **added)

    def to(self: Sums, device: torch.device | str) -> Sums:
        """Copy to a device; a tensor that is there already is not copied."""
        return type(self)(**{name: tensor.to(device) for name, tensor in self.state_dict().items()})

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor by name."""
        return dict(vars(self))

    @property
    @abstractmethod
    def watched(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `history_point`: what a run watches on the way."""

    @classmethod
    def from_state_dict(
        cls: type[Sums], tensors: Mapping[str, Tensor], layout: SumsLayout, images: int
    ) -> Sums:
        """Rebuild the sums from tensors that may have been damaged.

        Args:
            tensors: the output of `state_dict`, on the CPU.
            layout: the shapes according to the run's settings.
            images: the number of images summed up.

        Raises:
            ValueError: names, dtypes, shapes or values are not those of sums over that many images.
        """
        empty = cls.zeros(layout).state_dict()
        if tensors.keys() != empty.keys():
            wrong = ", ".join(sorted(tensors.keys() ^ empty.keys()))
            raise ValueError(f"has missing or unknown tensors: {wrong}")
        for name, zero in empty.items():
            tensor = tensors[name]
            if (tensor.dtype, tensor.shape) != (zero.dtype, zero.shape):
                got = f"{tensor.dtype} of shape {list(tensor.shape)}"
                raise ValueError(f"{name} is {got}, expected {zero.dtype} of shape {list(zero.shape)}")
            if not tensor.isfinite().all():
                raise ValueError(f"{name} has NaN or infinity")
            if name not in cls.SIGNED and (tensor < -ROUNDING).any():
                raise ValueError(f"{name} has negative values")
        sums = cls(**tensors)
        if sums.tokens_S.tolist() != list(layout.tokens_S) or int(sums.images_G.sum()) != images:
            raise ValueError(f"its sums are not of {images} images of these scales")
        sums.check_values(layout)
        return sums

    @abstractmethod
    def check_values(self, layout: SumsLayout) -> None:
        """Raise ValueError for values that no images give."""
