"""Tensors in files of any common format, memory-mapped, for latents and codebooks made elsewhere."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints.checkpoint import first_line, read_contents
from entropy_cli.tokenizers.checkpoints.mapped import is_npz, map_npy, map_npz, map_safetensors
from entropy_cli.tokenizers.checkpoints.stored import Stored

FORMATS = ".safetensors, .npy, .npz or .pt"
NPY, ZIP = b"\x93NUMPY", b"PK"
Kind = Literal["floating-point numbers", "integers"]


@dataclass(frozen=True)
class Arrays:
    """Tensors of a file, in the given order of keys, else in natural order of their names."""

    path: Path
    tensors: Mapping[str, Tensor]


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
    found = _read(path)
    if not keys:
        floats = {name: t for name, t in found.items() if _is_float(t)}
        if not floats:
            raise CheckpointError(f"{path}: holds no tensors of floating-point numbers.")
        return Arrays(path, {name: _mapped(path, name, floats[name]) for name in _natural(floats)})
    for key in keys:
        _check_there(path, key, found)
        if not _is_float(found[key]):
            raise CheckpointError(f"{path}: {key} does not hold floating-point numbers.")
    return Arrays(path, {key: _mapped(path, key, found[key]) for key in keys})


@dataclass(frozen=True)
class Array:
    """A tensor of a file.

    Attributes:
        name: file and key, for people.
        shape: known before anything is read.
        forget: lets go of what was read so far, or a large file would fill the memory.
    """

    name: str
    shape: tuple[int, ...]
    forget: Callable[[], object]
    _read: Callable[[], Tensor]

    @cached_property
    def tensor(self) -> Tensor:
        """Return the tensor, memory-mapped.

        Raises:
            CheckpointError: it can't be read.
        """
        return self._read()


def open_array(text: str, kind: Kind) -> Array:
    """Open one tensor, `FILE` or `FILE:KEY`.

    Args:
        text: without a key, the only tensor of this kind in the file.
        kind: of its numbers.

    Raises:
        CheckpointError: there is no such file or key, or more than one tensor, or it is of another kind.
    """
    path, keys = split_keys(text)
    found = _read(path)
    if not keys:
        keys = [name for name in _natural(found) if _is_of(kind, found[name])]
        if not keys:
            there = ", ".join(f"{n} ({found[n].dtype})" for n in _natural(found)[:8]) or "nothing"
            raise CheckpointError(f"{path}: holds no tensor of {kind}; it has {there}.")
    if len(keys) > 1:
        raise CheckpointError(
            f"{text}: got {len(keys)} tensors of {kind}, {', '.join(keys[:8])}; expected one. "
            "Give FILE:KEY."
        )
    (key,) = keys
    _check_there(path, key, found)
    if not _is_of(kind, found[key]):
        raise CheckpointError(f"{path}: {key} is of type {found[key].dtype}, expected {kind}.")
    name = str(path) if len(found) == 1 else f"{path}:{key}"
    read = partial(_mapped, path, key, found[key])
    return Array(name, found[key].shape, found[key].forget, read)


def split_keys(text: str) -> tuple[Path, list[str]]:
    """Split `FILE[:KEY,...]` into file and keys; the name of an existing file may have colons."""
    if Path(text).exists() or ":" not in text:
        return Path(text), []
    path, _, keys = text.rpartition(":")
    return Path(path), keys.split(",")


def _natural(names: Mapping[str, Any]) -> list[str]:
    """Sort names by the numbers in them as numbers, of any length."""

    def key(part: str) -> tuple[bool, int, str]:
        digits = part.lstrip("0") if part.isdecimal() else part
        return not part.isdecimal(), len(digits) if part.isdecimal() else 0, digits

    return sorted(names, key=lambda name: [*map(key, re.split(r"(\d+)", name)), key(name)])


def _read(path: Path) -> dict[str, Stored]:
    if not path.is_file():
        what = "is no ordinary file" if path.exists() else "no such file"
        raise CheckpointError(f"{path}: {what}. Give a {FORMATS} file.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}.") from error
    try:
        if head.startswith(NPY):
            return {path.stem: map_npy(path)}
        if head.startswith(ZIP) and is_npz(path):
            return map_npz(path)
        if head[8:9] == b"{":
            return map_safetensors(path)
    except Exception as error:  # what readers raise on damaged files has no limit
        raise CheckpointError(f"{path}: a damaged file: {first_line(error)}.") from error
    value = read_contents(path).value
    return {path.stem: value} if isinstance(value, Stored) else dict(_flat(value))


def _flat(value: Any, name: str = "", depth: int = 3) -> list[tuple[str, Stored]]:  # noqa: ANN401
    """Flatten the tensors of nested mappings and lists, with dots between the keys."""
    if isinstance(value, Stored):
        return [(name, value)]
    if not depth or not isinstance(value, (Mapping, list, tuple)):
        return []
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = []
    for key, inner in items:
        found += _flat(inner, f"{name}.{key}" if name else str(key), depth - 1)
    return found


def _check_there(path: Path, key: str, found: Mapping[str, Stored]) -> None:
    if key not in found:
        alike_first = sorted(_natural(found), key=lambda name: key not in name)
        there = ", ".join(alike_first[:8]) or "nothing"
        raise CheckpointError(f"{path}: has no tensor {key}; it has {there}. Give FILE:KEY.")


def _is_of(kind: Kind, tensor: Stored) -> bool:
    if kind == "integers":
        return tensor.kind == "plain" and tensor.dtype.startswith(("int", "uint"))
    return _is_float(tensor) and not tensor.dtype.startswith("float8")


def _is_float(tensor: Stored) -> bool:
    return tensor.kind == "plain" and tensor.dtype.startswith(("float", "bfloat"))


def _mapped(path: Path, name: str, tensor: Stored) -> Tensor:
    try:
        return tensor.read()
    except Exception as error:
        raise CheckpointError(f"{path}: can't read {name}: {first_line(error)}.") from error
