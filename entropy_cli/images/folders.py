"""Folders that hold images, on a disk or in archives, and the walk through them."""

import os
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Protocol

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.formats import SkippedFiles, is_image
from entropy_cli.images.listing import ImageFile
from entropy_cli.images.members import MOST_CHARACTERS, StoredImage


class Place(Protocol):
    """A place where images are: a folder on a disk, or archives."""

    @property
    def name(self) -> str:
        """The place as the user gave it."""

    @property
    def location(self) -> str:
        """The place as an absolute path."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on files that were left aside."""

    def locate(self, file: ImageFile) -> Path | StoredImage:
        """Return where `read_image` finds an image."""


class Folder(Protocol):
    """A folder of a place, which is walked through."""

    @property
    def source(self) -> Place:
        """The place that finds its images again."""

    def identity(self) -> Hashable:
        """Return a value that is equal for the same folder, by whatever path it was reached."""

    def ancestors(self) -> list[Hashable]:
        """Return the identities of all folders above this one."""

    def entries(self) -> "Iterable[tuple[str, Folder | None]]":
        """Iterate over the names in it, sorted, with the folders that they are or link to."""

    def is_image(self, name: str) -> bool:
        """Return whether an entry counts as an image."""

    def is_second(self, name: str) -> bool:
        """Return whether an entry is a second picture of a WebDataset sample, which is left aside."""

    def image(self, name: str, path: str) -> ImageFile:
        """Return an entry as an image of this path; a broken link has size 0 and is unreadable."""

    def subfolder(self, name: str) -> "Folder | None":
        """Return the subfolder of this name, or None."""


@dataclass(frozen=True)
class DiskFolder:
    """A folder on a disk: a place of images and a folder of it."""

    path: Path

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

    @property
    def source(self) -> "DiskFolder":
        """The folder itself, which is a place too."""
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes, of which a folder on a disk has none."""
        return ()

    def identity(self) -> Hashable:
        """Return device and inode."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._listing_error(error) from error
        return status.st_dev, status.st_ino

    def ancestors(self) -> list[Hashable]:
        """Return the identities of all folders above this one."""
        return [DiskFolder(folder).identity() for folder in self.path.resolve().parents]

    def entries(self) -> Iterator[tuple[str, "DiskFolder | None"]]:
        """Iterate over the names in it, sorted, with the folders that they are or link to."""
        try:
            entries = sorted(os.scandir(self.path), key=attrgetter("name"))
        except OSError as error:
            raise self._listing_error(error) from error
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that can't be followed
                is_folder = False
            yield entry.name, DiskFolder(Path(entry.path)) if is_folder else None

    def is_image(self, name: str) -> bool:
        """Return whether a file counts as an image, by its suffix."""
        return is_image(name)

    def is_second(self, name: str) -> bool:
        """Return False: a folder on a disk is taken as it is."""
        return False

    def image(self, name: str, path: str) -> ImageFile:
        """Return an entry as an image; a link that can't be followed has size 0 and is unreadable."""
        try:  # a Path for each of a million images would cost as much as the rest
            return ImageFile(path, os.stat(f"{self.path}/{name}").st_size)  # noqa: PTH116
        except OSError:
            return ImageFile(path, 0)

    def subfolder(self, name: str) -> "DiskFolder | None":
        """Return the subfolder of this name, or None."""
        return DiskFolder(self.path / name) if (self.path / name).is_dir() else None

    def _listing_error(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self.path}: can't be listed: {error.strerror}.")


def folder_around(data: Path, path: Path) -> Path | None:
    """Return the folder whose images are read that a path lies in: data, or its train/ or val/."""
    parts = [part for name in ("train", "val") if (part := data / name).is_dir()] or [data]
    inside = Path(os.path.realpath(path))  # unlike Path.resolve also of a link that leads to itself
    return next((p for p in parts if p.is_dir() and inside.is_relative_to(p.resolve())), None)


def walk(root: Folder) -> Iterator[tuple[Folder, str, str]]:
    """Iterate over the files at any depth: the folder of each, its name there, and its relative path.

    Links are followed, but not to a folder visited before. Hidden entries are left out.

    Raises:
        DatasetError: a folder can't be listed, or links make a path too long.
    """
    visited = set(root.ancestors())
    pending: list[tuple[Folder, str]] = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        if len(prefix) > MOST_CHARACTERS:  # links in each folder to the next
            raise DatasetError(
                f"{prefix[:80]}...: a path of {len(prefix):,} characters, expected at most "
                f"{MOST_CHARACTERS:,}. Remove links between folders."
            )
        if (identity := folder.identity()) in visited:
            continue
        visited.add(identity)
        for name, subfolder in folder.entries():
            if name.startswith("."):
                continue
            if subfolder is not None:
                pending.append((subfolder, f"{prefix}{name}/"))
            else:
                yield folder, name, prefix + name


def walk_images(root: Folder, skipped: SkippedFiles) -> Iterator[ImageFile]:
    """Iterate over the images at any depth; other files are counted as skipped."""
    for folder, name, path in walk(root):
        if folder.is_image(name):
            yield folder.image(name, path)
        else:
            skipped.add(name, is_second=folder.is_second(name))
