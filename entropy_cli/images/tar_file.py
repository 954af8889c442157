"""Reading a file in place, from the middle of a tar."""

import os
from dataclasses import dataclass
from io import BufferedReader, FileIO, RawIOBase
from pathlib import Path
from typing import Any

from entropy_cli.core.errors import DatasetError

BUFFER = 2**16  # bytes that Pillow reads at once

# Offsets that stand for unreadable members, and the reasons.
BROKEN_LINK, SPECIAL, SPARSE = -1, -2, -3
UNREADABLE = {
    BROKEN_LINK: "a link that leads to no file in the tars",
    SPECIAL: "not an ordinary file",
    SPARSE: "stored in its tar as a sparse file, which can't be read in place",
}


@dataclass(frozen=True)
class Tar:
    """A tar file as it was when it was indexed; if it has changed, the offsets are wrong.

    Attributes:
        path: the path of the file.
        size: the size in bytes.
        mtime_ns: the time of the last modification, in nanoseconds.
    """

    path: Path
    size: int
    mtime_ns: int

    def open(self, offset: int, size: int) -> BufferedReader:
        """Open a range of its bytes as a file.

        Raises:
            DatasetError: the tar has changed, or `offset` is one of UNREADABLE.
        """
        if offset in UNREADABLE:
            raise DatasetError(UNREADABLE[offset])
        file = self.path.open("rb", buffering=0)
        if tar_status(self.path, file) != self:
            file.close()
            raise DatasetError(f"{self.path} has changed since it was listed")
        return BufferedReader(_FileSlice(file, offset, size), BUFFER)


@dataclass(frozen=True)
class TarImage:
    """The location of an image in a tar; `offset` may be one of UNREADABLE."""

    tar: Tar
    offset: int
    size: int

    def open(self) -> BufferedReader:
        """Open the image as a file.

        Raises:
            DatasetError: the image is unreadable, or the tar has changed.
        """
        return self.tar.open(self.offset, self.size)


class _FileSlice(RawIOBase):
    """A range of a file's bytes as a file of its own.

    It has no `fileno`: decoders in C would read from the start of the whole file.
    """

    def __init__(self, file: FileIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - whatever has a buffer
        self._file.seek(self._start + self._at)
        read = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._at)])
        self._at += read
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


def tar_status(path: Path, file: BufferedReader | FileIO) -> Tar:
    """Return the current size and modification time of an open tar."""
    status = os.fstat(file.fileno())
    return Tar(path, status.st_size, status.st_mtime_ns)
