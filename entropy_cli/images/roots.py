"""The folder whose images are read: that of a split, on a disk or in archives."""

import fnmatch
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.core.progress_bars import Bars, no_bars
from entropy_cli.core.reading import read_bytes
from entropy_cli.images.archive_tree import open_archives
from entropy_cli.images.folders import DiskFolder, Folder, walk
from entropy_cli.images.formats import MAX_NAMED, PARQUET, is_archive, is_image
from entropy_cli.images.listing import ImageFile
from entropy_cli.images.members import NoImagesError, StoredImage
from entropy_cli.images.patterns import expand_braces, expand_pattern, is_archive_pattern

Progress = Callable[[int], object]

MOST_DEEP = 64  # folders that hold nothing but one another
# Images beside archives that have so many times their bytes: pictures of a data set's card.
MOST_BESIDE, TIMES_BESIDE = 16, 10
BESIDE = re.compile(r"((assets?|cards?|docs?|fig(ure)?s?|media|static)/.*)?[^/]+", re.IGNORECASE)
POINTER = re.compile(rb"version https://git-lfs\S+\noid \S+\nsize ([0-9]{1,15})\n")
POINTER_BYTES = 1024  # as Git LFS has it

# How names of archives say which split they hold: the hub's validation-00000-of-00014.parquet.
SPLITS = {
    split: re.compile(rf"(?<![a-z])({words})(?![a-z])", re.IGNORECASE)
    for split, words in (("val", "val|valid|validation"), ("train", "train|training"), ("test", "test"))
}


def silent(_: int) -> None:
    """Report no progress."""


def find_root(data: Path, split: str, progress: Progress, bars: Bars) -> tuple[Folder, str, Progress]:
    """Find the folder of a split.

    A folder of archives without images of its own, or with a few small ones, stands for them, each a
    subfolder of its name; one archive stands for itself. Splits are folders, or else archives named by
    them.

    Returns:
        The folder; the split's name; and what still has to be told of progress, because images in
        archives are counted while those are indexed.

    Raises:
        DatasetError: there is no such folder, archive or split.
    """
    name = str(data)
    if is_archive_pattern(data):
        paths = expand_pattern(name)
        top = open_archives(name, _united(paths), progress, bars)
        return *_find_split(top, name, split), silent
    if not data.is_dir():
        raise DatasetError(
            f"{data}: no such folder. Give --data a folder of images, or archives of one."
        )
    disk = DiskFolder(data)
    found = _subfolder_of_split(disk, split)
    root = disk if found is None else DiskFolder(data / found)
    archives, beside = _archives_below(root)
    named = "" if found else _named_split(archives, split)
    chosen = [path for path in archives if not named or named in _splits(path)]
    folders = [("" if len(archives) == 1 else path, root.path / path) for path in chosen]
    archive: Folder | None = None
    try:
        archive = open_archives(root.name, folders, progress, bars, beside) if folders else None
    except NoImagesError:
        if not beside:
            raise
    if archive is None:
        root = _only_archive(root)
        return (root, found, progress) if found else (*_find_split(root, name, split), progress)
    if found or named:
        return archive, found or named, silent
    return *_find_split(archive, name, split), silent


def reopen(data: Path) -> Folder | None:
    """Return all of what an earlier run found images in, None if it can't be read any more."""
    try:
        return find_root(data, "all", silent, no_bars)[0]
    except EntropyCliError:
        return None


def find_image(root: Folder, split: str, path: str) -> Path | StoredImage | None:
    """Return where an image of an earlier run is, None if it is not there any more.

    Args:
        root: see `reopen`.
        split: of the image set of the run.
        path: relative, as that names it. It may come from a file and is not followed out of the root.
    """
    *folders, name = path.split("/")
    if {"", ".."} & {*folders, name} or "\0" in path:
        return None
    for parts in (folders, [split, *folders]):  # splits in an archive are folders of it
        folder: Folder | None = root
        for part in parts:
            folder = None if folder is None else folder.subfolder(part)
        if folder is not None and (file := folder.image(name, name)).size:
            return folder.source.locate(file)
    return None


def files_to_fetch(sizes: Mapping[str, int], path: str) -> list[str]:
    """Choose the images and archives elsewhere: of a file, a pattern, or all below a folder.

    Args:
        sizes: the bytes of all files there by path, with / between folders.
        path: what was asked for, "" for the whole.
    """
    if path in sizes:
        return [path]
    names = [name for name in sorted(sizes) if not name.startswith(".") and "/." not in name]
    usable = [name for name in names if is_archive(name) or is_image(name)]
    matching = [name for word in expand_braces(path) for name in fnmatch.filter(usable, word)]
    return matching or [name for name in usable if not path or name.startswith(f"{path}/")]


def _united(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return archives of a pattern as parts of one folder; rows of Parquet files need those of files."""
    if len(paths) == 1 or not any(path.name.lower().endswith(PARQUET) for path in paths):
        return [("", path) for path in paths]
    given = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - links stay links
    common = os.path.commonpath(list(map(os.path.dirname, given)))
    return [(os.path.relpath(each, common), path) for each, path in zip(given, paths, strict=True)]


def _find_split(top: Folder, name: str, split: str) -> tuple[Folder, str]:
    """Return the folder of a split, and the split's name."""
    if split == "all":
        return top, "all"
    if (found := _subfolder_of_split(top, split)) and (folder := top.subfolder(found)):
        return folder, found
    if split == "auto":
        return top, "folder"
    raise DatasetError(f"{name}: has no {split}/ folder. Give another --split or --data.")


def _subfolder_of_split(top: Folder, split: str) -> str | None:
    """Return the name of the subfolder to take, None if there is none, or if all are asked for."""
    wanted = {"auto": ("val", "train"), "all": ()}.get(split, (split,))
    return next((name for name in wanted if top.subfolder(name) is not None), None)


def _archives_below(root: DiskFolder) -> tuple[list[str], list[str]]:
    """Return the relative paths of the archives at any depth, none if images are what there is.

    The second list is a note on the few images beside the archives, empty if there are none.

    Raises:
        DatasetError: few images are beside archives, and not where the pictures of a description are.
    """
    files: tuple[list[ImageFile], list[ImageFile]] = ([], [])
    for folder, name, path in walk(root):
        is_picture = folder.is_image(name)
        if is_picture or is_archive(name):
            files[is_picture].append(folder.image(name, path))
        if len(files[True]) > MOST_BESIDE:
            return [], []
    archives, images = (sorted(part) for part in files)
    size, others = sum(_size(root, file) for file in archives), sum(file.size for file in images)
    if not archives or (images and size < TIMES_BESIDE * others):
        return [], []
    names = ", ".join(file.path for file in images[:MAX_NAMED]) + ", ..." * (len(images) > MAX_NAMED)
    if not all(BESIDE.fullmatch(file.path) for file in images):
        raise DatasetError(
            f"{root.source.name}: {len(images)} images ({names}) beside archives "
            f"({archives[0].path}, ...), expected one or the other. Give --data the folder of the "
            "images, or the archives alone."
        )
    note = f"{root.source.name}: images beside the archives are left aside: {len(images)} ({names})"
    return [file.path for file in archives], [note] if images else []


def _size(root: DiskFolder, file: ImageFile) -> int:
    """Return the bytes of an archive; of a pointer of Git LFS, those of the archive it stands for."""
    if not 0 < file.size <= POINTER_BYTES:
        return file.size
    try:
        match = POINTER.match(read_bytes(root.path / file.path, POINTER_BYTES))
    except OSError:
        return file.size
    return int(match[1]) if match else file.size


def _only_archive(root: DiskFolder) -> DiskFolder:
    """Return the folder that an archive was unpacked into under its name, if nothing else is below.

    Images have the same names there as in the archive.
    """
    folder = root
    for _ in range(MOST_DEEP):
        entries = [(name, sub) for name, sub in folder.entries() if not name.startswith(".")]
        folders = [(name, sub) for name, sub in entries if sub is not None]
        if len(folders) != 1 or any(folder.is_image(name) for name, sub in entries if sub is None):
            break
        name, folder = folders[0]
        if is_archive(name):
            return folder
    return root


def _named_split(paths: Sequence[str], split: str) -> str:
    """Return the split whose archives to take, "" for all of them.

    Without a choice that is the validation part, if there are others too; else the training part, if
    all the others tell that they are another: a class may be called `bullet_train`.
    """
    held = [_splits(path) for path in paths]
    if split == "auto":
        parts = ("val", "train") if all(held) else ("val",)
        return next((part for part in parts if 0 < sum(part in h for h in held) < len(held)), "")
    return split if any(split in each for each in held) else ""


def _splits(path: str) -> set[str]:
    """Return the splits that an archive's name tells of, else the nearest folder's that tells of any."""
    parts = reversed(PurePosixPath(path).parts)
    told = ({split for split, words in SPLITS.items() if words.search(part)} for part in parts)
    return next(filter(None, told), set())
