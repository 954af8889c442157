"""Compressed tars, unpacked once into the user's cache folder."""

import bz2
import contextlib
import fcntl
import gzip
import hashlib
import logging
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.files import cache_folder, create_in_cache, remove_leftovers, write_atomically
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.reading import OpenFile
from entropy_cli.images.members import ArchiveFile, damaged

logger = logging.getLogger(__name__)

PIECE = 2**20
ZSTD_PIECE = 2**13  # of what is compressed: it may unpack to 2**28 bytes at once
# A tar of images is hardly larger than itself compressed; one that is much larger is a trap.
MOST_TIMES, MOST_MORE = 100, 2**26


Packing = Callable[[BufferedReader], Iterator[bytes]]


def _reading(opener: Callable[[BufferedReader], Any]) -> Packing:
    """Return what iterates over the contents of a file that Python's own modules open."""

    def contents(packed: BufferedReader) -> Iterator[bytes]:
        file = opener(packed)
        while piece := file.read(PIECE):
            yield piece

    return contents


def _zstd(packed: BufferedReader) -> Iterator[bytes]:
    """Iterate over the contents of all frames; zstandard's own reader misses that one is cut off."""
    zstandard = import_extra("zstandard", "data", "unpacking zstd")
    frame = None
    while piece := packed.read(ZSTD_PIECE):
        while piece:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(piece)
            piece, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise EOFError("it is cut off")


PACKINGS: dict[bytes, Packing] = {  # by the first bytes
    b"\x1f\x8b": _reading(lambda file: gzip.GzipFile(fileobj=file)),
    b"BZh": _reading(bz2.BZ2File),
    b"\xfd7zXZ\0": _reading(lzma.LZMAFile),
    b"\x28\xb5\x2f\xfd": _zstd,
}
ERRORS = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def packing_of(start: bytes) -> Packing | None:
    """Return what unpacks a compressed file by its first bytes, None if it is not compressed."""
    return next((packing for magic, packing in PACKINGS.items() if start.startswith(magic)), None)


def unpacked(file: OpenFile, packing: Packing, bars: Bars) -> Path:
    """Return the path of a compressed tar's contents in the cache, where they are kept.

    Args:
        file: the compressed tar.
        packing: iterates over its contents, see `packing_of`.
        bars: makes progress bars.

    Raises:
        DatasetError: it is damaged, no tar, or unpacks to far more than images do.
        EntropyCliError: the cache can't be written to, or zstandard is missing.
    """
    path = _cache_path(ArchiveFile.of(file))
    if path.exists():
        return path
    create_in_cache(path.parent)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as out, bars("unpacking", file.size, "B") as bar:
            _unpack(file, packing, out, bar.update)

    with _alone(path):
        if path.exists():
            return path
        logger.info("%s: is compressed, and is unpacked once, into %s", file.path, path)
        remove_leftovers(path)
        write_atomically(path, write, announced=False)
        for old in path.parent.glob(f"{path.name.partition('-')[0]}-*.tar"):
            if old != path:  # of the same file before it changed
                old.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process, such as another shard on this machine, unpacks to a path."""
    with path.with_suffix(".lock").open("wb") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def _unpack(file: OpenFile, packing: Packing, out: BinaryIO, progress: Callable[[int], object]) -> None:
    name, packed = str(file.path), file.reader()
    most, done, at, start = MOST_TIMES * file.size + MOST_MORE, 0, 0, b""
    try:
        for piece in packing(packed):
            if done < tarfile.BLOCKSIZE <= done + len(piece):
                _check_tar(name, start + piece)
            start = start + piece if done < tarfile.BLOCKSIZE else b""
            done += len(piece)
            if done > most:
                raise DatasetError(
                    f"{name}: unpacks to more than {MOST_TIMES} times its size, as images do not. "
                    "Unpack it into a folder yourself."
                )
            out.write(piece)
            progress(packed.tell() - at)
            at = packed.tell()
    except Exception as error:
        is_own = isinstance(error, ERRORS) or type(error).__module__.startswith("zstandard")
        if is_own or (isinstance(error, OSError) and error.errno is None):
            raise damaged(name, error) from error
        raise
    file.check_unchanged()
    if done < tarfile.BLOCKSIZE:
        _check_tar(name, start)


def _check_tar(name: str, start: bytes) -> None:
    """Raise DatasetError unless these are the first bytes of a tar."""
    block = bytes(start[: tarfile.BLOCKSIZE])
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError as error:
        if block == bytes(tarfile.BLOCKSIZE):  # of a tar without members
            return
        raise DatasetError(
            f"{name}: is compressed, but not a tar. Give a folder of images, or an archive of one."
        ) from error


def _cache_path(file: ArchiveFile) -> Path:
    """Return the path of what a file holds now."""
    path = hashlib.blake2b(os.fsencode(file.path.resolve()), digest_size=16).hexdigest()
    version = hashlib.blake2b(f"{file.size} {file.mtime_ns}".encode(), digest_size=8).hexdigest()
    return cache_folder() / "unpacked" / f"{path}-{version}.tar"
