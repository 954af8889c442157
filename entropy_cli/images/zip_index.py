"""Zips: their central directory, and records that are read alone and compared with their CRCs."""

import io
import stat
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import OpenFile
from entropy_cli.images.formats import is_image
from entropy_cli.images.members import (
    BROKEN_LINK,
    ENCRYPTED,
    FILE,
    FOLDER,
    METHOD,
    SYMLINK,
    ArchiveFile,
    Member,
    damaged,
    relative_path,
)

LOCAL_HEADER = 30  # bytes of a record's own header, before its name
ENCRYPTED_FLAG, UTF8_FLAG = 0x1, 0x800
MS_DOS, UNIX = 0, 3  # systems that zips are made on
LINK_BYTES = 4096
MOST_PACKED = 2**16  # bytes of a record above twice its size
FIELDS = 4  # of a record: place of its header, bytes in the zip, CRC and method


@dataclass(frozen=True)
class Zip:
    """A zip; an image is found by the number of its record."""

    file: ArchiveFile
    record_N4: np.ndarray

    @classmethod
    def of(cls, file: ArchiveFile, record_X: np.ndarray) -> "Zip":
        """Return the zip of a file with the records of its index."""
        return cls(file, record_X.reshape(-1, FIELDS))

    def open(self, at: int, size: int) -> BinaryIO:
        """Unpack an image in memory; see `Archive.open`."""
        header, packed, crc, method = map(int, self.record_N4[at])
        return io.BytesIO(_unpack(self.file.reopen(), (header, packed, crc, method), size))


def zip_members(file: OpenFile, records: "array[int]") -> Iterator[Member]:
    """Iterate over the members of a zip.

    Args:
        file: the zip.
        records: gets the FIELDS of each record.

    Raises:
        DatasetError: it is damaged, its records overlap, an image is in it twice, or paths in it lead
            out of it.
        OSError: it can't be read.
    """
    name, seen = str(file.path), set[str]()
    try:
        infos = zipfile.ZipFile(file.reader()).infolist()
    except OSError:
        raise
    except Exception as error:  # a damaged directory raises anything
        raise damaged(name, error) from error
    if sum(info.compress_size for info in infos) > file.size:
        raise damaged(name, "its records overlap, or it is cut off")
    for number, info in enumerate(infos):
        fields = (info.header_offset, info.compress_size, info.CRC, info.compress_type)
        records.extend(fields)
        path = relative_path(name, _name(info))
        if not path:
            continue
        if is_image(path) and path in seen:
            raise DatasetError(f"{name}: holds {path} twice. Create it again.")
        seen.add(path)
        try:
            yield _member(file, info, path, number, fields)
        except DatasetError as error:  # of a link
            raise damaged(f"{name}, {path} in it", error) from error


def _name(info: zipfile.ZipInfo) -> str:
    """Return a record's name, with / between folders, as it was meant."""
    text = info.filename
    if not info.flag_bits & UTF8_FLAG:  # UTF-8 is usual all the same; zipfile takes it for MS-DOS's own
        try:
            text = text.encode("cp437").decode("utf-8")
        except UnicodeError:
            text = info.filename
    return text.replace("\\", "/") if info.create_system == MS_DOS else text


def _member(
    file: OpenFile, info: zipfile.ZipInfo, path: str, number: int, fields: tuple[int, int, int, int]
) -> Member:
    if info.is_dir() or info.filename.endswith("\\"):
        return Member(path, FOLDER, BROKEN_LINK, 0)
    if info.flag_bits & ENCRYPTED_FLAG:
        return Member(path, FILE, ENCRYPTED, info.file_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Member(path, FILE, METHOD, info.file_size)
    if info.create_system == UNIX and stat.S_ISLNK(info.external_attr >> 16):
        target = _unpack(file, fields, min(info.file_size, LINK_BYTES))
        link = target.decode("utf-8", "surrogateescape").partition("\0")[0]
        return Member(path, SYMLINK, BROKEN_LINK, 0, link)
    return Member(path, FILE, number, info.file_size)


def _unpack(file: OpenFile, fields: tuple[int, int, int, int], size: int) -> bytes | bytearray:
    """Read a record of this size, unpacked.

    Raises:
        DatasetError: it is cut off, or differs from its size or checksum.
        OSError: it can't be read.
    """
    header, packed, crc, method = fields
    # Its bytes begin after its own header, whose length is not the directory's.
    head = file.read(header, min(header + LOCAL_HEADER, file.size))
    lengths = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))  # name, extra
    start = header + LOCAL_HEADER + sum(lengths)
    if head[:4] != b"PK\x03\x04" or start + packed > file.size or packed > MOST_PACKED + 2 * size:
        raise DatasetError("damaged in its zip: its record is not where the directory says")
    content: bytes | bytearray = file.read(start, start + packed)
    if method == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except zlib.error as error:
            raise DatasetError(f"damaged in its zip: {error}") from error
    if len(content) != size or zlib.crc32(content) != crc:
        raise DatasetError("damaged in its zip: its bytes differ from their size or checksum")
    return content
