"""Finding images in a tree of folders, by the same rules on a disk and in tars."""

import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.formats import SkippedFiles, is_image
from entropy_cli.images.listing import ImageFile
from entropy_cli.images.tar_file import TarImage


class Source(Protocol):
    """A folder or tars that hold images; small, because every worker has a copy."""

    @property
    def name(self) -> str:
        """The path as the user gave it."""
        ...

    @property
    def location(self) -> str:
        """The absolute path."""
        ...

    def locate(self, file: ImageFile) -> Path | TarImage:
        """Return where `read_image` finds an image."""
        ...


class Entry(Protocol):
    """An entry of a folder: a file, a folder or a link."""

    @property
    def name(self) -> str:
        """The name without its folder."""
        ...

    def folder(self) -> "Folder | None":
        """Return the folder that the entry is or links to; None if it is no folder or a broken link."""
        ...

    def image(self, path: str) -> ImageFile:
        """Return the entry as an image with this path; a broken link has size 0."""
        ...


class Folder(Protocol):
    """A folder on a disk or in tars."""

    @property
    def source(self) -> Source:
        """The source whose paths start at this folder."""
        ...

    def identity(self) -> Hashable:
        """Return a value that is equal for the same folder, by whatever path it was reached."""
        ...

    def ancestors(self) -> Iterable[Hashable]:
        """Return the identities of all folders above this one."""
        ...

    def entries(self) -> Sequence[Entry]:
        """Return the entries sorted by name."""
        ...

    def subfolder(self, name: str) -> "Folder | None":
        """Return the subfolder of this name, or None."""
        ...


def walk_images(root: Folder, skipped: SkippedFiles) -> Iterator[ImageFile]:
    """Iterate over the images at any depth, following links to folders and skipping hidden entries.

    No folder is visited twice, however many links lead to it, and none above the root.

    Args:
        root: the folder to start from.
        skipped: counts the other files.
    """
    visited = set(root.ancestors())
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        if (identity := folder.identity()) in visited:
            continue
        visited.add(identity)
        for entry in folder.entries():
            if entry.name.startswith("."):
                continue
            if (subfolder := entry.folder()) is not None:
                pending.append((subfolder, f"{prefix}{entry.name}/"))
            elif is_image(entry.name):
                yield entry.image(prefix + entry.name)
            else:
                skipped.add(entry.name)


@dataclass(frozen=True)
class DiskFolder:
    """A folder on a disk."""

    path: Path

    @property
    def source(self) -> "DiskFolder":
        """The folder itself."""
        return self

    @property
    def name(self) -> str:
        """The path as the user gave it."""
        return str(self.path)

    @property
    def location(self) -> str:
        """The absolute path."""
        return str(self.path.resolve())

    def locate(self, file: ImageFile) -> Path:
        """Return the path of an image."""
        return self.path / file.path

    def identity(self) -> Hashable:
        """Return device and inode."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._listing_error(error) from error
        return status.st_dev, status.st_ino

    def ancestors(self) -> Iterable[Hashable]:
        """Return the identities of all folders above this one."""
        return [DiskFolder(folder).identity() for folder in self.path.resolve().parents]

    def entries(self) -> "Sequence[_DiskEntry]":
        """Return the entries sorted by name."""
        try:
            return [_DiskEntry(entry) for entry in sorted(os.scandir(self.path), key=lambda e: e.name)]
        except OSError as error:
            raise self._listing_error(error) from error

    def subfolder(self, name: str) -> "DiskFolder | None":
        """Return the subfolder of this name, or None."""
        return DiskFolder(self.path / name) if (self.path / name).is_dir() else None

    def _listing_error(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self.path}: can't be listed: {error.strerror}.")


class _DiskEntry:
    __slots__ = ("_entry", "name")

    def __init__(self, entry: "os.DirEntry[str]") -> None:
        self._entry, self.name = entry, entry.name

    def folder(self) -> DiskFolder | None:
        """Return the folder that the entry is or links to; None if it can't be followed."""
        try:
            return DiskFolder(Path(self._entry.path)) if self._entry.is_dir() else None
        except OSError:
            return None

    def image(self, path: str) -> ImageFile:
        """Return the entry as an image; a link that can't be followed has size 0 and is unreadable."""
        try:
            return ImageFile(path, self._entry.stat().st_size)
        except OSError:
            return ImageFile(path, 0)
