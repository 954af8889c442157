"""Open files for reading: the only place that does.

A file is opened once, must be an ordinary one, and is read with pread: what shrinks or fails under the
reading is an OSError, where a mapped file would kill the process.
"""

import contextlib
import errno
import io
import json
import os
import select
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# The most bytes of a file that is read as a whole, and the deepest nesting of a JSON document.
JSON_BYTES = 64 * 2**20
CONFIG_BYTES = 2**20
IMAGE_BYTES = 256 * 2**20
LOG_BYTES = 2**30
JSON_DEPTH = 64
JSON_VALUES = 2**23  # of a document, which take up to 100 bytes each

PIECE_BYTES = 2**22  # read at once where a file is read from its beginning to its end
BUFFER = 2**16  # that Pillow reads at once
WRITER_TIMEOUT_S = 3  # how long a pipe may take to be opened for writing
NOT_ORDINARY = "not an ordinary file"
CHANGED = "changed or cut off while it was read"


class Stamp(NamedTuple):
    """The properties of a file that change when it is written to or replaced."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        """Return the stamp of a file's status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class OpenFile:
    """An ordinary file that is open for reading; it is closed when nobody holds it.

    Attributes:
        path: as it was given, for messages.
        stamp: inode, size and time of the file when it was opened.
    """

    def __init__(self, path: str | Path, max_bytes: int | None = None) -> None:
        """Open a file.

        Args:
            path: of the file, or of a link to it.
            max_bytes: the largest file to open; None for any.

        Raises:
            OSError: it can't be opened, is not an ordinary file, or is too large.
        """
        self.path = Path(path)
        self._file = _open(path)
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, NOT_ORDINARY, str(path))
        self.stamp = Stamp.of(status)
        if max_bytes is not None and self.size > max_bytes:
            raise _too_large(self.size, max_bytes, path)

    @property
    def size(self) -> int:
        """The number of bytes when it was opened."""
        return self.stamp.size

    def read(self, begin: int = 0, end: int | None = None) -> bytearray:
        """Read the bytes from begin to end.

        Raises:
            OSError: the file has become shorter, or can't be read.
        """
        end = self.size if end is None else end
        if not 0 <= begin <= end <= self.size:
            raise OSError(errno.EINVAL, f"has no bytes {begin} to {end}", str(self.path))
        content = bytearray(end - begin)
        view, done = memoryview(content), 0
        while done < len(view):
            got = os.preadv(self._file.fileno(), [view[done : done + 2**30]], begin + done)
            if not got:
                raise OSError(errno.EIO, CHANGED, str(self.path))
            done += got
        return content

    def pieces(self, begin: int = 0, end: int | None = None) -> Iterator[bytearray]:
        """Read the bytes from begin to end piece by piece, and check that the file did not change.

        Raises:
            OSError: it did, or can't be read.
        """
        end = self.size if end is None else end
        for start in range(begin, end, PIECE_BYTES):
            yield self.read(start, min(start + PIECE_BYTES, end))
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise OSError if the file was written to since it was opened."""
        if self.stamp != Stamp.of(os.fstat(self._file.fileno())):
            raise OSError(errno.EIO, CHANGED, str(self.path))

    def reader(self, begin: int = 0, size: int | None = None) -> io.BufferedReader:
        """Return a binary file of its own position over some of the bytes, by default over all.

        It has no `fileno`: decoders in C would read from the start of the whole file.
        """
        return io.BufferedReader(_Part(self, begin, self.size - begin if size is None else size), BUFFER)

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):  # it could be opened
            self._file.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path: another process opens the file again, if it is still the same."""
        return _reopen, (self.path, self.stamp)


class _Part(io.RawIOBase):
    """Some bytes of an open file, as a file that is read piece by piece."""

    def __init__(self, file: OpenFile, begin: int, size: int) -> None:
        self._open, self._begin, self._size, self._at = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - whatever has a buffer
        number = min(len(buffer), self._size - self._at)
        if number <= 0:
            return 0
        start = self._begin + self._at
        buffer[:number] = self._open.read(start, start + number)
        self._at += number
        return number


def _open(path: str | Path) -> io.FileIO:
    """Open a file, or a pipe that may have no writer yet."""
    try:
        return io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except IsADirectoryError:
        raise OSError(errno.EINVAL, NOT_ORDINARY, str(path)) from None


def _reopen(path: Path, stamp: Stamp) -> OpenFile:
    file = OpenFile(path)
    if file.stamp != stamp:
        raise OSError(errno.EIO, CHANGED, str(path))
    return file


def is_out_of_handles(error: BaseException) -> bool:
    """Return whether an error is that no more files can be opened: it says nothing about the file."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _too_large(size: int, max_bytes: int, path: str | Path) -> OSError:
    reason = f"{size / 2**20:.1f} MiB, expected at most {max_bytes / 2**20:g} MiB"
    return OSError(errno.EFBIG, reason, str(path))


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """Read a whole ordinary file.

    Raises:
        OSError: it can't be read, is not an ordinary file, or is larger than max_bytes.
    """
    file = OpenFile(path, max_bytes)
    content = bytes(file.read())
    file.check_unchanged()
    return content


def read_stream(path: str | Path, max_bytes: int) -> bytes:
    """Read a whole file, or a pipe until its writer closes it; "-" is standard input.

    Raises:
        OSError: as `stream_pieces`, or it is larger than max_bytes.
    """
    content = b"".join(stream_pieces(path, max_bytes))
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes, path)
    return content


def stream_pieces(path: str | Path, max_bytes: int | None = None) -> Iterator[bytes]:
    """Read a file, or a pipe until its writer closes it, piece by piece; "-" is standard input.

    At most a piece more than max_bytes are read.

    Raises:
        OSError: it can't be read, is neither, or is a pipe that nobody writes to.
    """
    if str(path) == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "standard input is closed")
        yield from _pieces(sys.stdin.buffer, max_bytes)
        return
    with io.BufferedReader(_open(path)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(errno.EINVAL, NOT_ORDINARY, str(path))
        head = _await_writer(file.fileno(), path) if stat.S_ISFIFO(mode) else b""
        os.set_blocking(file.fileno(), True)
        if head:
            yield head
        yield from _pieces(file, max_bytes)


def _pieces(stream: Any, max_bytes: int | None) -> Iterator[bytes]:  # noqa: ANN401 - a binary stream
    done = 0
    while max_bytes is None or done <= max_bytes:
        piece: bytes = stream.read(PIECE_BYTES)
        if not piece:
            return
        done += len(piece)
        yield piece


def _await_writer(number: int, path: str | Path) -> bytes:
    """Wait until a pipe has a writer; return what had to be read to find out."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    if poll.poll(1000 * WRITER_TIMEOUT_S):
        return b""
    with contextlib.suppress(BlockingIOError):  # there is one, which is slow
        head = os.read(number, 1)
        if not head:
            raise OSError(
                errno.EPIPE, f"a pipe that nobody wrote to for {WRITER_TIMEOUT_S} s", str(path)
            )
        return head
    return b""


def parse_json(content: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a JSON document.

    Raises:
        ValueError: it is not JSON in UTF-8, has more than JSON_VALUES, or is nested deeper than
            JSON_DEPTH.
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    if sum(map(text.count, ",[{")) > JSON_VALUES:
        raise ValueError(f"more than {JSON_VALUES:,} values")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {JSON_DEPTH} deep") from None
    level: Sequence[Any] = [value]
    for _ in range(JSON_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return value
    raise ValueError(f"nested more than {JSON_DEPTH} deep")
