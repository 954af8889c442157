"""Read .npy and .npz files: shapes and types first, numbers when they are needed."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import IO

import numpy as np

from entropy_cli.core.reading import OpenFile
from entropy_cli.tokenizers.checkpoints.stored import BytesReader, Stored, contiguous_strides
from entropy_cli.tokenizers.checkpoints.zips import ZipRecords

# numpy's names of the types that torch has too, without the byte order
PLAIN = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def read_npy(file: OpenFile) -> Stored:
    """Describe the array of a .npy file.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    return _describe(file.reader(), file.size, file.read)


def read_npz(records: ZipRecords) -> dict[str, Stored]:
    """Describe the arrays of a .npz file; one that is compressed is read as a whole.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    found = {}
    for name, info in records.infos.items():
        is_packed = info.compress_type != 0
        read = _unpacked(records, name) if is_packed else partial(records.read, name)
        with records.archive.open(name) as head:
            array = _describe(head, info.file_size, read, partial(records.verify, name))
        found[name.removesuffix(".npy")] = array
    return found


def is_npz(records: ZipRecords) -> bool:
    """Return whether a zip file holds arrays of numpy and nothing else."""
    return bool(records.infos) and all(name.endswith(".npy") for name in records.infos)


def _unpacked(records: ZipRecords, name: str) -> BytesReader:
    content = cache(partial(records.read, name))
    return lambda begin, end: content()[begin:end]


def _describe(
    head: IO[bytes], size: int, read: BytesReader, verify: Callable[[], object] = lambda: None
) -> Stored:
    """Describe an array by its header; it takes so many bytes in all."""
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
    else:  # of records with names in other alphabets
        raise ValueError(f"an array of version {version}")
    if not all(type(number) is int and number >= 0 for number in shape):  # True is an int, too
        raise ValueError(f"its shape is {shape}")
    begin, nbytes = head.tell(), math.prod(shape) * dtype.itemsize
    kind = "plain" if dtype.str[1:] in PLAIN else "other"
    if kind == "plain" and nbytes != size - begin:
        raise ValueError(f"its shape {shape} of {dtype} takes {nbytes} bytes, but it has {size - begin}")
    strides = contiguous_strides(shape, fortran=fortran)
    swapped = not dtype.isnative
    return Stored(shape, dtype.name, read, begin, strides, kind, swapped, verify)
