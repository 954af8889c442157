"""The hard tokens of a run as a file, for whoever trains a model on them."""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from entropy_cli.core.errors import ResultError, StateError
from entropy_cli.core.files import write_atomically
from entropy_cli.entropy.assign import MAX_INDEXABLE

# How a path is written in a line of its own.
IN_ONE_LINE = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


def smallest_type(vocab_size: int) -> np.dtype:
    """The smallest unsigned integers that number so many codes.

    Raises:
        ResultError: there is none.
    """
    if vocab_size > MAX_INDEXABLE:
        raise ResultError(
            f"--save-tokens: {vocab_size} codes can't be numbered in 63 bits. Leave it out."
        )
    return np.min_scalar_type(vocab_size - 1)


def paths_file(path: Path) -> Path:
    """Where the images' paths are written, in the order of the tokens' rows."""
    return path.with_suffix(".paths.txt")


class TokenStore:
    """Tokens while they are made: a file beside the state, with a row for each place of the order.

    Rows of a shard's other images are holes, which take no space.
    """

    def __init__(self, state: Path, images: int, tokens: int, vocab_size: int) -> None:
        self.path = store_path(state)
        self.images, self.tokens, self.dtype = images, tokens, smallest_type(vocab_size)
        self.row_bytes = tokens * self.dtype.itemsize
        self._file = -1

    def create(self, *, begun: bool) -> None:
        """Make the file, or check that it is that of a run which has begun.

        Raises:
            StateError: it is not, so that tokens of images that were read are missing; or it can't be
                written.
        """
        size = self.path.stat().st_size if self.path.exists() else -1
        if begun and size != self.images * self.row_bytes:
            raise StateError(
                f"{self.path}: the run that is saved did not keep its tokens. Run without "
                "--save-tokens, or remove the saved state and start again."
            )
        if not begun:
            try:
                with self.path.open("wb") as file:
                    file.truncate(self.images * self.row_bytes)
            except OSError as error:
                raise StateError(f"{self.path}: can't be written: {error.strerror}.") from error

    def open(self) -> None:
        """Open the file that the first process made.

        Raises:
            StateError: it can't be opened.
        """
        try:
            self._file = os.open(self.path, os.O_RDWR)
        except OSError as error:
            raise StateError(
                f"{self.path}: can't be written: {error.strerror}. Give a --state that all processes "
                "see."
            ) from error

    def write(self, places: Sequence[int], idx_BL: Tensor) -> None:
        """Write the rows of some images.

        Raises:
            StateError: the disk is full, or gone.
        """
        rows_BL = idx_BL.numpy().astype(self.dtype)
        try:
            for place, row_L in zip(places, rows_BL, strict=True):
                if os.pwrite(self._file, row_L.tobytes(), place * self.row_bytes) < self.row_bytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StateError(f"{self.path}: can't be written: {error.strerror}.") from error

    def sync(self) -> None:
        """Make sure that what was written survives."""
        os.fsync(self._file)

    def deliver(self, path: Path, places: Sequence[int], names: Iterable[str]) -> None:
        """Write the rows of these places as an array, and the images' paths beside it, each whole."""
        stored = np.memmap(self.path, self.dtype, "r", shape=(self.images, self.tokens))

        def write(temporary: Path) -> None:
            shape = (len(places), self.tokens)
            with temporary.open("wb") as file:
                header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for place in places:
                    file.write(stored[place].tobytes())

        def list_paths(temporary: Path) -> None:
            with temporary.open("wb") as file:
                for name in names:
                    file.write(os.fsencode(name.translate(IN_ONE_LINE)) + b"\n")

        write_atomically(path, write)
        write_atomically(paths_file(path), list_paths)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def store_path(state: Path) -> Path:
    """Where the tokens of a state's images are."""
    return state.with_name(f".{state.name}.entropy-cli-tokens")  # a name that nobody gives a file
