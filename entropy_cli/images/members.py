"""The index of an archive: what it holds, in arrays, kept in the user's cache folder."""

import contextlib
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.core.files import cache_folder, write_atomically
from entropy_cli.core.reading import IMAGE_BYTES, OpenFile
from entropy_cli.images.formats import SUFFIXES, is_image
from entropy_cli.images.listing import NO_LABEL

VERSION = 3  # of the format of cached indices
MOST_CHARACTERS, MOST_FOLDERS = 4096, 256  # in a path

# Kinds of members. A picture is an image whatever its name; a second one of a WebDataset sample is none.
FILE, FOLDER, SYMLINK, HARD_LINK, PICTURE, SECOND = range(6)

# Places that stand for unreadable members, and the reasons.
BROKEN_LINK, SPECIAL, SPARSE, ENCRYPTED, METHOD, ELSEWHERE = -1, -2, -3, -4, -5, -6
UNREADABLE = {
    BROKEN_LINK: "a link that leads to no file in the archives",
    SPECIAL: "not an ordinary file",
    SPARSE: "stored in its tar as a sparse file, which can't be read in place",
    ENCRYPTED: "encrypted in its zip",
    METHOD: "compressed in its zip by another method than deflate",
    ELSEWHERE: "not in its Parquet file, which holds no more of it than a path",
}


class NoImagesError(DatasetError):
    """An archive holds no images."""


@dataclass(frozen=True)
class ArchiveFile:
    """An archive as it was when it was indexed; if it has changed, the index is wrong."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: OpenFile) -> "ArchiveFile":
        """Describe an open archive."""
        return cls(file.path, file.size, file.stamp.mtime_ns)

    def reopen(self) -> OpenFile:
        """Open the archive again.

        Raises:
            DatasetError: it has changed.
            OSError: it can't be opened.
        """
        file = OpenFile(self.path)
        if ArchiveFile.of(file) != self:
            raise DatasetError(f"{self.path} has changed since it was listed")
        return file


class Archive(Protocol):
    """A file that holds images, each found by a number that its index gives."""

    @property
    def file(self) -> ArchiveFile:
        """The file as it was when it was indexed."""

    def open(self, at: int, size: int) -> BinaryIO:
        """Open an image as a file of its own position.

        Raises:
            DatasetError: the image is damaged, or the archive has changed.
            OSError: the archive can't be read.
        """


@dataclass(frozen=True)
class StoredImage:
    """The location of an image in an archive; `at` may be one of UNREADABLE."""

    archive: Archive
    at: int
    size: int

    def open(self) -> BinaryIO:
        """Open the image as a file.

        Raises:
            DatasetError: the image is unreadable or too large, or the archive has changed.
            OSError: the archive can't be opened.
        """
        if self.at in UNREADABLE:
            raise DatasetError(UNREADABLE[self.at])
        if self.size > IMAGE_BYTES:
            mib = 2**20
            raise DatasetError(f"{self.size // mib} MiB, expected at most {IMAGE_BYTES // mib} MiB")
        return self.archive.open(self.at, self.size)


class Member(NamedTuple):
    """A member of an archive."""

    path: str  # without a leading ./, with / between folders
    kind: int
    at: int  # where the archive finds it, or one of UNREADABLE
    size: int  # of a file in bytes
    link: str = ""  # the target of a link, as stored
    label: int = NO_LABEL

    @property
    def is_listed(self) -> bool:
        """True if the member may be an image: not a folder and not hidden."""
        return self.kind != FOLDER and "/." not in f"/{self.path}"

    @property
    def counts(self) -> bool:
        """True if the member counts as an image."""
        named = self.kind == PICTURE or (self.kind != SECOND and is_image(self.path))
        return named and self.is_listed


@dataclass(frozen=True)
class Index:
    """The members of an archive, in arrays: a million Python objects cost hundreds of MB."""

    texts: np.ndarray  # path and link of each member, each ended by a zero byte, uint8
    number_N4: np.ndarray  # kind, place, size and label of each member, int64
    record_X: np.ndarray  # what the kind of archive needs to read them, int64
    images: int  # the number of members that count as images

    @classmethod
    def collect(
        cls, members: Iterator[Member], records: "array[int]", progress: Callable[[int], object]
    ) -> "Index":
        """Collect members; `progress` is called with 1 for each that counts as an image.

        Args:
            members: read once.
            records: what the iteration leaves behind.
            progress: see above.
        """
        texts, numbers, images = bytearray(), array("q"), 0
        for member in members:
            texts += os.fsencode(member.path) + b"\0" + os.fsencode(member.link) + b"\0"
            numbers.extend((member.kind, member.at, member.size, member.label))
            if member.counts:
                images += 1
                progress(1)
        number_N4 = np.array(numbers, np.int64).reshape(-1, 4)
        record_X = np.array(records, np.int64)
        return cls(np.frombuffer(bytes(texts), np.uint8), number_N4, record_X, images)

    def members(self) -> Iterator[Member]:
        """Iterate over the members in the order of the archive."""
        texts = iter(self.texts.tobytes().split(b"\0"))
        for kind, at, size, label in map(np.ndarray.tolist, self.number_N4):
            path, link = os.fsdecode(next(texts)), os.fsdecode(next(texts))
            yield Member(path, kind, at, size, link, label)


def relative_path(archive: str, name: str) -> str:
    """Return the path of a member below the archive's root, "" for the root.

    Raises:
        DatasetError: it leads out of the archive, or is too long.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise DatasetError(
            f"{archive}: holds {name!r:.200}, which leads out of it. Create it again with relative "
            "paths."
        )
    if len(name) > MOST_CHARACTERS or len(parts) > MOST_FOLDERS:
        raise DatasetError(
            f"{archive}: holds a path of {len(name):,} characters and {len(parts):,} parts, expected "
            f"at most {MOST_CHARACTERS:,} and {MOST_FOLDERS}. Create it again with shorter ones."
        )
    return "/".join(parts)


def damaged(archive: str, problem: object) -> DatasetError:
    """Say that an archive is damaged."""
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    return DatasetError(
        f"{archive}: is damaged: {reason.rstrip('.'):.200}. Create or download it again."
    )


def load_index(file: ArchiveFile) -> Index | None:
    """Load an index from the cache; return None if it is missing, of another archive, or damaged."""
    try:
        path, key = _cache_entry(file)
        with np.load(OpenFile(path).reader(), allow_pickle=False) as cached:
            if str(cached["key"]) != key:
                return None
            texts, number_N4, record_X = (cached[name] for name in ("texts", "number_N4", "record_X"))
            return Index(texts, number_N4, record_X, int(cached["images"]))
    except Exception:  # noqa: BLE001 - a damaged file raises anything, and a cache may be lost
        return None


def save_index(file: ArchiveFile, index: Index) -> None:
    """Save an index in the cache, if that can be written to."""
    with contextlib.suppress(EntropyCliError, OSError):  # then the archive is indexed again next time
        path, key = _cache_entry(file)
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, key=np.array(key), **vars(index))

        write_atomically(path, write, announced=False)


def _cache_entry(file: ArchiveFile) -> tuple[Path, str]:
    """Return the file of an archive's index in the cache, and the key that it must hold to be valid."""
    path = str(file.path.resolve())
    name = hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()
    key = json.dumps([VERSION, SUFFIXES, path, file.size, file.mtime_ns])
    return cache_folder() / "archives" / f"{name}.npz", key
