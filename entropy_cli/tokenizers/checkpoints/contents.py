"""Open files of tensors, describe what they hold, and hash their bytes."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.reading import OpenFile
from entropy_cli.tokenizers.checkpoints.safetensorsfile import read_safetensors
from entropy_cli.tokenizers.checkpoints.stored import Contents, UnusableError
from entropy_cli.tokenizers.checkpoints.torchfile import read_torch
from entropy_cli.tokenizers.checkpoints.zips import RunningCrcs, ZipRecords

# What else a file with a checkpoint's name may be, by its beginning, without blanks and in lower case.
TEXT_FROM_A_SERVER = "which a server sends in place of a file. Download it again, logged in if need be"
OTHER_FILES = (
    (b"version https:/", "a git-lfs pointer to one. Run git lfs pull"),
    (b"<!doctype", f"a page of HTML, {TEXT_FROM_A_SERVER}"),
    (b"<html", f"a page of HTML, {TEXT_FROM_A_SERVER}"),
    (b"<?xml", f"an XML document, {TEXT_FROM_A_SERVER}"),
    (
        b"{",
        "a JSON document. Give the file of the weights; if this is what a server sent, download it "
        "again, logged in if need be",
    ),
    (b"gguf", "a GGUF file, of a language model. Give a tokenizer of images"),
    (b"\x89hdf", "an HDF5 file. Save the state dict with torch or safetensors"),
    (b"\x93numpy", "an array of numpy. Latents go to --latents"),
    (b"\x1f\x8b", "a file compressed by gzip. Unpack it"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd. Unpack it"),
    (b"\xfd7zxz", "a file compressed by xz. Unpack it"),
    (b"\x89png", "a PNG image. Give a checkpoint"),
    (b"\xff\xd8\xff", "a JPEG image. Give a checkpoint"),
)
NO_CHECKPOINT = "not a checkpoint, or a damaged one. Expected .pth, .pt, .ckpt, .bin or .safetensors."


def open_file(path: Path) -> OpenFile:
    """Open a file, or raise CheckpointError."""
    try:
        return OpenFile(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error


def is_zip(file: OpenFile) -> bool:
    """Return whether a file begins as a zip does."""
    return file.read(0, min(4, file.size)) == b"PK\x03\x04"


def read_contents(file: OpenFile) -> Contents:
    """Describe the tensors of a file of torch or safetensors, or raise CheckpointError."""
    path = file.path
    head = bytes(file.read(0, min(256, file.size)))
    if other := _other_file(head):
        raise CheckpointError(f"{path}: not a checkpoint, but {other}.")
    # safetensors: the length of a JSON header, then the header.
    is_safetensors = head[8:9] == b"{"
    try:
        if is_safetensors:
            return read_safetensors(file)
        return read_torch(file, ZipRecords(file) if is_zip(file) else None)
    except UnusableError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # what readers raise on damaged files has no limit
        if is_safetensors:
            raise CheckpointError(
                f"{path}: a damaged safetensors file ({first_line(error)}). Copy or download it again."
            ) from error
        raise CheckpointError(f"{path}: {NO_CHECKPOINT}") from error


def _other_file(head: bytes) -> str | None:
    """Return what else a file is than a checkpoint, by its first bytes."""
    if not head:
        return "an empty file. Copy or download it again"
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for prefix, words in OTHER_FILES:
        if begin.startswith(prefix):
            return words
    if len(head) < 256 and (head.isascii() and head.decode("ascii").strip().isprintable()):
        return f"a text, {head.decode('ascii').strip()[:60]!r}, {TEXT_FROM_A_SERVER}"
    return None


def hash_files(files: Sequence[OpenFile], progress: Callable[[int], object] = lambda _: None) -> str:
    """Return the sha256 of the bytes of open files, one after the other.

    Args:
        files: in order; the records of a zip are compared with their CRCs on the way.
        progress: called with the number of bytes that were read since the last call.

    Raises:
        CheckpointError: a file was changed since it was opened, or its own checksums don't fit.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            crcs = RunningCrcs(file) if is_zip(file) else None
            for piece in file.pieces():
                digest.update(piece)
                if crcs is not None:
                    crcs.update(piece)
                progress(len(piece))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"{file.path}: can't be used: {reason}. Copy or download it again."
            ) from error
    return digest.hexdigest()


def first_line(error: BaseException) -> str:
    """Return an error's first line, short enough for one of ours."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:160]
