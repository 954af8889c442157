"""Tensors in files of any common format: latents, codebooks, logits and labels made elsewhere."""

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.reading import OpenFile
from entropy_cli.tokenizers.checkpoints.contents import first_line, is_zip, open_file, read_contents
from entropy_cli.tokenizers.checkpoints.states import MOST_CHARACTERS
from entropy_cli.tokenizers.checkpoints.stored import (
    BytesReader,
    Stored,
    UnusableError,
    contiguous_strides,
    is_shape,
)
from entropy_cli.tokenizers.checkpoints.zips import ZipRecords

FORMATS = ".safetensors, .npy, .npz or .pt"
NPY = b"\x93NUMPY"
NESTED = 3  # levels of mappings and lists
Kind = Literal["floating-point numbers", "integers"]
# numpy's names of the types that torch has too, without the byte order
PLAIN = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


@dataclass(frozen=True)
class Array:
    """One tensor of a file, which is read in parts.

    Attributes:
        path: of the file.
        name: file and key, for messages.
        shape: known before anything is read.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    _stored: Stored

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return self._stored.torch_dtype

    def read(self, *index: slice) -> Tensor:
        """Read a part of the tensor, slices of its first axes of step 1, or all of it.

        Raises:
            CheckpointError: it can't be read.
        """
        try:
            return self._stored.read(*index)
        except Exception as error:  # what readers raise on damaged files has no limit
            reason = getattr(error, "strerror", None) or first_line(error)
            raise CheckpointError(f"{self.name}: can't be read: {reason}.") from error


@dataclass(frozen=True)
class Arrays:
    """Some tensors of a file, in the order that was given, else in natural order of their names."""

    file: OpenFile
    tensors: Mapping[str, Array]

    @property
    def path(self) -> Path:
        """The file's path."""
        return self.file.path


def open_arrays(text: str) -> Arrays:
    """Open `FILE` or `FILE:KEY[,KEY...]`.

    Args:
        text: without keys, every tensor of floating-point numbers in the file.

    Raises:
        CheckpointError: there is no such file or key, or one is given twice, or can't be read, or is no
            floating-point tensor.
    """
    path, keys = split_keys(text)
    if len(set(keys)) < len(keys):
        raise CheckpointError(f"{text}: a tensor is named twice. Give each FILE:KEY[,KEY...] once.")
    file, found = _open(path)
    keys = keys or [name for name in _natural(found) if _is_float(found[name])]
    if not keys:
        raise CheckpointError(f"{path}: holds no tensors of floating-point numbers.")
    for key in keys:
        if not _is_float(_named(path, key, found)):
            raise CheckpointError(f"{path}: {key} does not hold floating-point numbers.")
    return Arrays(file, {key: _verified(path, f"{path}:{key}", found[key]) for key in keys})


def open_array(text: str, kind: Kind) -> Array:
    """Open one tensor, `FILE` or `FILE:KEY`.

    Args:
        text: without a key, the only tensor of this kind in the file.
        kind: of its numbers.

    Raises:
        CheckpointError: there is no such file or key, or more than one tensor, or it is of another kind.
    """
    path, keys = split_keys(text)
    _, found = _open(path)
    keys = keys or [name for name in _natural(found) if _is_of(kind, found[name])]
    if not keys:
        there = ", ".join(f"{n} ({found[n].dtype})" for n in _natural(found)[:8]) or "nothing"
        raise CheckpointError(f"{path}: holds no tensor of {kind}; it has {there}.")
    if len(keys) > 1:
        raise CheckpointError(
            f"{text}: got {len(keys)} tensors of {kind}, {', '.join(keys[:8])}; expected one. "
            "Give FILE:KEY."
        )
    (key,) = keys
    tensor = _named(path, key, found)
    if not _is_of(kind, tensor):
        raise CheckpointError(f"{path}: {key} is of type {tensor.dtype}, expected {kind}.")
    return _verified(path, str(path) if len(found) == 1 else f"{path}:{key}", tensor)


def split_keys(text: str) -> tuple[Path, list[str]]:
    """Split `FILE[:KEY,...]` into file and keys; an existing file may have colons in its name."""
    if Path(text).exists() or ":" not in text:
        return Path(text), []
    path, _, keys = text.rpartition(":")
    return Path(path), keys.split(",")


def _natural(names: Mapping[str, Any]) -> list[str]:
    """Sort names with the numbers in them as numbers, of any length."""

    def key(part: str) -> tuple[bool, int, str]:
        digits = part.lstrip("0") if part.isdecimal() else part
        return not part.isdecimal(), len(digits) if part.isdecimal() else 0, digits

    return sorted(names, key=lambda name: [*map(key, re.split(r"(\d+)", name)), key(name)])


def _open(path: Path) -> tuple[OpenFile, dict[str, Stored]]:
    if not path.is_file():
        what = "is no ordinary file" if path.exists() else "no such file"
        raise CheckpointError(f"{path}: {what}. Give a {FORMATS} file.")
    file = open_file(path)
    try:
        if file.read(0, min(6, file.size)) == NPY:
            return file, {path.stem: _read_npy(file.reader(), file.size, file.read)}
        records = ZipRecords(file) if is_zip(file) else None
        if records and records.infos and all(name.endswith(".npy") for name in records.infos):
            found = {name.removesuffix(".npy"): _read_record(records, name) for name in records.infos}
            return file, found
    except UnusableError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # what readers raise on damaged files has no limit
        raise CheckpointError(f"{path}: a damaged file: {first_line(error)}.") from error
    value = read_contents(file).value
    return file, {path.stem: value} if isinstance(value, Stored) else _flat(value)


def _read_record(records: ZipRecords, name: str) -> Stored:
    """Describe an array of a .npz file; one that is compressed is read as a whole."""
    info = records.infos[name]
    read: BytesReader = partial(records.read, name)
    if info.compress_type != 0:
        content = cache(partial(records.read, name))
        read = lambda begin, end: content()[begin:end]  # noqa: E731
    with records.archive.open(name) as head:
        return _read_npy(head, info.file_size, read, partial(records.verify, name))


def _read_npy(
    head: IO[bytes], size: int, read: BytesReader, verify: Callable[[], object] = lambda: None
) -> Stored:
    """Describe an array by its header; it takes so many bytes in all."""
    version = np.lib.format.read_magic(head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
        else:  # of records with names in other alphabets
            raise ValueError(f"an array of version {version}")
    if not is_shape(shape):
        raise ValueError(f"its shape is {shape}")
    begin, nbytes = head.tell(), math.prod(shape) * dtype.itemsize
    kind = "plain" if dtype.str[1:] in PLAIN else "other"
    if kind == "plain" and nbytes != size - begin:
        raise ValueError(f"its shape {shape} of {dtype} takes {nbytes} bytes, but it has {size - begin}")
    strides = contiguous_strides(shape, fortran=fortran)
    swapped = not dtype.isnative
    return Stored(shape, dtype.name, read, begin, strides, kind, swapped, verify)


def _flat(value: Any) -> dict[str, Stored]:  # noqa: ANN401
    """Return the tensors in nested mappings and lists by their keys with dots between.

    Those of longer keys than MOST_CHARACTERS are left out: a key is repeated before all that is in it.
    """
    found: dict[str, Stored] = {}
    level: list[tuple[str, Any]] = [("", value)] if isinstance(value, (Mapping, list, tuple)) else []
    seen = set()
    for _ in range(NESTED):
        inside: list[tuple[str, Any]] = []
        for name, outer in level:
            if id(outer) not in seen:
                seen.add(id(outer))  # a small pickle may hold one many times
                items = outer.items() if isinstance(outer, Mapping) else enumerate(outer)
                inside += [
                    (f"{name}.{key}" if name else str(key), inner)
                    for key, inner in items
                    if isinstance(inner, (Stored, Mapping, list, tuple))
                    and len(str(key)) <= MOST_CHARACTERS
                ]
        found |= {name: inner for name, inner in inside if isinstance(inner, Stored)}
        level = [item for item in inside if not isinstance(item[1], Stored)]
    return found


def _named(path: Path, key: str, found: Mapping[str, Stored]) -> Stored:
    if key not in found:
        alike_first = sorted(_natural(found), key=lambda name: key not in name)
        there = ", ".join(alike_first[:8]) or "nothing"
        raise CheckpointError(f"{path}: has no tensor {key}; it has {there}. Give FILE:KEY.")
    return found[key]


def _verified(path: Path, name: str, tensor: Stored) -> Array:
    """Return a tensor of a file after comparing it with its checksum, where the file has one."""
    try:
        tensor.verify()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: {reason}. Make or copy it again.") from error
    return Array(path, name, tensor.shape, tensor)


def _is_of(kind: Kind, tensor: Stored) -> bool:
    if kind == "integers":
        return tensor.kind == "plain" and tensor.dtype.startswith(("int", "uint"))
    return _is_float(tensor) and not tensor.dtype.startswith("float8")


def _is_float(tensor: Stored) -> bool:
    return tensor.kind == "plain" and tensor.dtype.startswith(("float", "bfloat"))
