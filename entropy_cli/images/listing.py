"""A list of image files that stays small in memory, however many there are."""

import os
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, overload

import numpy as np

NO_LABEL = -1


class ImageFile(NamedTuple):
    """An image file, in a folder or in an archive."""

    path: str  # relative to the root, with / between folders
    size: int  # in bytes
    archive: int = -1  # its index; -1 in a folder
    at: int = 0  # where the archive finds it; negative if it is in `members.UNREADABLE`
    label: int = NO_LABEL  # the data set's own class of it


class ImageList(Sequence[ImageFile]):
    """A list of image files, stored in two arrays; each item is created on access.

    A million Python objects cost hundreds of MB, and forked workers would copy them, because counting
    references writes to them.
    """

    def __init__(self, paths: bytes, number_NX: np.ndarray) -> None:
        """Store what `from_files` collected.

        Args:
            paths: all paths concatenated, in the file system's encoding.
            number_NX: for each image the end of its path and its size; in archives also the other
                fields. int64.
        """
        self._paths, self._number_NX = paths, number_NX

    @classmethod
    def from_files(cls, files: Iterable[ImageFile]) -> "ImageList":
        """Collect images, which are in one folder or in archives; the iterable is read once."""
        paths, numbers = bytearray(), array("q")
        for path, *fields in files:
            paths += os.fsencode(path)
            numbers.extend((len(paths), *fields))
        number_N5 = np.array(numbers, np.int64).reshape(-1, 5)
        in_archives = bool((number_N5[:, 2] >= 0).any())
        return cls(bytes(paths), number_N5 if in_archives else number_N5[:, :2].copy())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._number_NX)

    @overload
    def __getitem__(self, index: int) -> ImageFile: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageList": ...
    def __getitem__(self, index: int | slice) -> "ImageFile | ImageList":
        """Return one image, or a slice as a list of its own."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]  # counts from the end, or raises IndexError
        return ImageFile(os.fsdecode(self._path(index)), *self._number_NX[index, 1:].tolist())

    def take(self, indices: np.ndarray) -> "ImageList":
        """Return the images at these indices, in this order."""
        paths, number_NX = bytearray(), self._number_NX[indices]
        for i, index in enumerate(indices):
            paths += self._path(index)
            number_NX[i, 0] = len(paths)
        return ImageList(bytes(paths), number_NX)

    def _path(self, index: int) -> bytes:
        start = self._number_NX[index - 1, 0] if index else 0
        return self._paths[start : self._number_NX[index, 0]]
