"""Tensors in files of any common format, memory-mapped: latents and codebooks made elsewhere."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from entropy_cli.errors import CheckpointError
from entropy_cli.tokenizers.checkpoint import read_contents
from entropy_cli.tokenizers.stored import Stored

FORMATS = ".safetensors, .npy, .npz or .pt"
NPY, ZIP = b"\x93NUMPY", b"PK"


@dataclass(frozen=True)
class Arrays:
    """Some tensors of a file, in the order that was asked for, else in natural order of their names."""

    path: Path
    tensors: Mapping[str, Tensor]


def open_arrays(text: str) -> Arrays:
    """Open `FILE` or `FILE:KEY[,KEY...]`.

    Args:
        text: without keys, every tensor of floating-point numbers in the file.

    Raises:
        CheckpointError: there is no such file or key, or it can't be read, or is no floating-point
            tensor.
    """
    path, keys = _split(text)
    found = _read(path)
    if not keys:
        floats = {name: t for name, t in found.items() if _is_float(t)}
        if not floats:
            raise CheckpointError(f"{path}: holds no tensors of floating-point numbers.")
        return Arrays(path, {name: _mapped(path, name, floats[name]) for name in _natural(floats)})
    for key in keys:
        if key not in found:
            there = ", ".join(_natural(found)[:8]) or "nothing"
            raise CheckpointError(f"{path}: has no tensor {key}; it has {there}. Give FILE:KEY.")
        if not _is_float(found[key]):
            raise CheckpointError(f"{path}: {key} does not hold floating-point numbers.")
    return Arrays(path, {key: _mapped(path, key, found[key]) for key in keys})


def _split(text: str) -> tuple[Path, list[str]]:
    if Path(text).exists() or ":" not in text:
        return Path(text), []
    path, _, keys = text.rpartition(":")
    return Path(path), keys.split(",")


def _natural(names: Mapping[str, Any]) -> list[str]:
    """Names sorted with the numbers in them as numbers."""
    return sorted(
        names,
        key=lambda name: [
            (not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", name)
        ],
    )


def _read(path: Path) -> dict[str, Stored | Tensor]:
    if not path.is_file():
        what = "is no file" if path.exists() else "no such file"
        raise CheckpointError(f"{path}: {what}. Give a {FORMATS} file.")
    with path.open("rb") as file:
        head = file.read(6)
    try:
        if head == NPY:
            return {path.stem: _of_numpy(np.load(path, mmap_mode="c", allow_pickle=False))}
        if head.startswith(ZIP) and _is_npz(path):
            return _read_npz(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: a damaged file, or one of objects: {error}.") from error
    value = read_contents(path).value
    return {path.stem: value} if isinstance(value, Stored) else dict(_flat(value))


def _is_npz(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> dict[str, Stored | Tensor]:
    """Members are mapped where they lie, if they are not compressed."""
    found: dict[str, Stored | Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                shape, fortran, dtype = read(file)
                start = file.tell()
                if member.compress_type != zipfile.ZIP_STORED:
                    file.seek(0)
                    array = np.lib.format.read_array(file, allow_pickle=False)
                    found[name] = _of_numpy(array)
                    continue
            if dtype.hasobject:
                raise ValueError(f"{name} holds objects")
            offset = _data_offset(path, member) + start
            order: Literal["F", "C"] = "F" if fortran else "C"
            mapped: np.ndarray = np.memmap(path, dtype, "c", offset, shape, order)
            found[name] = _of_numpy(mapped)
    return found


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose extra field is its own."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return member.header_offset + 30 + name + extra


def _of_numpy(array: np.ndarray) -> Tensor:
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(native)


def _flat(value: Any, name: str = "", depth: int = 3) -> list[tuple[str, Stored]]:  # noqa: ANN401
    """Tensors in nested mappings and lists, with dots between the keys."""
    if isinstance(value, Stored):
        return [(name, value)]
    if not depth or not isinstance(value, (Mapping, list, tuple)):
        return []
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = []
    for key, inner in items:
        found += _flat(inner, f"{name}.{key}" if name else str(key), depth - 1)
    return found


def _is_float(tensor: Stored | Tensor) -> bool:
    if isinstance(tensor, Tensor):
        return tensor.is_floating_point()
    return tensor.kind == "plain" and tensor.dtype.startswith(("float", "bfloat"))


def _mapped(path: Path, name: str, tensor: Stored | Tensor) -> Tensor:
    if isinstance(tensor, Tensor):
        return tensor
    try:
        return tensor.read()
    except Exception as error:
        raise CheckpointError(f"{path}: can't read {name}: {error}") from error
