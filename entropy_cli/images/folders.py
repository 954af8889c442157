"""Finding images in a tree of folders, by the same rules on a disk and in tars."""

import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.formats import SkippedFiles, is_image
from entropy_cli.images.listing import ImageFile
from entropy_cli.images.tars import TarFolder


@dataclass(frozen=True)
class DiskFolder:
    """A folder on a disk, with the methods of `TarFolder`."""

    path: Path

    @property
    def source(self) -> "DiskFolder":
        """The folder itself, whose paths start here."""
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

    def image(self, name: str, path: str) -> ImageFile:
        """Return an entry as an image; a link that can't be followed has size 0 and is unreadable."""
        try:
            return ImageFile(path, (self.path / name).stat().st_size)
        except OSError:
            return ImageFile(path, 0)

    def subfolder(self, name: str) -> "DiskFolder | None":
        """Return the subfolder of this name, or None."""
        return DiskFolder(self.path / name) if (self.path / name).is_dir() else None

    def _listing_error(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self.path}: can't be listed: {error.strerror}.")


Folder = DiskFolder | TarFolder


def walk_images(root: Folder, skipped: SkippedFiles) -> Iterator[ImageFile]:
    """Iterate over the images at any depth, following links to folders and skipping hidden entries.

    No folder is visited twice, however many links lead to it, and none above the root.

    Args:
        root: the folder to start from.
        skipped: counts the other files.
    """
    visited = set(root.ancestors())
    pending: list[tuple[Folder, str]] = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        if (identity := folder.identity()) in visited:
            continue
        visited.add(identity)
        for name, subfolder in folder.entries():
            if name.startswith("."):
                continue
            if subfolder is not None:
                pending.append((subfolder, f"{prefix}{name}/"))
            elif is_image(name):
                yield folder.image(name, prefix + name)
            else:
                skipped.add(name)
