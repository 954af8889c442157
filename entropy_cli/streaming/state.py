"""The saved state of a run: found again, checked, locked, replaced whole."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from entropy_cli import __version__
from entropy_cli.core.errors import StateError
from entropy_cli.core.files import cache_folder, remove_leftovers, write_atomically
from entropy_cli.streaming.saved import Saved, saved_from

SCHEMA = "entropy-cli/state"
SCHEMA_VERSION = 4
HASHED_BYTES = 2**24  # at once
HASHES = {
    "checkpoint_sha256": "another checkpoint than {whose}'s",
    "images_fingerprint": "other images than {whose}'s: other paths or sizes",
}


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of everything that changes the number: the images, the checkpoint, the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def default_path(fingerprint: str, shard: tuple[int, int] | None) -> Path:
    """Where the state of a run lives when the user names no file."""
    part = f"-{shard[0]}-of-{shard[1]}" if shard else ""
    return cache_folder() / f"{fingerprint[:32]}{part}.safetensors"


def save(path: Path, saved: Saved) -> None:
    """Write the state, replacing what was there only when it is complete."""
    progress = saved.progress
    tensors, sections = {"blocks_done": progress.blocks_done}, {}
    for name, accumulator in progress.accumulators.items():
        state = accumulator.to("cpu").state_dict()
        shapes = {key: list(tensor.shape) for key, tensor in state.items()}
        sections[name] = {"version": accumulator.VERSION, "shapes": shapes}
        tensors |= {f"{name}.{key}": tensor.contiguous() for key, tensor in state.items()}
    meta = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tool_version": __version__,
        "settings": saved.settings,
        "about": saved.about.to_json(),
        "shard": saved.shard,
        "temperatures": progress.temperatures,
        "failed": progress.failed,
        "history": [asdict(entry) for entry in progress.history],
        "pilot": progress.pilot,
        "precision_check": progress.precision_check,
        "accumulators": sections,
    }
    text = json.dumps(meta, allow_nan=False)
    metadata = {"entropy-cli": text, "sha256": checksum(text, tensors)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def checksum(meta: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash the meta data and every tensor with its name, type and shape."""
    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        for piece_N in torch.split(tensor.flatten().view(torch.uint8), HASHED_BYTES):
            digest.update(piece_N.numpy().tobytes())
    return digest.hexdigest()


def load(path: Path) -> Saved:
    """Read a state.

    Raises:
        StateError: the file is no state, of another version, damaged, or not what its settings ask for.
    """
    if not path.is_file():
        what = "is no ordinary file" if path.exists() else "no such file"
        raise StateError(f"{path}: {what}. Give the --state file of a run.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata.get("entropy-cli", "{}")
        meta = json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise StateError(
            f"{path}: can't be read as a saved state ({error}). Give the --state file of a run, or "
            "remove this one if it is one that was damaged."
        ) from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise StateError(f"{path}: is not a saved state. Give another --state.")
    if meta.get("schema_version") != SCHEMA_VERSION:
        writer = meta.get("tool_version", "0.1.0 or before")
        raise StateError(
            f"{path}: a state of version {meta.get('schema_version')}, written by entropy-cli {writer}; "
            f"this is {__version__} and reads version {SCHEMA_VERSION}. Finish it with that, or give "
            "another --state."
        )
    try:
        if metadata.get("sha256") != checksum(text, tensors):
            raise ValueError("its checksum is another")
        return saved_from(meta, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise StateError(
            f"{path}: a damaged state ({error}). Remove it, or give another --state."
        ) from error


def check_same(
    path: Path, got: Mapping[str, Any], expected: Mapping[str, Any], whose: str = "this run"
) -> None:
    """Raise StateError naming the first setting of a saved state that differs."""
    expected = json.loads(json.dumps(expected))
    # Hashes last: they differ with anything else, and say less.
    for name in sorted({*got, *expected}, key=lambda name: (name in HASHES, name)):
        if got.get(name) != expected.get(name):
            what = f"{name} {_short(got.get(name))}, but {whose} has {_short(expected.get(name))}"
            if name in HASHES:
                what = HASHES[name].format(whose=whose)
            raise StateError(
                f"{path}: was saved with {what}. Use the same settings, or another --state."
            )


@contextmanager
def locked(path: Path, option: str = "--state") -> Iterator[None]:
    """Keep other runs off a state while this one uses it.

    Args:
        path: of the state.
        option: that the user may choose another place with.

    Raises:
        StateError: another run is using it, or the folder can't be written to.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(lock)
    except BlockingIOError as error:
        raise StateError(
            f"{path}: another run is using this state. Wait for it, or give another {option}."
        ) from error
    except OSError as error:
        raise StateError(
            f"{lock}: can't lock the state: {error.strerror}. Give an {option} where you may write."
        ) from error
    try:
        remove_leftovers(path)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(file)


def _lock(lock: Path) -> int:
    """An open, locked file; anew if it was removed between the opening and the locking."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # A record lock, because a decoding worker that outlives a killed run must not inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and lock.stat().st_ino == os.fstat(file).st_ino:
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
