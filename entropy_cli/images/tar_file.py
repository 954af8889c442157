"""Reading a file in place, from the middle of a tar."""

from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import IMAGE_BYTES, OpenFile

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
        if size > IMAGE_BYTES:
            mib = 2**20
            raise DatasetError(f"{size // mib} MiB, expected at most {IMAGE_BYTES // mib} MiB")
        file = OpenFile(self.path)
        if tar_status(file) != self:
            raise DatasetError(f"{self.path} has changed since it was listed")
        return file.reader(offset, size)


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


def tar_status(file: OpenFile) -> Tar:
    """Return the path, size and modification time of an open tar."""
    return Tar(file.path, file.size, file.stamp.mtime_ns)
