"""Reading an image in place, from the middle of a tar."""

import os
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from entropy_cli.errors import DatasetError

# Offsets of what has no bytes to read, and why.
NOWHERE, SPECIAL, SPARSE = -1, -2, -3
UNREADABLE = {
    NOWHERE: "a link that leads to no file in the tars",
    SPECIAL: "not an ordinary file",
    SPARSE: "stored in its tar as a sparse file, which can't be read in place",
}


@dataclass(frozen=True)
class Tar:
    """A tar as it was when it was listed: in another one the offsets may lead anywhere.

    Attributes:
        path: of the file.
        size: in bytes.
        mtime_ns: when it was last written to.
    """

    path: Path
    size: int
    mtime_ns: int

    def read(self, offset: int, size: int) -> bytes:
        """Some of its bytes.

        Raises:
            DatasetError: they are no longer there, or `offset` is one of UNREADABLE.
        """
        if offset in UNREADABLE:
            raise DatasetError(UNREADABLE[offset])
        with self.path.open("rb") as file:
            if tar_of(self.path, file) != self:
                raise DatasetError(f"{self.path} has changed since it was listed")
            file.seek(offset)
            content = file.read(size)
        if len(content) != size:
            raise DatasetError(f"{self.path} ended within it")
        return content


@dataclass(frozen=True)
class TarPicture:
    """An image in a tar; `offset` may be one of UNREADABLE."""

    tar: Tar
    offset: int
    size: int

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            DatasetError: there are none, or the tar has changed.
        """
        return self.tar.read(self.offset, self.size)


def tar_of(path: Path, file: BufferedReader) -> Tar:
    """An open tar as it is now."""
    status = os.fstat(file.fileno())
    return Tar(path, status.st_size, status.st_mtime_ns)
