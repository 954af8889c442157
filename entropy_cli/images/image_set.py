"""The images of a run, in a seeded order, each in a jackknife group."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.progress_bars import Bars, no_bars
from entropy_cli.entropy.quantity import Cluster
from entropy_cli.images.folders import Place, walk_images
from entropy_cli.images.formats import SkippedFiles
from entropy_cli.images.listing import NO_LABEL, ImageFile, ImageList
from entropy_cli.images.members import StoredImage
from entropy_cli.images.roots import Progress, find_root, silent

GROUPS = 32  # of the jackknife


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in the seeded order."""

    source: Place
    split: str  # train, val, all or folder (no train/ and val/)
    files: ImageList  # the images to read
    listed: ImageList  # all images of the split, of which `files` may be the first few
    seed: int  # of the order and the groups
    note: str = ""  # a line about skipped files that may be images too
    cluster: Cluster = "image"  # what no two groups share

    def __len__(self) -> int:
        """Return the number of images to read."""
        return len(self.files)

    @property
    def found(self) -> int:
        """The number of images in the split."""
        return len(self.listed)

    @property
    def location(self) -> str:
        """The absolute path of the source."""
        return self.source.location

    def name(self, index: int) -> str:
        """Return the relative path of an image."""
        return self.files[index].path

    def locate(self, index: int) -> Path | StoredImage:
        """Return where `read_image` finds an image."""
        return self.source.locate(self.files[index])

    def group(self, index: int) -> int:
        """Return an image's jackknife group, from its path alone: every run and shard agrees."""
        return group_of(self.name(index), self.seed, self.cluster)

    def label_of(self, path: str) -> int | None:
        """Return the data set's own class of the image of this relative path, None if it has none.

        The class comes from the label column of Parquet files, and from the `cls` members of WebDataset
        samples.
        """
        label = self._labels.get(path, NO_LABEL)
        return None if label == NO_LABEL else label

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {file.path: file.label for file in self.files if file.label != NO_LABEL}

    def folders_left_out(self) -> set[str]:
        """Return the folders of the images that are beyond the limit."""
        return {
            self.listed[index].path.rpartition("/")[0] for index in range(len(self.files), self.found)
        }

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
    progress: Progress = silent,
    bars: Bars = no_bars,
) -> ImageSet:
    """List the images of a folder, or of archives of one, and shuffle them by the seed.

    The order sorts by a hash of seed and path: a random permutation, because folders are sorted by class
    and a part of a run would otherwise see few classes, and the same one on every machine.

    Args:
        data: a folder, with train/ and val/ in it or images at any depth, or archives of them; or an
            archive of one, or a pattern of several, see `patterns`.
        split: "auto" takes val/ if it exists, else train/, else the folder itself.
        seed: the seed of the order and the groups.
        limit: the number of images to keep, the first of the order; None keeps all.
        cluster: what falls into a group as a whole: an image, or all images of a folder.
        progress: called with 1 for every image found.
        bars: makes progress bars of unpacking compressed tars.

    Raises:
        DatasetError: the folder, an archive or the split doesn't exist, can't be read, or has no
            images; or folders are to be grouped, and there is only one.
    """
    root, split, progress = find_root(data, split, progress, bars)
    source, skipped = root.source, SkippedFiles()
    files = _shuffle(walk_images(root, skipped), seed, progress)
    if not files:
        raise skipped.error(source.name)
    notes = [*source.notes, *([f"{source.name}: {skipped.note()}"] if skipped.note() else [])]
    kept = files if limit is None else files[:limit]
    if cluster == "folder" and len({cluster_key(file.path, cluster) for file in kept}) < 2:
        raise DatasetError(
            f"{source.name}: --cluster folder: got {len(kept):,} images in one folder, expected at "
            "least two. Leave it out: the intervals are then about other images of this folder."
        )
    return ImageSet(source, split, kept, files, seed, "; ".join(notes), cluster)


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


def group_of(name: str, seed: int, cluster: Cluster = "image") -> int:
    """Return the jackknife group of the image of this relative path, or number."""
    return hash_path(cluster_key(name, cluster), seed)[1] % GROUPS


def hash_path(path: str, seed: int) -> tuple[int, int]:
    """Return two independent hashes of a path: for its position in the order, and for its group."""
    digest = hashlib.blake2b(os.fsencode(path), digest_size=16, salt=seed.to_bytes(8, "little"))
    key = digest.digest()
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
