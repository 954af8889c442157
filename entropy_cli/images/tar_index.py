"""Tars: their headers, read once, and those of the tars inside them."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import BinaryIO

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import OpenFile
from entropy_cli.images.members import (
    BROKEN_LINK,
    FILE,
    FOLDER,
    HARD_LINK,
    SPARSE,
    SPECIAL,
    SYMLINK,
    ArchiveFile,
    Member,
    relative_path,
)
from entropy_cli.images.tar_headers import Header
from entropy_cli.images.webdataset import Samples

DEEPEST = 4  # tars inside each other
MOST_TARS = 100_000  # inside one


@dataclass(frozen=True)
class Tar:
    """A tar; an image is found by the place of its first byte."""

    file: ArchiveFile

    @classmethod
    def of(cls, file: ArchiveFile, record_X: np.ndarray) -> "Tar":
        """Return the tar of a file, which needs no records."""
        return cls(file)

    def open(self, at: int, size: int) -> BinaryIO:
        """Open an image in place; see `Archive.open`."""
        return self.file.reopen().reader(at, size)


def tar_members(file: OpenFile, _records: object) -> Iterator[Member]:
    """Iterate over the members of a tar; where it has no images, over those of the tars in it.

    Raises:
        DatasetError: it is damaged or no tar, or paths in it lead out of it.
        OSError: it can't be read.
    """
    return _Part(file, str(file.path), 0, file.size).members()


@dataclass(frozen=True)
class _Part:
    """A tar that is a file, or a part of one."""

    file: OpenFile
    name: str  # for messages
    begin: int
    size: int
    depth: int = 1

    def members(self) -> Iterator[Member]:
        """Iterate over the members, and over those of tars inside if there are no images."""
        tars, images = list[Member](), False
        own = (self._member(info) for info in self._headers())
        # The path of the root is empty.
        for member in Samples(self.file.read).members(member for member in own if member.path):
            if _is_tar(member) and not images and len(tars) < MOST_TARS:
                tars.append(member)
                continue
            images = images or member.counts
            yield member
        if images or self.depth == DEEPEST:
            yield from tars
            return
        for tar in tars:
            name = f"{self.name}, {tar.path} in it"
            part = _Part(self.file, name, tar.at, tar.size, self.depth + 1)
            for member in part.members():
                link = f"{tar.path}/{member.link}" if member.kind == HARD_LINK else member.link
                yield member._replace(path=f"{tar.path}/{member.path}", link=link)

    def _headers(self) -> Iterator[tarfile.TarInfo]:
        """Iterate over all headers, and check that the tar is complete."""
        file = self.file.reader(self.begin, self.size)
        try:
            # It holds nothing but the file.
            archive = tarfile.open(fileobj=file, mode="r:", tarinfo=Header)  # noqa: SIM115
        except OSError:
            raise
        except Exception as error:  # a damaged header raises anything
            raise DatasetError(
                f"{self.name}: is not a tar, zip or Parquet file. Give a folder of images, or an "
                "archive of one."
            ) from error
        previous = -1
        # Python 3.10's `next` fails in an archive without members.
        empty = archive.firstmember is None  # type: ignore[attr-defined]
        while not empty and (info := self._next(archive)) is not None:
            if archive.offset <= previous:
                raise self._damaged(previous, "the header leads backwards")
            previous = archive.offset
            archive.members = []  # type: ignore[attr-defined]  # it would keep all, 1 KB each
            yield info
        self._check_end(file, archive.offset)

    def _next(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        offset = archive.offset
        try:
            return archive.next()
        except OSError:
            raise
        except Exception as error:
            raise self._damaged(offset, str(error)) from error

    def _check_end(self, file: BufferedReader, offset: int) -> None:
        """Check that the members end where they should: tarfile takes anything else for the end."""
        file.seek(offset)
        rest = file.read(1 << 20)
        if not rest:
            raise self._damaged(offset, "no end mark, perhaps cut off")
        if rest.strip(b"\0") or len(rest) < tarfile.BLOCKSIZE:
            raise self._damaged(offset, "neither a header nor the end mark, perhaps two tars joined")

    def _damaged(self, offset: int, problem: str) -> DatasetError:
        return DatasetError(
            f"{self.name}: is damaged at byte {offset}: {problem}. Create or download it again."
        )

    def _member(self, info: tarfile.TarInfo) -> Member:
        path = relative_path(self.name, info.name)
        if info.issym():
            return Member(path, SYMLINK, BROKEN_LINK, 0, info.linkname.partition("\0")[0])
        if info.islnk():
            return Member(path, HARD_LINK, BROKEN_LINK, 0, relative_path(self.name, info.linkname))
        if info.isdir() or info.type == b"D":  # of GNU's incremental tars
            return Member(path, FOLDER, BROKEN_LINK, 0)
        if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"M", b"V"):
            return Member(path, FILE, SPECIAL, 0)
        if info.issparse():
            return Member(path, FILE, SPARSE, info.size)
        if info.offset_data + info.size > self.size:
            raise DatasetError(
                f"{self.name}: is cut off: {path} ends at byte {info.offset_data + info.size}, the tar "
                f"at {self.size}. Create or download it again."
            )
        return Member(path, FILE, self.begin + info.offset_data, info.size)


def _is_tar(member: Member) -> bool:
    return (
        member.kind == FILE
        and member.at >= 0
        and member.is_listed
        and member.path.lower().endswith(".tar")
    )
