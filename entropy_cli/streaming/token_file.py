"""The hard tokens of a run as a file, to train a model on."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError, ResultError, StateError
from entropy_cli.core.files import write_atomically
from entropy_cli.core.reading import OpenFile
from entropy_cli.entropy.assign import MAX_INDEXABLE
from entropy_cli.streaming.ranks import Ranks

WRITTEN = b"\1"  # ends a row; a file that was cut off and grew again has a zero there
# Escapes for a path on a line of its own.
IN_ONE_LINE = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


def paths_file(path: Path) -> Path:
    """Return where the images' paths are written, in the order of the tokens' rows."""
    return path.parent / f"{path.stem}.paths.txt"


class TokenStore:
    """The tokens of a run under way: a file beside the state with a row for each image, in order.

    Rows of other shards' images are holes, which take no space.
    """

    def __init__(self, state: Path, images: int, tokens: int, vocab_size: int) -> None:
        """Describe the store; raise ResultError if there are more codes than a row can number."""
        if vocab_size > MAX_INDEXABLE:
            raise ResultError(
                f"--save-tokens, --ladder: {vocab_size} codes can't be numbered in 63 bits. Leave them "
                "out."
            )
        self.path, self.images, self.tokens = store_path(state), images, tokens
        self.dtype = np.min_scalar_type(vocab_size - 1)  # the smallest that can number the codes
        self.row_bytes = tokens * self.dtype.itemsize + len(WRITTEN)
        self._file = -1

    def create(self, *, resumed: bool) -> None:
        """Make the file, or check that of a run that is resumed.

        Raises:
            StateError: tokens of images that were read are missing, or the file can't be written.
        """
        size = self.path.stat().st_size if self.path.exists() else -1
        if resumed and size != self.images * self.row_bytes:
            raise StateError(
                f"{self.path}: the run that is saved did not keep its tokens. Run without "
                "--save-tokens and --ladder, or remove the saved state and start again."
            )
        if not resumed:
            with self._named_errors(), self.path.open("wb") as file:
                file.truncate(self.images * self.row_bytes)

    def open(self) -> None:
        """Open the file that the first process made; raise StateError if it can't be."""
        with self._named_errors(" Give a --state that all processes see."):
            self._file = os.open(self.path, os.O_RDWR)

    def write(self, places: Sequence[int], idx_BL: Tensor) -> None:
        """Write the rows of some images; raise StateError if the disk is full, or gone."""
        with self._named_errors():
            for place, row_L in zip(places, idx_BL.numpy().astype(self.dtype), strict=True):
                row = row_L.tobytes() + WRITTEN
                if os.pwrite(self._file, row, place * self.row_bytes) < self.row_bytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Bring what was written to the disk; raise StateError if that fails."""
        with self._named_errors():
            os.fsync(self._file)

    def deliver(self, path: Path, places: Sequence[int], names: Iterable[str]) -> None:
        """Write the rows of these places as an array, and the images' paths beside it, each whole.

        Raises:
            StateError: a row is missing, because the store was cut off during the run.
        """

        def write_rows(temporary: Path) -> None:
            shape, stored = (len(places), self.tokens), OpenFile(self.path)
            with temporary.open("wb") as file:
                header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.writelines(self._row(stored, place) for place in places)

        def write_names(temporary: Path) -> None:
            with temporary.open("wb") as file:
                file.writelines(os.fsencode(name.translate(IN_ONE_LINE)) + b"\n" for name in names)

        write_atomically(path, write_rows)
        write_atomically(paths_file(path), write_names)

    def rows(self, places: Sequence[int]) -> np.ndarray:
        """Return the tokens of the images at these places, int64 (m, L).

        Raises:
            StateError: a row is missing, because the store was cut off during the run.
        """
        stored = OpenFile(self.path)
        idx_ML = np.empty((len(places), self.tokens), np.int64)
        for idx_L, place in zip(idx_ML, places, strict=True):
            idx_L[:] = np.frombuffer(self._row(stored, place), self.dtype)
        return idx_ML

    def _row(self, stored: OpenFile, place: int) -> bytearray:
        with contextlib.suppress(OSError):
            content = stored.read(place * self.row_bytes, (place + 1) * self.row_bytes)
            if content[-len(WRITTEN) :] == WRITTEN:
                return content[: -len(WRITTEN)]
        raise StateError(
            f"{self.path}: lacks tokens that were written to it. Was it cut off? Remove it and the "
            "saved state, and start again."
        )

    @contextlib.contextmanager
    def _named_errors(self, advice: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateError(f"{self.path}: can't be written: {error.strerror}.{advice}") from error

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def shard_tokens(state: Path) -> Path:
    """Return where a shard of a run with a ladder leaves its tokens for the merge."""
    return state.with_name(f"{state.name}.tokens.npy")


def store_path(state: Path) -> Path:
    """Return where the tokens of a state's images are."""
    return state.with_name(f".{state.name}.entropy-cli-tokens")  # a name that nobody gives a file


def open_token_store(store: TokenStore, ranks: Ranks, *, resumed: bool) -> None:
    """Open a store in all processes; the first makes its file, or checks that of a resumed run.

    Raises:
        StateError: in all processes, if any of them can't.
    """

    def create() -> None:
        if ranks.first:
            store.create(resumed=resumed)

    for step in (create, store.open):
        failure: EntropyCliError | None = None
        try:
            step()
        except EntropyCliError as error:
            failure = error
        for first in filter(None, ranks.all_gather(failure)):
            raise first
