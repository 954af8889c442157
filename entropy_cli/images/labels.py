"""The class of each image, as class-conditional generators count them."""

import functools
import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import CONFIG_BYTES, read_bytes
from entropy_cli.entropy.quantity import LabelSource
from entropy_cli.images.formats import without_archive_suffix
from entropy_cli.images.label_file import IMAGENET_CLASSES, read_label_file

WNIDS_FILE = Path(__file__).parents[1] / "assets" / "imagenet_wnids.txt"
HASH = re.compile("[0-9a-f]*[0-9][0-9a-f]*")  # or number, of a shard
WNID = re.compile(r"(?<![0-9A-Za-z])n[0-9]{8}(?![0-9])")
NUMBER = re.compile(r"[0-9]{1,9}")
SPLIT = re.compile(r"\A(train|val)/")  # above the folders of classes, with --split all
SHOWN = 4  # folders in a note

OwnLabel = Callable[[str], int | None]
Folders = Callable[[], Iterable[str]]


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """The classes of images.

    Attributes:
        index_N: the class of each image, in the order of the paths, int64 (N,).
        source: how they were found.
        classes_seen: the number of different ones.
        notes: sentences on what was taken for granted.
    """

    index_N: np.ndarray
    source: LabelSource
    classes_seen: int
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 of the classes, in the order of the images, for a run's fingerprint."""
        return hashlib.sha256(self.index_N.astype("<i8").tobytes()).hexdigest()


def find_labels(
    paths: Iterable[str],
    source: Literal["auto", "none"] | Path,
    classes: int,
    null_class: int | None,
    label_of: OwnLabel | None = None,
    left_out: Folders = tuple,
) -> ClassLabels:
    """Find the class of each image, by one rule for all of them.

    "auto" takes the first rule that has a class for every image: ImageNet's wnids, as the parent folder
    or else in the file name, for a model of its 1,000 classes; the data set's own labels; folders that
    are all whole numbers below the number of classes; as many folders as classes, in sorted order, if
    none of them is one of ImageNet's wnids that the model's classes may be.

    Args:
        paths: relative paths of the N images, with / between folders; read once.
        source: "auto", "none" for the null class, or a file of lines path,index or path,wnid.
        classes: the number of classes of the model, without its null class.
        null_class: the index of its null class; None if it has none.
        label_of: returns the data set's own label of a path, None where it has none.
        left_out: returns folders of more images of the data set, which count where folders do: the
            first images of it have the same classes as in all of it.

    Raises:
        DatasetError: the file can't be used, no rule has a class for every image, a class is out of
            range, or the model has no null class to give to all.
    """
    if source == "none":
        if null_class is None:
            raise DatasetError(
                f"--labels none: the model has {classes:,} classes and no null class, because it was "
                "trained without label dropout. Take --labels auto, or give a file."
            )
        return _labels(np.full(sum(1 for _ in paths), null_class), "none")
    if source != "auto":
        read = read_label_file(source, classes, imagenet_wnids())
        return _labels(np.fromiter(read.labels_of(paths), np.int64), "file")
    seen = _read_paths(paths, label_of, left_out)
    for rule in (_by_wnid, _by_column, _by_number, _by_folder):
        if (labels := rule(seen, classes)) is not None:
            return labels
    raise _no_rule(seen, classes)


@functools.cache
def imagenet_wnids() -> Mapping[str, int]:
    """Return the index of each of ImageNet's 1,000 classes by its wnid: the wnids are sorted."""
    wnids = read_bytes(WNIDS_FILE, CONFIG_BYTES).decode("ascii").split()
    return {wnid: i for i, wnid in enumerate(wnids)}


@dataclass(frozen=True)
class _Paths:
    """The classes that the paths of images name; -1 where they name none."""

    wnid_N: np.ndarray  # index of the wnid
    column_N: np.ndarray  # the data set's own label
    folder_N: np.ndarray  # index in `folders`
    folders: list[str]  # above the images
    left_out: Folders  # of other images
    first: str
    first_without_wnid: str

    @functools.cached_property
    def all_folders(self) -> set[str]:
        """The folders of the data set."""
        return {*self.folders, *self.left_out()}


def _read_paths(paths: Iterable[str], label_of: OwnLabel | None, left_out: Folders) -> _Paths:
    wnids, first, without = imagenet_wnids(), "", ""
    wnid_N, column_N, folder_N = array("q"), array("q"), array("q")
    folders: dict[str, int] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        wnid = wnids.get(without_archive_suffix(folder.rpartition("/")[2]), -1)
        if wnid < 0:
            named = {wnids[found] for found in WNID.findall(name) if found in wnids}
            wnid = named.pop() if len(named) == 1 else -1
            without = without or ("" if wnid >= 0 else path)
        wnid_N.append(wnid)
        folder_N.append(folders.setdefault(folder, len(folders)))
        if label_of is not None:
            own = label_of(path)
            column_N.append(-1 if own is None else own)
        first = first or path
    return _Paths(
        wnid_N=np.array(wnid_N, np.int64),
        column_N=np.array(column_N, np.int64),
        folder_N=np.array(folder_N, np.int64),
        folders=list(folders),
        left_out=left_out,
        first=first,
        first_without_wnid=without,
    )


def _labels(index_N: np.ndarray, source: LabelSource, *notes: str) -> ClassLabels:
    return ClassLabels(index_N.astype(np.int64), source, len(np.unique(index_N)), notes)


def _by_wnid(seen: _Paths, classes: int) -> ClassLabels | None:
    is_known = classes == IMAGENET_CLASSES and not seen.first_without_wnid
    return _labels(seen.wnid_N, "wnid") if is_known else None


def _by_column(seen: _Paths, classes: int) -> ClassLabels | None:
    if not len(seen.column_N) or seen.column_N.min() < 0:
        return None
    if (most := int(seen.column_N.max())) >= classes:
        raise DatasetError(
            f"--labels auto: the data set has a label {most:,}, but the model has {classes:,} classes. "
            "Give --labels a file of lines path,index, or take --labels none."
        )
    return _labels(seen.column_N, "column")


def _by_number(seen: _Paths, classes: int) -> ClassLabels | None:
    number = {folder: folder.rpartition("/")[2] for folder in seen.all_folders}
    if not all(NUMBER.fullmatch(name) and int(name) < classes for name in number.values()):
        return None
    indices = [int(number[folder]) for folder in seen.folders]
    return _labels(np.array(indices, np.int64)[seen.folder_N], "numbers")


def _by_folder(seen: _Paths, classes: int) -> ClassLabels | None:
    found = sorted({SPLIT.sub("", folder) for folder in seen.all_folders})
    ordered = sorted(found, key=without_archive_suffix)  # as they are once they are unpacked
    names = [without_archive_suffix(name) for name in ordered]
    has_wnids = classes == IMAGENET_CLASSES and any(map(WNID.fullmatch, names))
    if len(ordered) != classes or has_wnids or any("/" in name for name in ordered):
        return None
    alike = {HASH.sub("", name) for name in names}
    if names != ordered and len(alike) < len(names) and not all(map(WNID.fullmatch, names)):
        return None  # shards, such as train-00.tar, which hold any classes
    place = {name: i for i, name in enumerate(ordered)}
    shown = [f"{name or 'the top folder'} = {i}" for name, i in list(place.items())[:SHOWN]]
    more = ", ..." if len(ordered) > SHOWN else ""
    return _labels(
        np.array([place[SPLIT.sub("", folder)] for folder in seen.folders], np.int64)[seen.folder_N],
        "folders",
        "Labels are the places of the folders in the order of their names, as torchvision's ImageFolder "
        f"counts them: {', '.join(shown)}{more}.",
    )


def _no_rule(seen: _Paths, classes: int) -> DatasetError:
    known = int((seen.wnid_N >= 0).sum())
    path, has = seen.first_without_wnid or seen.first, "no class can be told from the path"
    if classes == IMAGENET_CLASSES and known:
        has = f"no known wnid in the path, as {known:,} other images have"
    elif classes != IMAGENET_CLASSES and known:
        has = f"ImageNet's wnids are for models of 1,000 classes, and this one has {classes:,}"
    number = len(seen.all_folders)
    folders = f"{number:,} folders" if number > 1 else "one folder"
    return DatasetError(
        f"--labels auto: {path}: {has}. Expected for all images a wnid such as n01440764 as the folder "
        f"or in the name, folders 0 to {classes - 1}, or as many folders as classes (got {folders}). "
        "Give --labels a file of lines path,index or path,wnid, or take --labels none."
    )
