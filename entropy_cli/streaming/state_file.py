"""The file that holds the state of a run: save, load, resume from, compare and lock it."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from entropy_cli import __version__
from entropy_cli.core.errors import DatasetError, EntropyCliError, ResultError, StateError
from entropy_cli.core.files import cache_folder, remove_leftovers, write_atomically
from entropy_cli.core.reading import OpenFile, parse_json
from entropy_cli.core.signals import TEMPORARY
from entropy_cli.images.plan import BLOCK, number_of_blocks, plan_batches, shard_blocks
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.run_settings import PATH, RunSettings
from entropy_cli.streaming.state import RunState, StateDocument, state_from_file
from entropy_cli.tokenizers.checkpoints.safetensorsfile import read_safetensors

logger = logging.getLogger(__name__)

SCHEMA = "entropy-cli/state"
SCHEMA_VERSION = 5
HASHED_BYTES = 2**24  # at once
HASHES = {
    "checkpoint_sha256": "another checkpoint than {whose}'s",
    "model_sha256": "another model than {whose}'s",
    "labels_sha256": "other labels than {whose}'s",
    "tokens_sha256": "other tokens than {whose}'s",
    "images_fingerprint": "other images than {whose}'s: other paths or sizes",
}


def default_path(fingerprint: str, shard: tuple[int, int] | None) -> Path:
    """Return where the state of a run is kept when the user names no file."""
    part = f"-{shard[0]}-of-{shard[1]}" if shard else ""
    return cache_folder() / f"{fingerprint[:32]}{part}.safetensors"


def save(path: Path, state: RunState) -> None:
    """Write the state, replacing what was there only when it is complete."""
    progress = state.progress
    tensors, sections = {"blocks_done": progress.blocks_done, "digests": progress.digest_N}, {}
    if progress.losses is not None:
        tensors["nats"] = progress.nats_N
    for accumulator in progress.accumulators:
        name, sums = accumulator.NAME, accumulator.to("cpu").state_dict()
        shapes = {key: list(tensor.shape) for key, tensor in sums.items()}
        sections[name] = {"version": accumulator.VERSION, "shapes": shapes}
        tensors |= {f"{name}.{key}": tensor.contiguous() for key, tensor in sums.items()}
    document = StateDocument(
        state.settings.to_json(),
        state.metadata,
        state.shard,
        progress.temperatures,
        progress.failed,
        progress.history,
        progress.pilot,
        progress.precision_check,
        sections,
        progress.model_check,
        progress.runs,
    )
    head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "tool_version": __version__}
    text = json.dumps({**head, **asdict(document)}, allow_nan=False)
    metadata = {"entropy-cli": text, "sha256": checksum(text, tensors)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata), announced=False)


def try_to_save(path: Path, state: RunState) -> ResultError | None:
    """Write the state; return why it can't be written, after a warning: the result can still be had."""
    try:
        save(path, state)
    except ResultError as error:
        logger.warning("%s The run goes on, but can't be resumed from here.", error)
        return error
    return None


def checksum(meta: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash the meta data and every tensor with its name, type and shape."""
    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        for piece_N in torch.split(tensor.flatten().view(torch.uint8), HASHED_BYTES):
            digest.update(piece_N.numpy().tobytes())
    return digest.hexdigest()


def load(path: Path) -> RunState:
    """Read a state.

    Raises:
        StateError: the file is no state, of another version, damaged, or not what its settings ask for.
    """
    if not path.is_file():
        what = "is no ordinary file" if path.exists() else "no such file"
        raise StateError(f"{path}: {what}. Give the --state file of a run.")
    try:
        contents = read_safetensors(OpenFile(path))
        metadata = contents.metadata
        tensors = {name: stored.read() for name, stored in contents.value.items()}
        text = str(metadata.get("entropy-cli", "{}"))
        meta = parse_json(text.encode())
    except (OSError, ValueError) as error:
        raise StateError(
            f"{path}: can't be read as a saved state ({error}). Give the --state file of a "
            "run, or another --state to start one."
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
        return state_from_file(meta, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise StateError(
            f"{path}: a damaged state ({error}). Remove it, or give another --state."
        ) from error


def resume(
    path: Path,
    settings: RunSettings,
    shard: tuple[int, int] | None,
    ranks: Ranks,
    stack: contextlib.ExitStack,
    *,
    fail_at_first: bool,
) -> Progress:
    """Return the saved progress of a run of the same settings, or a fresh one.

    The first process reads the file, and locks it until the stack is left; the others get everything
    but the sums.

    Raises:
        StateError: the state is in use, damaged, or of another run.
        DatasetError: an image could not be read and `fail_at_first`.
    """
    found: Progress | EntropyCliError | None = None
    if ranks.first:
        try:
            stack.enter_context(locked(path))
            found = _saved_progress(path, settings, shard)
            if found.failed and fail_at_first:
                name, reason = found.failed[0]
                raise DatasetError(f"{name}: could not be read: {reason}. Stopped by --on-error fail.")
        except EntropyCliError as error:
            found = error
    shared = replace(found, tally=None, losses=None) if isinstance(found, Progress) else found
    shared = ranks.broadcast_from_first(shared)
    if isinstance(shared, EntropyCliError):
        raise shared
    assert shared is not None
    if isinstance(found, Progress):
        return found
    digest_N, nats_N = torch.zeros_like(shared.digest_N), torch.zeros_like(shared.nats_N)
    return replace(shared, images=0, failed=[], digest_N=digest_N, nats_N=nats_N)


def _saved_progress(path: Path, settings: RunSettings, shard: tuple[int, int] | None) -> Progress:
    if not path.exists():
        return Progress.start(number_of_blocks(settings.images))
    saved = load(path)
    check_same(path, saved.settings, settings)
    if saved.shard != shard:
        was, now = (f"shard {s[0]}/{s[1]}" if s else "all" for s in (saved.shard, shard))
        raise StateError(
            f"{path}: was saved for {was} of the images, this run is for {now}. Give another --state."
        )
    blocks = shard_blocks(number_of_blocks(settings.images), shard)
    images = sum(map(len, plan_batches(settings.images, BLOCK, blocks)))
    logger.info("resuming from %d of %d images, saved in %s", saved.progress.images, images, path)
    return saved.progress


def check_same(path: Path, got: RunSettings, expected: RunSettings, whose: str = "this run") -> None:
    """Raise StateError naming the first setting of a saved state that differs."""
    if got.has_losses != expected.has_losses:
        was, now = ("evaluate" if s.has_losses else "estimate" for s in (got, expected))
        raise StateError(
            f"{path}: was saved by `{was}`, but {whose} is of `{now}`. Give another --state."
        )
    if got.has_entropies != expected.has_entropies:
        was, now = ("images" if s.has_entropies else "--tokens" for s in (got, expected))
        raise StateError(f"{path}: was saved with {was}, but {whose} has {now}. Give another --state.")
    saved, wanted = (json.loads(json.dumps(settings.to_json())) for settings in (got, expected))
    # Hashes last: they differ with anything else, and say less.
    for values in (saved, wanted):
        values.setdefault(PATH, "hard")
    for name in sorted({*saved, *wanted}, key=lambda name: (name in HASHES, name)):
        if saved.get(name) != wanted.get(name):
            what = f"{name} {_short(saved.get(name))}, but {whose} has {_short(wanted.get(name))}"
            if name in HASHES:
                what = HASHES[name].format(whose=whose)
            raise StateError(
                f"{path}: was saved with {what}. Use the same settings, or another --state."
            )


@contextlib.contextmanager
def locked(path: Path, option: str = "--state") -> Iterator[None]:
    """Keep other runs off a state while this one uses it; the option is the one that names it.

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
        TEMPORARY.add(str(lock))
        remove_leftovers(path)
        yield
    finally:
        lock.unlink(missing_ok=True)
        TEMPORARY.discard(str(lock))
        os.close(file)


def _lock(lock: Path) -> int:
    """Open and lock a file, again if it was removed in between."""
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
