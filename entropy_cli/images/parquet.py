"""Parquet files as the hub stores images: a column of bytes and paths, and one of labels."""

import contextlib
import io
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.reading import PIECE_BYTES, OpenFile, is_out_of_handles
from entropy_cli.images.listing import NO_LABEL
from entropy_cli.images.members import (
    ELSEWHERE,
    PICTURE,
    ArchiveFile,
    Member,
    NoImagesError,
    damaged,
    relative_path,
)

COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")  # of images; else the only one of bytes
LABELS = ("label", "labels", "cls")
BATCH_BYTES = 2**28  # of images that are decoded at once while a file is indexed
GROUP_BYTES = 2**31  # of a row group: images are read with all of theirs
KEPT_BYTES, KEPT_FILES = 2**26, 32  # of images of the last row groups, and open files, in a process
ROWS = 16  # of a row group in one array
INTEGERS = ("INT32", "INT64")  # physical types
FIELDS = 2  # of a row group: its first row, and the bytes of its images


@dataclass(frozen=True)
class Parquet:
    """A Parquet file; an image is found by its row, and read with its row group."""

    file: ArchiveFile
    group_G2: np.ndarray

    @classmethod
    def of(cls, file: ArchiveFile, record_X: np.ndarray) -> "Parquet":
        """Return the Parquet file of a file with the row groups of its index."""
        return cls(file, record_X.reshape(-1, FIELDS))

    def open(self, at: int, size: int) -> BinaryIO:
        """Read an image's row group, unless it is among the last; see `Archive.open`."""
        group = int(np.searchsorted(self.group_G2[:, 0], at, "right")) - 1
        first, size_of_group = map(int, self.group_G2[group])
        if size_of_group > GROUP_BYTES:
            raise DatasetError(
                f"its row group has {size_of_group / 2**30:.1f} GiB, expected at most "
                f"{GROUP_BYTES // 2**30}"
            )
        return io.BytesIO(RECENT.group(self.file, group)[at - first].as_py())


class _Recent:
    """The files and row groups that this process read last, of all files together."""

    def __init__(self) -> None:
        self._process = 0
        self._tables: dict[ArchiveFile, tuple[OpenFile, Any]] = {}
        self._groups: dict[tuple[ArchiveFile, int], Any] = {}

    def group(self, file: ArchiveFile, group: int) -> Any:  # noqa: ANN401 - an array of pyarrow
        """Return the bytes of the images of a row group.

        Raises:
            DatasetError: the file has changed, or the row group is damaged.
            OSError: the file can't be read.
        """
        if self._process != os.getpid():  # a fork must not share the position in a file
            self._process, self._tables, self._groups = os.getpid(), {}, {}
        key = (file, group)
        # The last one used is put last.
        self._groups[key] = self._groups.pop(key) if key in self._groups else self._read(file, group)
        while len(self._groups) > 1 and sum(v.nbytes for v in self._groups.values()) > KEPT_BYTES:
            self._groups.pop(next(iter(self._groups)))
        return self._groups[key]

    def _read(self, file: ArchiveFile, group: int) -> Any:  # noqa: ANN401 - an array of pyarrow
        opened, table = self._tables.pop(file) if file in self._tables else _open(file.reopen())
        while len(self._tables) >= KEPT_FILES:
            self._tables.pop(next(iter(self._tables)))
        self._tables[file] = opened, table
        column = _image_column(table)
        try:
            opened.check_unchanged()
            pyarrow = import_extra("pyarrow", "data", "reading Parquet files")
            # One array of all rows would be enlarged again and again while it is filled.
            rows = table.iter_batches(ROWS, row_groups=[group], columns=[column], use_threads=False)
            return pyarrow.chunked_array([_bytes_of(each, column) for each in rows])
        except Exception as error:  # pyarrow's, among them OSError without a number
            if is_out_of_handles(error):
                raise
            raise DatasetError(f"its row group can't be read: {_reason(error)}") from error


RECENT = _Recent()


def parquet_members(file: OpenFile, records: "array[int]") -> Iterator[Member]:
    """Iterate over the rows of a Parquet file, which are all pictures.

    A row is named by its path; all are named by their numbers where the paths of two are the same.

    Args:
        file: the Parquet file, of which all images are read, for their sizes.
        records: gets the FIELDS of each row group.

    Raises:
        NoImagesError: it has no column of images.
        DatasetError: it is damaged.
        EntropyCliError: pyarrow is missing.
        OSError: it can't be read.
    """
    try:
        _, table = _open(file)
        rows = _Rows(table, _image_column(table), records)
    except (OSError, DatasetError) as error:
        if isinstance(error, DatasetError) or error.errno is not None:
            raise
        raise damaged(str(file.path), f"as a Parquet file: {_reason(error)}") from error
    except Exception as error:
        if not type(error).__module__.startswith("pyarrow"):
            raise
        raise damaged(str(file.path), f"as a Parquet file: {_reason(error)}") from error
    for row, (size, label) in enumerate(zip(rows.sizes, rows.labels, strict=True)):
        name = str(row) if rows.names is None else rows.names[row]
        yield Member(name, PICTURE, row if size >= 0 else ELSEWHERE, max(0, size), "", label)


class _Rows:
    """The rows of a file, as its metadata describe them.

    Attributes:
        names: the path of each row, or its number where that is no path below the file; None if two are
            the same.
        labels: NO_LABEL where there is none.
        sizes: the bytes of each image, -1 where there are none.
    """

    def __init__(self, table: Any, column: str, records: "array[int]") -> None:  # noqa: ANN401
        self.names: list[str] | None = []
        self.labels, self.sizes = array("q"), array("q")
        self._seen, leaves = set[str](), _leaf_types(table)
        self._path = column.removesuffix("bytes") + "path" if column.endswith(".bytes") else ""
        self._label = next((name for name in LABELS if leaves.get(name) in INTEGERS), "")
        columns = [column, *(name for name in (self._path, self._label) if name in leaves)]
        for group in range(table.num_row_groups):
            metadata = table.metadata.row_group(group)
            chunks = map(metadata.column, range(metadata.num_columns))
            largest = sum(
                chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns
            )
            # Where all rows share one image, it is stored once: none has more bytes than that.
            batch = int(np.clip(BATCH_BYTES // max(1, largest), 1, 1024))
            first = len(self.sizes)
            for rows in table.iter_batches(
                batch, row_groups=[group], columns=columns, use_threads=False
            ):
                self._add(rows, column)
            records.extend((first, sum(size for size in self.sizes[first:] if size > 0)))

    def _add(self, rows: Any, column: str) -> None:  # noqa: ANN401 - a RecordBatch
        compute = import_extra("pyarrow.compute", "data", "reading Parquet files")
        top, content = rows.column(column.partition(".")[0]), _bytes_of(rows, column)
        if str(content.type) == "binary_view":
            content = content.cast("large_binary")
        if hasattr(content, "dictionary"):  # as some writers ask for
            lengths = compute.binary_length(content.dictionary).take(content.indices)
        else:
            lengths = compute.binary_length(content)
        self.sizes.extend(compute.fill_null(lengths, -1).to_pylist())
        labels = rows.column(self._label).to_pylist() if self._label else [None] * len(rows)
        self.labels.extend(_label(label) for label in labels)
        paths = (
            top.field("path").to_pylist()
            if self._path and "path" in _fields(top)
            else [None] * len(rows)
        )
        for path in paths:
            if self.names is None:
                return
            name = _usable(path) or str(len(self.names))
            self.names.append(name)
            if name in self._seen:
                self.names = None
                return
            self._seen.add(name)


def _open(file: OpenFile) -> tuple[OpenFile, Any]:
    """Return a file with its ParquetFile, which reads a large row group piece by piece."""
    parquet = import_extra("pyarrow.parquet", "data", "reading Parquet files")
    table = parquet.ParquetFile(_Unbuffered(file), pre_buffer=False)
    metadata = table.metadata
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    if max((group.total_byte_size for group in groups), default=0) > BATCH_BYTES:
        table = parquet.ParquetFile(
            _Unbuffered(file), metadata=metadata, pre_buffer=False, buffer_size=PIECE_BYTES
        )
    return file, table


class _Unbuffered(io.RawIOBase):
    """A file as pyarrow reads it, a column of a row group at once; buffering trebles the time."""

    def __init__(self, file: OpenFile) -> None:
        self._open, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._open.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> Any:  # noqa: ANN401 - bytes that are not copied
        begin, end = min(self._at, self._open.size), self._open.size
        self._at = end if size is None or size < 0 else min(end, begin + size)
        return self._open.read(begin, self._at)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _image_column(table: Any) -> str:  # noqa: ANN401 - a ParquetFile
    """Return the path of the column of images: bytes, or `bytes` in a struct."""
    binary = [path for path, kind in _leaf_types(table).items() if kind == "BYTE_ARRAY"]
    columns = {path.removesuffix(".bytes"): path for path in binary}
    columns = {name: path for name, path in columns.items() if "." not in name}
    structs = [path for path in columns.values() if path.endswith(".bytes")]
    named = [columns[name] for name in COLUMNS if name in columns]
    for found in (named[:1], structs, list(columns.values())):
        if len(found) == 1:
            return found[0]
    got = ", ".join(f"{field.name} ({field.type})" for field in table.schema_arrow)
    raise NoImagesError(
        f"got the columns {got:.200}, expected `{COLUMNS[0]}` with bytes and path. Convert it"
    )


def _leaf_types(table: Any) -> dict[str, str]:  # noqa: ANN401 - a ParquetFile
    """Return the physical type of each column by its path, TEXT of text."""
    leaves = map(table.schema.column, range(len(table.schema)))
    return {
        leaf.path: "TEXT"
        if leaf.logical_type.type == "STRING" or leaf.converted_type == "UTF8"
        else leaf.physical_type
        for leaf in leaves
    }


def _fields(values: Any) -> list[str]:  # noqa: ANN401 - an array of structs
    return [values.type.field(i).name for i in range(values.type.num_fields)]


def _bytes_of(rows: Any, column: str) -> Any:  # noqa: ANN401 - a RecordBatch, and an array of it
    top = rows.column(column.partition(".")[0])
    return top.field("bytes") if column.endswith(".bytes") else top


def _label(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else NO_LABEL


def _usable(path: object) -> str:
    """Return the path as that of a file below this one, "" if it is none."""
    if not isinstance(path, str):
        return ""
    with contextlib.suppress(DatasetError, UnicodeError):
        relative = relative_path("", path)
        os.fsencode(relative)
        return "" if "/." in f"/{relative}" else relative
    return ""
