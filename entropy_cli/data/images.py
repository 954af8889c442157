"""Which images a run reads, in which order, and in which jackknife group each is."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from entropy_cli.errors import DatasetError

GROUPS = 32  # of the jackknife
SPLITS = ("auto", "train", "val", "all")


class ImageFile(NamedTuple):
    """An image by its path relative to the root, with / between folders, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in the seeded order.

    Attributes:
        root: the folder the paths are relative to.
        split: train, val, all or folder (a root without train/ and val/).
        files: the images to read.
        found: how many there are in all, of which `files` may be the first few.
        seed: of the order and the groups.
    """

    root: Path
    split: str
    files: Sequence[ImageFile]
    found: int
    seed: int

    def group(self, index: int) -> int:
        """Jackknife group of an image: by its path alone, so that every run and shard agrees."""
        return _keys(self.files[index].path, self.seed)[1] % GROUPS

    def fingerprint(self) -> str:
        """Hash of the relative paths and sizes in order."""
        digest = hashlib.sha256()
        for path, size in self.files:
            digest.update(os.fsencode(path) + b"\0%d\n" % size)
        return digest.hexdigest()


def find_images(
    data: Path,
    split: str = "auto",
    *,
    seed: int = 0,
    limit: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> ImageSet:
    """List the images under a folder and put them in the seeded order.

    The order sorts by a hash of seed and path: a random permutation, because folders are sorted by class
    and any part of a run would otherwise see few classes; and the same on every machine.

    Args:
        data: a folder, with train/ and val/ in it or images at any depth.
        split: "auto" takes val if there is one, else train, else the folder itself.
        seed: of the order and the groups.
        limit: keep only the first so many of the order.
        progress: is given 1 for every image found.

    Raises:
        DatasetError: the folder or the split is not there, can't be read, or has no images.
    """
    root, split = _root(data, split)
    files = []
    for file in _walk(root):
        files.append(file)
        progress(1)
    if not files:
        raise DatasetError(
            f"{root}: no images found. Expected files ending in {', '.join(IMG_EXTENSIONS)}."
        )
    files.sort(key=lambda file: (_keys(file.path, seed)[0], file.path))
    return ImageSet(root, split, files[:limit], len(files), seed)


def _root(data: Path, split: str) -> tuple[Path, str]:
    if not data.is_dir():
        what = "is not a folder" if data.exists() else "no such folder"
        raise DatasetError(f"{data}: {what}. Give a folder of images with --data.")
    if split == "all":
        return data, "all"
    if split == "auto":
        there = [name for name in ("val", "train") if (data / name).is_dir()]
        return (data / there[0], there[0]) if there else (data, "folder")
    if not (data / split).is_dir():
        raise DatasetError(f"{data}: has no {split}/ folder. Give another --split or --data.")
    return data / split, split


def _walk(root: Path) -> Iterator[ImageFile]:
    """Images at any depth, through links to folders, not through hidden files and folders.

    No folder is walked twice, however many links lead to it, and none above the root.
    """
    walked = {_identity(folder) for folder in root.resolve().parents}
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            if (identity := _identity(folder)) in walked:
                continue
            walked.add(identity)
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
                elif entry.name.lower().endswith(IMG_EXTENSIONS):
                    yield ImageFile(prefix + entry.name, _size(entry))
        except OSError as error:
            raise DatasetError(f"{folder}: can't be listed: {error.strerror}.") from error


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or a link to one; not if the link can't be followed."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _size(entry: "os.DirEntry[str]") -> int:
    """Size in bytes; 0 for a link that can't be followed, which counts as an unreadable image."""
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def _keys(path: str, seed: int) -> tuple[int, int]:
    """Two independent hashes of a path: its place in the order and its group."""
    digest = hashlib.blake2b(os.fsencode(path), digest_size=16, salt=seed.to_bytes(8, "little"))
    key = digest.digest()
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
