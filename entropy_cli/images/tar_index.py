"""The index of a tar: its headers are read once and cached in the user's cache folder."""

import contextlib
import hashlib
import json
import os
import tarfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np

from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.core.files import cache_folder, write_atomically
from entropy_cli.core.reading import OpenFile
from entropy_cli.images.formats import SUFFIXES, SkippedFiles, is_image
from entropy_cli.images.tar_file import BROKEN_LINK, SPARSE, SPECIAL, Tar, tar_status

VERSION = 1  # of the format of cached indices
COLUMNS = ("texts", "kinds", "offsets", "sizes")
FILE, FOLDER, SYMLINK, HARD_LINK = range(4)

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
}
NO_TARS = {b"PK\x03\x04": "zip", b"PAR1": "Parquet"}


class Member(NamedTuple):
    """A member of a tar, from its header.

    Attributes:
        path: the path, without a leading ./, with / between folders.
        kind: FILE, FOLDER, SYMLINK or HARD_LINK.
        offset: the offset of a file's first byte, or one of UNREADABLE.
        size: the size of a file in bytes.
        link: the target of a link, as stored in the tar.
    """

    path: str
    kind: int
    offset: int
    size: int
    link: str

    @property
    def is_listed(self) -> bool:
        """True if the member may be an image: not a folder and not hidden."""
        return self.kind != FOLDER and "/." not in f"/{self.path}"


@dataclass(frozen=True)
class TarIndex:
    """The members of a tar, in a few arrays.

    Attributes:
        texts: path and link of each member, each ended by a zero byte, uint8.
        kinds, offsets, sizes: one of each for every member, int64.
        images: the number of members that count as images.
    """

    texts: np.ndarray
    kinds: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    images: int

    @classmethod
    def from_members(cls, members: Iterator[Member], progress: Callable[[int], object]) -> "TarIndex":
        """Collect members; `progress` is called with 1 for each that counts as an image."""
        texts, numbers, images = bytearray(), array("q"), 0
        for member in members:
            texts += os.fsencode(member.path) + b"\0" + os.fsencode(member.link) + b"\0"
            numbers.extend((member.kind, member.offset, member.size))
            if member.is_listed and is_image(member.path):
                images += 1
                progress(1)
        kinds, offsets, sizes = np.array(numbers, np.int64).reshape(-1, 3).T
        return cls(np.frombuffer(bytes(texts), np.uint8), kinds, offsets, sizes, images)

    def members(self) -> Iterator[Member]:
        """Iterate over the members in the order of the tar."""
        texts = iter(self.texts.tobytes().split(b"\0"))
        numbers = zip(self.kinds.tolist(), self.offsets.tolist(), self.sizes.tolist(), strict=True)
        for kind, offset, size in numbers:
            path, link = os.fsdecode(next(texts)), os.fsdecode(next(texts))
            yield Member(path, kind, offset, size, link)


def index_tar(path: Path, progress: Callable[[int], object]) -> tuple[Tar, TarIndex]:
    """Index a tar, or load its index from the cache if the tar has not changed.

    Args:
        path: the path of an uncompressed tar.
        progress: called with the numbers of images found.

    Raises:
        DatasetError: the file can't be read, is compressed, damaged or no tar, has no images, or paths
            in it lead out of it.
    """
    if not path.is_file():
        problem = "is not an ordinary file" if path.exists() else "no such tar"
        raise DatasetError(f"{path}: {problem}. Give --data a folder of images, or tars of one.")
    try:
        file = OpenFile(path)
        tar = tar_status(file)
        index = _load(tar)
        if index is not None:
            progress(index.images)
        else:
            index = TarIndex.from_members(_members(tar, file.reader()), progress)
            _save(tar, index)
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}.") from error
    if not index.images:
        skipped = SkippedFiles()
        for member in index.members():
            if member.is_listed:
                skipped.add(member.path.rpartition("/")[2])
        raise skipped.error(str(path))
    return tar, index


def _members(tar: Tar, file: BufferedReader) -> Iterator[Member]:
    for info in _headers(tar, file):
        member = _member(tar, info)
        if member.path:  # empty for the root
            yield member


def _headers(tar: Tar, file: BufferedReader) -> Iterator[tarfile.TarInfo]:
    """Iterate over all headers, and check that the tar is complete."""
    start = file.read(max(map(len, COMPRESSED)))
    if kind := NO_TARS.get(start[:4]):
        raise DatasetError(
            f"{tar.path}: is a {kind} file, expected a tar. Unpack it into a folder of images first."
        )
    for magic, kind in COMPRESSED.items():
        if start.startswith(magic):
            raise DatasetError(
                f"{tar.path}: is compressed ({kind}), and images can't be read from the middle of it. "
                "Decompress it first."
            )
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - holds nothing but the file
    except OSError:
        raise
    except Exception as error:  # a damaged header raises anything
        raise DatasetError(f"{tar.path}: is not a tar. Give a folder of images, or a tar.") from error
    previous = -1
    # Python 3.10's `next` fails in an archive without members.
    empty = archive.firstmember is None  # type: ignore[attr-defined]
    while not empty and (info := _next(tar, archive)) is not None:
        if archive.offset <= previous:
            raise _damaged(tar, previous, "the header leads backwards")
        previous = archive.offset
        archive.members = []  # type: ignore[attr-defined]  # it would keep all, 1 KB each
        yield info
    # tarfile takes anything that is not a header for the end.
    file.seek(archive.offset)
    rest = file.read(1 << 20)
    if not rest:
        raise _damaged(tar, archive.offset, "no end mark, perhaps cut off")
    if rest.strip(b"\0") or len(rest) < tarfile.BLOCKSIZE:
        raise _damaged(tar, archive.offset, "neither a header nor the end mark, perhaps two tars joined")


def _next(tar: Tar, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    offset = archive.offset
    try:
        return archive.next()
    except OSError:
        raise
    except Exception as error:
        raise _damaged(tar, offset, str(error)) from error


def _damaged(tar: Tar, offset: int, problem: str) -> DatasetError:
    return DatasetError(
        f"{tar.path}: is damaged at byte {offset}: {problem}. Create or download it again."
    )


def _member(tar: Tar, info: tarfile.TarInfo) -> Member:
    path = _relative(tar, info.name)
    if info.issym():
        return Member(path, SYMLINK, BROKEN_LINK, 0, info.linkname.partition("\0")[0])
    if info.islnk():
        return Member(path, HARD_LINK, BROKEN_LINK, 0, _relative(tar, info.linkname))
    if info.isdir() or info.type == b"D":  # of GNU's incremental tars
        return Member(path, FOLDER, BROKEN_LINK, 0, "")
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"M", b"V"):
        return Member(path, FILE, SPECIAL, 0, "")
    if info.issparse():
        return Member(path, FILE, SPARSE, info.size, "")
    if info.offset_data + info.size > tar.size:
        raise DatasetError(
            f"{tar.path}: is cut off: {path} ends at byte {info.offset_data + info.size}, the tar at "
            f"{tar.size}. Create or download it again."
        )
    return Member(path, FILE, info.offset_data, info.size, "")


def _relative(tar: Tar, name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise DatasetError(
            f"{tar.path}: holds {name!r}, which leads out of it. Create it again with relative paths."
        )
    return "/".join(parts)


def _cache_entry(tar: Tar) -> tuple[Path, str]:
    """Return the file of a tar's index in the cache, and the key that it must hold to be valid."""
    path = str(tar.path.resolve())
    name = hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()
    return cache_folder() / "tars" / f"{name}.npz", json.dumps(
        [VERSION, SUFFIXES, path, tar.size, tar.mtime_ns]
    )


def _load(tar: Tar) -> TarIndex | None:
    """Load an index from the cache; return None if it is missing, of another tar, or damaged."""
    try:
        path, key = _cache_entry(tar)
        with np.load(OpenFile(path).reader(), allow_pickle=False) as cached:
            if str(cached["key"]) != key:
                return None
            return TarIndex(**{name: cached[name] for name in COLUMNS}, images=int(cached["images"]))
    except Exception:  # noqa: BLE001 - a damaged file raises anything, and a cache may be lost
        return None


def _save(tar: Tar, index: TarIndex) -> None:
    with contextlib.suppress(EntropyCliError, OSError):  # then the tar is indexed again next time
        path, key = _cache_entry(tar)
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                columns = {name: getattr(index, name) for name in COLUMNS}
                np.savez_compressed(file, key=np.array(key), images=np.array(index.images), **columns)

        write_atomically(path, write, announced=False)
