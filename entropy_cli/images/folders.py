"""Walking a tree of folders for images: the same rules on a disk and in tars."""

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
    """Where images are: small, for every worker has one."""

    @property
    def name(self) -> str:
        """As the user gave it."""
        ...

    @property
    def location(self) -> str:
        """With every folder above it, for the record."""
        ...

    def locate(self, file: ImageFile) -> Path | TarImage:
        """What `read_image` reads an image from."""
        ...


class Entry(Protocol):
    """A name in a folder, and what it leads to."""

    @property
    def name(self) -> str:
        """Without the folders above."""
        ...

    def folder(self) -> "Folder | None":
        """The folder that it is or links to; None if it is something else or leads nowhere."""
        ...

    def image(self, path: str) -> ImageFile:
        """The image that it is taken for, under this path; of size 0 if it leads nowhere."""
        ...


class Folder(Protocol):
    """A folder of a tree."""

    @property
    def source(self) -> Source:
        """Where the images in it are, as paths from here."""
        ...

    def identity(self) -> Hashable:
        """Something that is the same for the same folder reached in other ways."""
        ...

    def ancestors(self) -> Iterable[Hashable]:
        """Identities of the folders that it is in."""
        ...

    def entries(self) -> Sequence[Entry]:
        """What is in it, sorted by name."""
        ...

    def subfolder(self, name: str) -> "Folder | None":
        """A folder in it, or None."""
        ...


def walk_images(root: Folder, skipped: SkippedFiles) -> Iterator[ImageFile]:
    """Images at any depth, through links to folders, not through hidden files and folders.

    No folder is walked twice, however many links lead to it, and none above the root.

    Args:
        root: where to start.
        skipped: is given the other files.
    """
    walked = set(root.ancestors())
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        if (identity := folder.identity()) in walked:
            continue
        walked.add(identity)
        for entry in folder.entries():
            if entry.name.startswith("."):
                continue
            if (below := entry.folder()) is not None:
                pending.append((below, f"{prefix}{entry.name}/"))
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
        """Itself."""
        return self

    @property
    def name(self) -> str:
        """As it was given."""
        return str(self.path)

    @property
    def location(self) -> str:
        """With every folder above it."""
        return str(self.path.resolve())

    def locate(self, file: ImageFile) -> Path:
        """Where the image of this path is."""
        return self.path / file.path

    def identity(self) -> Hashable:
        """Device and inode."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._unlisted(error) from error
        return status.st_dev, status.st_ino

    def ancestors(self) -> Iterable[Hashable]:
        """Identities of the folders that it is in."""
        return [DiskFolder(folder).identity() for folder in self.path.resolve().parents]

    def entries(self) -> "Sequence[_DiskEntry]":
        """What is in it, sorted by name."""
        try:
            return [_DiskEntry(entry) for entry in sorted(os.scandir(self.path), key=lambda e: e.name)]
        except OSError as error:
            raise self._unlisted(error) from error

    def subfolder(self, name: str) -> "DiskFolder | None":
        """A folder in it, or None."""
        return DiskFolder(self.path / name) if (self.path / name).is_dir() else None

    def _unlisted(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self.path}: can't be listed: {error.strerror}.")


class _DiskEntry:
    __slots__ = ("_entry", "name")

    def __init__(self, entry: "os.DirEntry[str]") -> None:
        self._entry, self.name = entry, entry.name

    def folder(self) -> DiskFolder | None:
        """None also for a link that can't be followed."""
        try:
            return DiskFolder(Path(self._entry.path)) if self._entry.is_dir() else None
        except OSError:
            return None

    def image(self, path: str) -> ImageFile:
        """Of size 0 for a link that can't be followed, which counts as an unreadable image."""
        try:
            return ImageFile(path, self._entry.stat().st_size)
        except OSError:
            return ImageFile(path, 0)
