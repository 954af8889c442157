"""Open an archive of any kind, by its content, and index it."""

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.reading import OpenFile
from entropy_cli.images.formats import SkippedFiles
from entropy_cli.images.members import (
    Archive,
    ArchiveFile,
    Index,
    Member,
    NoImagesError,
    load_index,
    save_index,
)
from entropy_cli.images.parquet import Parquet, parquet_members
from entropy_cli.images.tar_index import Tar, tar_members
from entropy_cli.images.unpacked import packing_of, unpacked
from entropy_cli.images.zip_index import Zip, zip_members

FIRST_BYTES = 8
POINTER = "a pointer of Git LFS in place of the file. Run `git lfs pull` in its repository"
PACKED = "a {} file, expected a tar, zip or Parquet file. Unpack it into a folder of images"
NO_ARCHIVES = {  # by the first bytes
    b"\x04\x22\x4d\x18": PACKED.format("lz4"),
    b"\x1f\x9d": PACKED.format("compress"),
    b"7z\xbc\xaf\x27\x1c": PACKED.format("7z"),
    b"Rar!": PACKED.format("rar"),
    b"version ": POINTER,
}


class Kind(NamedTuple):
    """A kind of archive."""

    members: "Callable[[OpenFile, array[int]], Iterator[Member]]"
    archive: Callable[[ArchiveFile, np.ndarray], Archive]


TAR, ZIP, PARQUET = (
    Kind(tar_members, Tar.of),
    Kind(zip_members, Zip.of),
    Kind(parquet_members, Parquet.of),
)
KINDS = {b"PK\x03\x04": ZIP, b"PK\x05\x06": ZIP, b"PAR1": PARQUET}  # by the first bytes; else a tar


def index_archive(path: Path, progress: Callable[[int], object], bars: Bars) -> tuple[Archive, Index]:
    """Index an archive, or load its index from the cache if the archive has not changed.

    Args:
        path: of the archive; a compressed tar is unpacked into the cache.
        progress: called with the numbers of images found.
        bars: makes progress bars of unpacking.

    Raises:
        NoImagesError: it has no images.
        DatasetError: the file can't be read, is damaged or no archive, or paths in it lead out of it.
    """
    if not path.is_file():
        problem = "is not an ordinary file" if path.exists() else "no such file"
        raise DatasetError(f"{path}: {problem}. Give --data a folder of images, or archives of one.")
    try:
        file = OpenFile(path)
        start = bytes(file.read(0, min(FIRST_BYTES, file.size)))
        for magic, problem in NO_ARCHIVES.items():
            if start.startswith(magic):
                raise DatasetError(f"{path}: is {problem}.")
        kind = next((kind for magic, kind in KINDS.items() if start.startswith(magic)), TAR)
        if (packing := packing_of(start)) is not None:
            file = OpenFile(unpacked(file, packing, bars))
        archive = ArchiveFile.of(file)
        index = load_index(archive)
        if index is not None:
            progress(index.images)
        else:
            records = array("q")
            index = Index.collect(kind.members(file, records), records, progress)
            save_index(archive, index)
    except NoImagesError as error:
        raise NoImagesError(f"{path}: {error}.") from error
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror or error}.") from error
    if not index.images:
        raise _no_images(path, index)
    return kind.archive(archive, index.record_X), index


def _no_images(path: Path, index: Index) -> NoImagesError:
    skipped = SkippedFiles()
    for member in index.members():
        if member.is_listed:
            skipped.add(member.path.rpartition("/")[2])
    return NoImagesError(str(skipped.error(str(path))))
