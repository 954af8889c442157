"""The images of a run, in a seeded order, each in a jackknife group."""

import hashlib
import os
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.entropy.quantity import Cluster
from entropy_cli.images.formats import SkippedFiles, is_image
from entropy_cli.images.listing import ImageFile, ImageList
from entropy_cli.images.patterns import is_tar_pattern
from entropy_cli.images.tar_index import MOST_CHARACTERS, TarImage
from entropy_cli.images.tars import TarFolder, Tars, open_tars

GROUPS = 32  # of the jackknife

Progress = Callable[[int], object]


def _silent(_: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class DiskFolder:
    """A folder on a disk, with the methods of `TarFolder` and of `Tars`."""

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
        try:  # a Path for each of a million images would cost as much as the rest
            return ImageFile(path, os.stat(f"{self.path}/{name}").st_size)  # noqa: PTH116
        except OSError:
            return ImageFile(path, 0)

    def subfolder(self, name: str) -> "DiskFolder | None":
        """Return the subfolder of this name, or None."""
        return DiskFolder(self.path / name) if (self.path / name).is_dir() else None

    def _listing_error(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self.path}: can't be listed: {error.strerror}.")


Folder = DiskFolder | TarFolder


def folder_around(data: Path, path: Path) -> Path | None:
    """Return the folder whose images are read that a path lies in: data, or its train/ or val/."""
    parts = [part for name in ("train", "val") if (part := data / name).is_dir()] or [data]
    inside = Path(os.path.realpath(path))  # unlike Path.resolve also of a link that leads to itself
    return next((p for p in parts if p.is_dir() and inside.is_relative_to(p.resolve())), None)


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in the seeded order."""

    source: DiskFolder | Tars
    split: str  # train, val, all or folder (no train/ and val/)
    files: ImageList  # the images to read
    found: int  # the number of images in the split, of which `files` may be the first few
    seed: int  # of the order and the groups
    note: str = ""  # a line about skipped files that may be images too
    cluster: Cluster = "image"  # what no two groups share

    def __len__(self) -> int:
        """Return the number of images to read."""
        return len(self.files)

    @property
    def location(self) -> str:
        """The absolute path of the source."""
        return self.source.location

    def name(self, index: int) -> str:
        """Return the relative path of an image."""
        return self.files[index].path

    def locate(self, index: int) -> Path | TarImage:
        """Return where `read_image` finds an image."""
        return self.source.locate(self.files[index])

    def group(self, index: int) -> int:
        """Return an image's jackknife group, from its path alone: every run and shard agrees."""
        return hash_path(cluster_key(self.name(index), self.cluster), self.seed)[1] % GROUPS

    def fingerprint(self) -> str:
        """Return a hash of the relative paths and sizes, in order."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(os.fsencode(file.path) + b"\0%d\n" % file.size)
        return digest.hexdigest()


def find_images(
    data: Path,
    split: str = "auto",
    *,
    seed: int = 0,
    limit: int | None = None,
    cluster: Cluster = "image",
    progress: Progress = _silent,
) -> ImageSet:
    """List the images of a folder, or of tars of one, and shuffle them by the seed.

    The order sorts by a hash of seed and path: a random permutation, because folders are sorted by class
    and a part of a run would otherwise see few classes, and the same one on every machine.

    Args:
        data: a folder, with train/ and val/ in it or images at any depth; or a tar of one, or a pattern
            of several, see `patterns`.
        split: "auto" takes val/ if it exists, else train/, else the folder itself.
        seed: the seed of the order and the groups.
        limit: the number of images to keep, the first of the order; None keeps all.
        cluster: what falls into a group as a whole: an image, or all images of a folder.
        progress: called with 1 for every image found.

    Raises:
        DatasetError: the folder, a tar or the split doesn't exist, can't be read, or has no images; or
            folders are to be grouped, and there is only one.
    """
    if is_tar_pattern(data):
        top: Folder = open_tars(str(data), progress)
        progress = _silent  # the images are counted while the tars are indexed
    elif data.is_dir():
        top = DiskFolder(data)
    else:
        raise DatasetError(f"{data}: no such folder. Give --data a folder of images, or tars of one.")
    root, split = _find_split(top, str(data), split)
    source = root if isinstance(root, DiskFolder) else root.tree.source
    skipped = SkippedFiles()
    files = _shuffle(_walk_images(root, skipped), seed, progress)
    if not files:
        raise skipped.error(source.name)
    note = f"{source.name}: {skipped.note()}" if skipped.note() else ""
    kept = files if limit is None else files[:limit]
    if cluster == "folder" and len({cluster_key(file.path, cluster) for file in kept}) < 2:
        raise DatasetError(
            f"{source.name}: --cluster folder: got {len(kept):,} images in one folder, expected at "
            "least two. Leave it out: the intervals are then about other images of this folder."
        )
    return ImageSet(source, split, kept, len(files), seed, note, cluster)


def _find_split(top: Folder, name: str, split: str) -> tuple[Folder, str]:
    """Return the folder of a split, and the split's name."""
    if split == "all":
        return top, "all"
    for wanted in ("val", "train") if split == "auto" else (split,):
        if (folder := top.subfolder(wanted)) is not None:
            return folder, wanted
    if split == "auto":
        return top, "folder"
    raise DatasetError(f"{name}: has no {split}/ folder. Give another --split or --data.")


def _walk_images(root: Folder, skipped: SkippedFiles) -> Iterator[ImageFile]:
    """Iterate over the images at any depth, following links but not to a folder visited before.

    Hidden entries are left out, and other files counted as skipped.
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
            elif is_image(name):
                yield folder.image(name, prefix + name)
            else:
                skipped.add(name)


def _shuffle(files: Iterable[ImageFile], seed: int, progress: Progress) -> ImageList:
    keys = array("Q")

    def hashed() -> Iterator[ImageFile]:
        for file in files:
            keys.append(hash_path(file.path, seed)[0])
            progress(1)
            yield file

    listed = ImageList.from_files(hashed())
    key_N = np.array(keys, np.uint64)
    order_N = np.argsort(key_N, kind="stable")
    if (np.diff(key_N[order_N]) == 0).any():  # hash collisions, very rare: the path decides
        order_N = np.array(sorted(range(len(keys)), key=lambda i: (keys[i], listed[i].path)), np.int64)
    return listed.take(order_N)


def cluster_key(name: str, cluster: Cluster) -> str:
    """Return what the hash for the group of an image's relative path is of."""
    return name if cluster == "image" else str(PurePosixPath(name).parent)


def hash_path(path: str, seed: int) -> tuple[int, int]:
    """Return two independent hashes of a path: for its position in the order, and for its group."""
    digest = hashlib.blake2b(os.fsencode(path), digest_size=16, salt=seed.to_bytes(8, "little"))
    key = digest.digest()
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
