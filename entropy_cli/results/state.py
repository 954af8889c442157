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

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from entropy_cli.engine.progress import Progress
from entropy_cli.errors import StateError
from entropy_cli.files import cache_folder, remove_leftovers, write_atomically
from entropy_cli.functional.quantity import HistoryPoint
from entropy_cli.functional.tally import Tally

SCHEMA = "entropy-cli/state"
SCHEMA_VERSION = 1
HASHES = {
    "checkpoint_sha256": "another checkpoint than this run's",
    "images_fingerprint": "other images than this run's: other paths or sizes",
}


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of everything that changes the number: the images, the checkpoint, the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def default_path(fingerprint: str) -> Path:
    """Where the state of a run lives when the user names no file."""
    return cache_folder() / f"{fingerprint[:32]}.safetensors"


def save(path: Path, progress: Progress, settings: Mapping[str, Any]) -> None:
    """Write the state, replacing what was there only when it is complete.

    Args:
        path: the file.
        progress: what to save.
        settings: everything that must be the same for another run to go on from it.
    """
    tensors = {"blocks_done": progress.blocks_done}
    if progress.tally is not None:
        tensors |= {f"tally.{name}": t for name, t in progress.tally.to("cpu").tensors().items()}
    meta = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "settings": settings,
        "temperatures": progress.temperatures,
        "failed": progress.failed,
        "history": [asdict(entry) for entry in progress.history],
        "pilot": progress.pilot,
    }
    metadata = {"entropy-cli": json.dumps(meta, allow_nan=False)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def load(path: Path, settings: Mapping[str, Any]) -> Progress:
    """Read a state that a run with these settings may go on from.

    Raises:
        StateError: the file is damaged, of a newer version, or of other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("entropy-cli", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StateError(
            f"{path}: can't be read as a saved state ({error}). Remove it, or give another --state."
        ) from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise StateError(f"{path}: is not a saved state. Give another --state.")
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise StateError(
            f"{path}: a state of version {meta.get('schema_version')}, this program reads "
            f"{SCHEMA_VERSION}. Use the version that wrote it, or another --state."
        )
    try:
        check_same(path, meta["settings"], settings)
        sums = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("tally.")}
        return Progress(
            blocks_done=tensors["blocks_done"],
            temperatures=meta["temperatures"],
            tally=Tally(**sums) if sums else None,
            failed=[(name, reason) for name, reason in meta["failed"]],
            history=[HistoryPoint(**entry) for entry in meta["history"]],
            pilot=meta["pilot"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"{path}: a damaged state. Remove it, or give another --state.") from error


def check_same(path: Path, got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise StateError naming the first setting of a saved state that differs."""
    expected = json.loads(json.dumps(expected))
    # Hashes last: they differ with anything else, and say less.
    for name in sorted({*got, *expected}, key=lambda name: (name in HASHES, name)):
        if got.get(name) != expected.get(name):
            what = HASHES.get(name) or (
                f"{name} {_short(got.get(name))}, but this run has {_short(expected.get(name))}"
            )
            raise StateError(
                f"{path}: was saved with {what}. Use the same settings, or another --state."
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs off a state while this one uses it.

    Raises:
        StateError: another run is using it, or the folder can't be written to.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(lock)
    except BlockingIOError as error:
        raise StateError(
            f"{path}: another run is using this state. Wait for it, or give another --state."
        ) from error
    except OSError as error:
        raise StateError(
            f"{lock}: can't lock the state: {error.strerror}. Give a --state where you may write."
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
