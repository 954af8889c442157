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
from entropy_cli.core.reading import IMAGE_BYTES, OpenFile
from entropy_cli.images.formats import SUFFIXES, SkippedFiles, is_image
from entropy_cli.images.tar_headers import Header

VERSION = 2  # of the format of cached indices
FILE, FOLDER, SYMLINK, HARD_LINK = range(4)
MOST_CHARACTERS, MOST_FOLDERS = 4096, 256  # in a path

# Offsets that stand for unreadable members, and the reasons.
BROKEN_LINK, SPECIAL, SPARSE = -1, -2, -3
UNREADABLE = {
    BROKEN_LINK: "a link that leads to no file in the tars",
    SPECIAL: "not an ordinary file",
    SPARSE: "stored in its tar as a sparse file, which can't be read in place",
}

COMPRESSED = "compressed ({}), and images can't be read from the middle of it. Decompress it"
PACKED = "a {} file, expected a tar. Unpack it into a folder of images"
NO_TARS = {  # by the first bytes
    b"\x1f\x8b": COMPRESSED.format("gzip"),
    b"BZh": COMPRESSED.format("bzip2"),
    b"\xfd7zXZ\0": COMPRESSED.format("xz"),
    b"\x28\xb5\x2f\xfd": COMPRESSED.format("zstd"),
    b"\x04\x22\x4d\x18": COMPRESSED.format("lz4"),
    b"\x1f\x9d": COMPRESSED.format("compress"),
    b"PK\x03\x04": PACKED.format("zip"),
    b"PAR1": PACKED.format("Parquet"),
}


@dataclass(frozen=True)
class Tar:
    """A tar file as it was when it was indexed; if it has changed, the offsets are wrong."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: OpenFile) -> "Tar":
        """Describe an open tar."""
        return cls(file.path, file.size, file.stamp.mtime_ns)


@dataclass(frozen=True)
class TarImage:
    """The location of an image in a tar; `offset` may be one of UNREADABLE."""

    tar: Tar
    offset: int
    size: int

    def open(self) -> BufferedReader:
        """Open the image as a file.

        Raises:
            DatasetError: the image is unreadable or too large, or the tar has changed.
            OSError: the tar can't be opened.
        """
        if self.offset in UNREADABLE:
            raise DatasetError(UNREADABLE[self.offset])
        if self.size > IMAGE_BYTES:
            mib = 2**20
            raise DatasetError(f"{self.size // mib} MiB, expected at most {IMAGE_BYTES // mib} MiB")
        file = OpenFile(self.tar.path)
        if Tar.of(file) != self.tar:
            raise DatasetError(f"{self.tar.path} has changed since it was listed")
        return file.reader(self.offset, self.size)


class Member(NamedTuple):
    """A member of a tar, from its header."""

    path: str  # without a leading ./, with / between folders
    kind: int  # FILE, FOLDER, SYMLINK or HARD_LINK
    offset: int  # of a file's first byte, or one of UNREADABLE
    size: int  # of a file in bytes
    link: str  # the target of a link, as stored in the tar

    @property
    def is_listed(self) -> bool:
        """True if the member may be an image: not a folder and not hidden."""
        return self.kind != FOLDER and "/." not in f"/{self.path}"


@dataclass(frozen=True)
class TarIndex:
    """The members of a tar, in two arrays: a million Python objects cost hundreds of MB."""

    texts: np.ndarray  # path and link of each member, each ended by a zero byte, uint8
    number_N3: np.ndarray  # kind, offset and size of each member, int64
    images: int  # the number of members that count as images

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
        number_N3 = np.array(numbers, np.int64).reshape(-1, 3)
        return cls(np.frombuffer(bytes(texts), np.uint8), number_N3, images)

    def members(self) -> Iterator[Member]:
        """Iterate over the members in the order of the tar."""
        texts = iter(self.texts.tobytes().split(b"\0"))
        for kind, offset, size in map(np.ndarray.tolist, self.number_N3):
            yield Member(os.fsdecode(next(texts)), kind, offset, size, os.fsdecode(next(texts)))


def index_tar(path: Path, progress: Callable[[int], object]) -> tuple[Tar, TarIndex]:
    """Index an uncompressed tar, or load its index from the cache if the tar has not changed.

    `progress` is called with the numbers of images found.

    Raises:
        DatasetError: the file can't be read, is compressed, damaged or no tar, has no images, or paths
            in it lead out of it.
    """
    if not path.is_file():
        problem = "is not an ordinary file" if path.exists() else "no such tar"
        raise DatasetError(f"{path}: {problem}. Give --data a folder of images, or tars of one.")
    try:
        file = OpenFile(path)
        tar = Tar.of(file)
        index = _load(tar)
        if index is not None:
            progress(index.images)
        else:
            members = (_member(tar, info) for info in _headers(tar, file.reader()))
            # The path of the root is empty.
            index = TarIndex.from_members((member for member in members if member.path), progress)
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


def _headers(tar: Tar, file: BufferedReader) -> Iterator[tarfile.TarInfo]:
    """Iterate over all headers, and check that the tar is complete."""
    start = file.read(max(map(len, NO_TARS)))
    for magic, problem in NO_TARS.items():
        if start.startswith(magic):
            raise DatasetError(f"{tar.path}: is {problem} first.")
    file.seek(0)
    try:
        # It holds nothing but the file.
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=Header)  # noqa: SIM115
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
            f"{tar.path}: holds {name!r:.200}, which leads out of it. Create it again with relative "
            "paths."
        )
    if len(name) > MOST_CHARACTERS or len(parts) > MOST_FOLDERS:
        raise DatasetError(
            f"{tar.path}: holds a path of {len(name):,} characters and {len(parts):,} parts, expected "
            f"at most {MOST_CHARACTERS:,} and {MOST_FOLDERS}. Create it again with shorter ones."
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
            return TarIndex(cached["texts"], cached["number_N3"], int(cached["images"]))
    except Exception:  # noqa: BLE001 - a damaged file raises anything, and a cache may be lost
        return None


def _save(tar: Tar, index: TarIndex) -> None:
    with contextlib.suppress(EntropyCliError, OSError):  # then the tar is indexed again next time
        path, key = _cache_entry(tar)
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, key=np.array(key), **vars(index))

        write_atomically(path, write, announced=False)
