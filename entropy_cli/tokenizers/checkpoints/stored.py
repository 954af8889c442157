"""Tensors that are still in their file, and reading safetensors as such."""

import mmap
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor

from entropy_cli.core.files import require_ordinary

Form = Literal["safetensors", "torch-zip", "torch-legacy"]


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        shape: its shape.
        dtype: its type, as torch names it without "torch.".
        read: gives it; may raise.
        kind: "plain" numbers, or why they can't be read: "sparse", "quantised" ...
        forget: lets go of what was read of its file; reading on is then reading again.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]
    kind: str = "plain"
    forget: Callable[[], object] = lambda: None

    @classmethod
    def in_memory(cls, tensor: Tensor) -> "Stored":
        """Wrap a tensor in memory."""
        return cls(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), lambda: tensor)

    def to_meta(self) -> "Stored":
        """Return the tensor without its file: reading it gives an empty tensor on the meta device."""
        return replace(
            self,
            read=lambda: torch.empty(self.shape, dtype=getattr(torch, self.dtype), device="meta"),
        )


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    Attributes:
        value: mappings and lists, with `Stored` for tensors and placeholders for unknown classes.
        form: of the file.
        classes: names of those classes.
    """

    value: Any
    form: Form
    classes: frozenset[str] = frozenset()


class UnusableError(Exception):
    """A file that is intact but can't be used; the text says why and what to do."""


LOCAL_HEADER = 30  # bytes before the name, and whatever else stands before a record

# What safetensors calls the types that torch spells otherwise; the others are like F32, I64.
SAFETENSORS = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}
LETTERS = {"F": "float", "I": "int", "U": "uint", "C": "complex"}


def read_safetensors(path: Path) -> Contents:
    """Read the names and shapes of a safetensors file, which stays memory-mapped.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    file: Any = safe_open(path, framework="pt")
    tensors = {}
    for name in file.keys():  # noqa: SIM118 - no mapping
        part = file.get_slice(name)
        dtype = name_of_type(part.get_dtype())
        tensors[name] = Stored(tuple(part.get_shape()), dtype, partial(file.get_tensor, name))
    return Contents(tensors, "safetensors")


def map_file(path: Path) -> mmap.mmap:
    """Map a file read-only: with write access, a file larger than the memory would be refused."""
    with require_ordinary(path).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def forget(memory: mmap.mmap) -> None:
    """Release the pages that were read, which count as the program's memory."""
    if hasattr(mmap, "MADV_DONTNEED"):  # Windows does so by itself
        memory.madvise(mmap.MADV_DONTNEED)


def name_of_type(theirs: str) -> str:
    """Return torch's name of a safetensors dtype."""
    return SAFETENSORS.get(theirs) or LETTERS.get(theirs[0], "") + theirs[1:]


def of_buffer(buffer: bytes | bytearray | memoryview, dtype: torch.dtype) -> Tensor:
    """View a buffer as a tensor without a copy, to be read only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they can't be written to, and nobody does
        return torch.frombuffer(buffer, dtype=torch.uint8).view(dtype)


def record_start(memory: mmap.mmap, record: zipfile.ZipInfo) -> int:
    """Return the offset of a zip record's data, after its local header (not the central one)."""
    head = record.header_offset
    lengths = [int.from_bytes(memory[head + at : head + at + 2], "little") for at in (26, 28)]
    return head + LOCAL_HEADER + sum(lengths)
