"""Opening checkpoints: the only place that does, and it never runs what a file contains.

Tensors stay on disk (memory-mapped) until one is asked for, so a decoder is not loaded; only torch's
oldest format has to be read whole, and is let go of when the checkpoint is closed.
"""

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from entropy_cli.errors import CheckpointError

# Where a state dict lies inside a training checkpoint, in the order to try.
WRAPPERS = ("trainer.vae_local",)
NO_CHECKPOINT = "not a checkpoint, or a damaged one. Expected .pth, .pt or .safetensors."


class Checkpoint:
    """Names and shapes of the tensors in a file, and the tensors one at a time.

    Attributes:
        path: the file.
        wrapper: where in the file the state dict was found, "" for the top.
        shapes: shape of every tensor by name.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], Tensor],
        wrapper: str = "",
    ) -> None:
        self.path, self.shapes, self.wrapper, self._read = path, shapes, wrapper, read

    def tensor(self, name: str) -> Tensor:
        """One weight, as float32.

        Raises:
            CheckpointError: it can't be read, or is no plain tensor of floats.
        """
        try:
            tensor = self._read(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"{self.path}: can't read {name}: {first_line(error)}") from error
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"{self.path}: {name} is a {tensor.layout} tensor of {tensor.dtype} on "
                f"{tensor.device}, expected plain floating-point numbers."
            )
        # A copy even of float32: the file must not be needed, or be able to change, while a run uses it.
        return tensor.to(torch.float32, copy=True)

    def close(self) -> None:
        """Let go of the file and of what was read from it; names, shapes and hash remain."""
        self._read = _closed

    def sha256(self, progress: Callable[[int], object] = lambda _: None) -> str:
        """Hash of the whole file; `progress` is given the bytes read each time."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while piece := file.read(2**24):
                digest.update(piece)
                progress(len(piece))
        return digest.hexdigest()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a `.safetensors` file or a torch `.pth`/`.pt`; which one is told by content.

    Raises:
        CheckpointError: there is no such file, or it is not a checkpoint, or one that is damaged, or
            one that would have to run code to be read.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file. Give a checkpoint with --ckpt.")
    if not path.is_file():
        raise CheckpointError(f"{path}: is not a file. Give a .pth, .pt or .safetensors file.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    if head.startswith(b"version https:/"):
        raise CheckpointError(
            f"{path}: is a git-lfs pointer, not the checkpoint it points to. Run git lfs pull."
        )
    # safetensors: the length of a JSON header, then the header.
    return _open_safetensors(path) if head[8:9] == b"{" else _open_torch(path)


def _open_safetensors(path: Path) -> Checkpoint:
    try:
        file: Any = safe_open(path, framework="pt")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # what the reader raises on damaged files has no limit
        raise CheckpointError(
            f"{path}: a damaged safetensors file ({first_line(error)}). Copy or download it again."
        ) from error
    return Checkpoint(path, shapes, file.get_tensor)


def _open_torch(path: Path) -> Checkpoint:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # about pickle protocols and old storages; errors remain
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if name is None:
            raise CheckpointError(f"{path}: {NO_CHECKPOINT}") from error
        raise CheckpointError(
            f"{path}: reading it could run code, which is never done: it holds a {name[1]}. "
            "Save its state dict alone, with torch.save or as safetensors."
        ) from error
    except Exception as error:  # what the reader raises on damaged files has no limit
        raise CheckpointError(f"{path}: {NO_CHECKPOINT}") from error
    state, wrapper = _unwrap(content)
    tensors = _tensors(state)
    if not tensors:
        kind = f"a dict with keys {', '.join(map(str, list(state)[:6]))}" if state else "no dict"
        raise CheckpointError(f"{path}: holds no tensors by name (got {kind}), expected a state dict.")
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return Checkpoint(path, shapes, tensors.__getitem__, wrapper)


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {k: value for k, value in state.items() if isinstance(k, str) and isinstance(value, Tensor)}


def _unwrap(content: Any) -> tuple[Mapping[str, Any], str]:  # noqa: ANN401 - a file may hold anything
    """The state dict inside what a file holds, and where it was: a known place, else the largest."""
    found = {name: inner for name, inner in _mappings(content) if _tensors(inner)}
    for name in WRAPPERS:
        if name in found:
            return found[name], name
    if not found:
        return (content if isinstance(content, Mapping) else {}), ""
    largest = max(found, key=lambda name: len(_tensors(found[name])))
    return found[largest], largest


def _mappings(content: Any, name: str = "", depth: int = 2) -> Iterator[tuple[str, Mapping[Any, Any]]]:  # noqa: ANN401
    """A mapping and those inside it, by their keys with dots between."""
    if isinstance(content, Mapping):
        yield name, content
        for key, value in content.items() if depth else ():
            yield from _mappings(value, f"{name}.{key}".lstrip("."), depth - 1)


def _closed(name: str) -> Tensor:
    raise RuntimeError(f"{name} was asked for after the checkpoint was closed")


def first_line(error: BaseException) -> str:
    """An error's first line, short enough for one of ours."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:160]
