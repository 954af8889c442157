"""Arrays of numpy and safetensors files, memory-mapped until they are read."""

import json
import math
import mmap
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from entropy_cli.tokenizers.checkpoints.stored import (
    Stored,
    forget,
    map_file,
    name_of_type,
    of_buffer,
    record_start,
)

# numpy's names of what torch has too, without the byte order
NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


class Header(NamedTuple):
    """The header of a numpy array, with the offset of its data."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int

    @property
    def nbytes(self) -> int:
        """The size of its data in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def kind(self) -> str:
        """The kind of its dtype: "plain" or "other"."""
        return "plain" if self.dtype.str[1:] in NUMBERS else "other"


def map_npy(path: Path) -> Stored:
    """Map the array of a .npy file.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    with path.open("rb") as file:
        header = _header(file, path.stat().st_size)
    memory = map_file(path)
    return _stored(header, partial(_map, memory, header.start, header), partial(forget, memory))


def map_npz(path: Path) -> dict[str, Stored]:
    """Map the arrays of a .npz file; compressed ones are read as a whole.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    found = {}
    memory = map_file(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                header = _header(file, member.file_size)
            if member.compress_type == zipfile.ZIP_STORED:
                start = record_start(memory, member) + header.start
                read = partial(_map, memory, start, header)
            else:
                read = partial(_unpack, path, member.filename)
            name = member.filename.removesuffix(".npy")
            found[name] = _stored(header, read, partial(forget, memory))
    return found


def is_npz(path: Path) -> bool:
    """Return whether a zip file holds numpy arrays only."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def map_safetensors(path: Path) -> dict[str, Stored]:
    """Map the tensors of a safetensors file.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    with safe_open(path, framework="np") as checked:  # that its parts lie within it
        names = list(checked.keys())
    memory = map_file(path)
    start = 8 + int.from_bytes(memory[:8], "little")
    header = json.loads(memory[8:start])

    def read(begin: int, end: int, dtype: str, shape: tuple[int, ...]) -> Tensor:
        if begin == end:
            return torch.empty(shape, dtype=getattr(torch, dtype))
        return of_buffer(memoryview(memory)[start + begin : start + end], getattr(torch, dtype)).view(
            shape
        )

    found = {}
    for name in names:
        dtype, shape = name_of_type(header[name]["dtype"]), tuple(header[name]["shape"])
        begin, end = header[name]["data_offsets"]
        read_it = partial(read, begin, end, dtype, shape)
        found[name] = Stored(shape, dtype, read_it, forget=partial(forget, memory))
    return found


def _header(file: IO[bytes], size: int) -> Header:
    """Read the header of an array of `size` bytes in all."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        header = np.lib.format.read_array_header_2_0(file)
    else:  # of records with names in other alphabets
        raise ValueError(f"an array of version {version}")
    found = Header(*header, file.tell())
    if not all(type(number) is int and number >= 0 for number in found.shape):  # True is an int, too
        raise ValueError(f"its shape is {found.shape}")
    if found.kind == "plain" and found.nbytes != size - found.start:
        raise ValueError(
            f"its shape {found.shape} of {found.dtype} takes {found.nbytes} bytes, but it has "
            f"{size - found.start}"
        )
    return found


def _stored(header: Header, read: "partial[Tensor]", forget: "partial[None]") -> Stored:
    return Stored(header.shape, header.dtype.name, read, header.kind, forget)


def _map(memory: mmap.mmap, start: int, header: Header) -> Tensor:
    number = math.prod(header.shape)
    mapped = np.frombuffer(memory, header.dtype, number, start) if number else np.empty(0, header.dtype)
    return _of_numpy(mapped.reshape(header.shape, order="F" if header.fortran else "C"))


def _unpack(path: Path, name: str) -> Tensor:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return _of_numpy(np.lib.format.read_array(file, allow_pickle=False))


def _of_numpy(array: np.ndarray) -> Tensor:
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it can't be written to, and nobody does
        return torch.from_numpy(native)
