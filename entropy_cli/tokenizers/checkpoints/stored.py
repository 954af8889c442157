"""Tensors that are still in their file, and are read whole or in part."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

FileFormat = Literal["safetensors", "torch-zip", "torch-legacy"]
BytesReader = Callable[[int, int], bytearray]  # from byte, to byte

MAX_REPEATED = 2**26  # numbers of a tensor that repeats those in its file
MAX_WASTE = 4  # a part is read in one piece if this piece is at most so many times as large
MAX_READS = 2**16  # of a part that is not
MOST_NUMBERS, MOST_AXES = 2**48, 64  # in a tensor


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        shape: its shape.
        dtype: its type, as torch names it without "torch.".
        read_bytes: reads bytes of the storage it lies in.
        begin: byte of the storage at which its first number lies.
        strides: numbers between neighbours along each axis; None if it is contiguous.
        kind: "plain" numbers, or why they can't be read: "sparse", "quantised" ...
        is_swapped: whether its bytes are in the order that is not this machine's.
        verify: compares its bytes with their checksum, where the file has one; raises ValueError.
    """

    shape: tuple[int, ...]
    dtype: str
    read_bytes: BytesReader
    begin: int = 0
    strides: tuple[int, ...] | None = None
    kind: str = "plain"
    is_swapped: bool = False
    verify: Callable[[], object] = lambda: None

    @classmethod
    def in_memory(cls, tensor: Tensor) -> "Stored":
        """Wrap a tensor that is already in memory."""
        byte_N = tensor.detach().reshape(-1).contiguous().view(torch.uint8)

        def read_bytes(begin: int, end: int) -> bytearray:
            return bytearray(byte_N[begin:end].numpy())

        return cls(tuple(tensor.shape), dtype_name(tensor.dtype), read_bytes)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return getattr(torch, self.dtype)

    def read(self, *index: slice) -> Tensor:
        """Read the tensor, or a part of it, into memory.

        Args:
            index: a slice of step 1 for each of the first axes; all of the axes without one.

        Raises:
            ValueError: it repeats the numbers in its file too often, or has no plain numbers.
            OSError: the file was cut off or can't be read.
        """
        if self.kind != "plain":
            raise ValueError("not plain numbers")
        parts = (*index, *[slice(None)] * (len(self.shape) - len(index)))
        bounds = [part.indices(n)[:2] for n, part in zip(self.shape, parts, strict=True)]
        strides = contiguous_strides(self.shape) if self.strides is None else self.strides
        offset = sum(start * stride for (start, _), stride in zip(bounds, strides, strict=True))
        shape = tuple(max(0, stop - start) for start, stop in bounds)
        if math.prod(shape) > max(span(shape, strides), MAX_REPEATED):
            raise ValueError(f"repeats {span(shape, strides)} numbers until they are {math.prod(shape)}")
        return self._gather(offset, shape, strides)

    def _gather(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        """Read numbers in one piece, or in several where much between them would be read in vain."""
        number, spanned = math.prod(shape), span(shape, strides)
        if not number:
            return torch.empty(shape, dtype=self.torch_dtype)
        if spanned > MAX_WASTE * number and number // max(shape) <= MAX_READS:
            axis = max(range(len(shape)), key=lambda a: strides[a] if shape[a] > 1 else -1)
            inner = (*shape[:axis], 1, *shape[axis + 1 :])
            steps = range(offset, offset + shape[axis] * strides[axis], strides[axis])
            return torch.cat([self._gather(step, inner, strides) for step in steps], axis)
        size = self.torch_dtype.itemsize
        begin = self.begin + offset * size
        byte_N = torch.frombuffer(self.read_bytes(begin, begin + spanned * size), dtype=torch.uint8)
        if self.is_swapped:
            byte_N = byte_N.view(-1, size).flip(1).flatten()
        return byte_N.view(self.torch_dtype).as_strided(shape, strides)


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    Attributes:
        value: mappings and lists, with `Stored` for tensors and placeholders for unknown classes.
        file_format: of the file.
        classes: names of those classes.
        metadata: what a safetensors file says beside its tensors.
    """

    value: Any
    file_format: FileFormat
    classes: frozenset[str] = frozenset()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class UnusableError(Exception):
    """A file that is not damaged, and still can't be used; the text says why and what to do."""


def is_shape(value: object) -> bool:
    """Return whether a value is the shape of a tensor that could exist."""
    if not isinstance(value, list | tuple) or len(value) > MOST_AXES:
        return False
    are_sizes = all(type(n) is int and 0 <= n < 2**63 for n in value)  # True is an int, too
    return are_sizes and math.prod(max(n, 1) for n in value) <= MOST_NUMBERS


def contiguous_strides(shape: tuple[int, ...], *, fortran: bool = False) -> tuple[int, ...]:
    """Return the strides of an array without gaps, in the order of C or of Fortran."""
    axes = range(len(shape))
    return tuple(math.prod(shape[:a] if fortran else shape[a + 1 :]) for a in axes)


def dtype_name(dtype: torch.dtype) -> str:
    """Name a type as torch does, without "torch."."""
    return str(dtype).removeprefix("torch.")


def unreadable(shape: tuple[int, ...], dtype: str, kind: str) -> Stored:
    """Describe a tensor that has no plain numbers to read."""
    return Stored(shape, dtype, _no_bytes, kind=kind)


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Count the numbers from the first of a tensor to its last, with all that lie between."""
    if not all(shape):
        return 0
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))


def _no_bytes(_begin: int, _end: int) -> bytearray:
    raise ValueError("not plain numbers")
