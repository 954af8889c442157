"""A list of image files that stays small in memory, however many there are."""

import os
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, overload

import numpy as np


class ImageFile(NamedTuple):
    """An image file, in a folder or in a tar.

    Attributes:
        path: the path relative to the root, with / between folders.
        size: the size in bytes.
        tar: the index of its tar; -1 in a folder.
        offset: the offset of its first byte in the tar; negative if unreadable, see
            `tar_file.UNREADABLE`.
    """

    path: str
    size: int
    tar: int = -1
    offset: int = 0


class ImageList(Sequence[ImageFile]):
    """A list of image files, stored in a few arrays; each item is created on access.

    A million Python objects cost hundreds of MB, and forked workers would copy them, because counting
    references writes to them.
    """

    def __init__(
        self,
        paths: bytes | bytearray,
        ends_N: np.ndarray,
        sizes_N: np.ndarray,
        places: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """Store the arrays that `from_files` collected.

        Args:
            paths: all paths concatenated, in the file system's encoding.
            ends_N: the end of each path, int64.
            sizes_N: the size of each image in bytes, int64.
            places: for images in tars, the index of the tar, int32, and the offset, int64.
        """
        self._paths, self._ends_N, self._sizes_N, self._places = bytes(paths), ends_N, sizes_N, places

    @classmethod
    def from_files(cls, files: Iterable[ImageFile]) -> "ImageList":
        """Collect images; the iterable is read once."""
        paths, ends, sizes = bytearray(), array("q"), array("q")
        tars, offsets = array("i"), array("q")
        for path, size, tar, offset in files:
            paths += os.fsencode(path)
            ends.append(len(paths))
            sizes.append(size)
            if tar >= 0:
                tars.append(tar)
                offsets.append(offset)
        assert len(tars) in (0, len(ends)), "images are in one folder or in tars, not both"
        places = (_integers(tars, np.int32), _integers(offsets, np.int64)) if tars else None
        return cls(paths, _integers(ends, np.int64), _integers(sizes, np.int64), places)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._ends_N)

    @overload
    def __getitem__(self, index: int) -> ImageFile: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageList": ...
    def __getitem__(self, index: int | slice) -> "ImageFile | ImageList":
        """Return one image, or a slice as a list of its own."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]  # counts from the end, or raises IndexError
        path, size = os.fsdecode(self._path(index)), int(self._sizes_N[index])
        if self._places is None:
            return ImageFile(path, size)
        tars_N, offsets_N = self._places
        return ImageFile(path, size, int(tars_N[index]), int(offsets_N[index]))

    def take(self, indices: np.ndarray) -> "ImageList":
        """Return the images at these indices, in this order."""
        paths, ends_N = bytearray(), np.empty(len(indices), np.int64)
        for i, index in enumerate(indices):
            paths += self._path(index)
            ends_N[i] = len(paths)
        places = self._places and (self._places[0][indices], self._places[1][indices])
        return ImageList(paths, ends_N, self._sizes_N[indices], places)

    def _path(self, index: int) -> bytes:
        start = self._ends_N[index - 1] if index else 0
        return self._paths[start : self._ends_N[index]]


def _integers(values: "array[int]", dtype: type[np.signedinteger]) -> np.ndarray:
    return np.frombuffer(values, dtype) if values else np.empty(0, dtype)
