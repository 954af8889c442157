"""Records of a zip file that is open for reading, checked against their CRCs."""

import zipfile
import zlib

from entropy_cli.core.reading import OpenFile
from entropy_cli.tokenizers.checkpoints.stored import UnusableError

LOCAL_HEADER = 30  # bytes of a record's own header, before its name
MOST_UNPACKED = 100 * 2**20  # bytes by which compressed records may be larger than their file


class ZipRecords:
    """The records of a zip file, by name in `infos`; `archive` is Python's own reader of it."""

    def __init__(self, file: OpenFile) -> None:
        self._file, self.archive = file, zipfile.ZipFile(file.reader())
        self.infos = {info.filename: info for info in self.archive.infolist()}
        infos = self.infos.values()
        if sum(info.compress_size for info in infos) > file.size:
            raise ValueError("its records overlap")  # each may be read once
        # A record that is compressed is read as a whole.
        packed = [info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED]
        if sum(packed) > file.size + MOST_UNPACKED:
            raise UnusableError(
                f"its compressed records take {sum(packed) / 1e6:,.0f} MB of memory, expected at most "
                f"{MOST_UNPACKED / 2**20:.0f} MB more than the file. Save it without compression."
            )

    def start(self, name: str) -> int:
        """Return where a record's bytes begin: after its local header, which is not the directory's."""
        info = self.infos[name]
        head = self._file.read(info.header_offset, info.header_offset + LOCAL_HEADER)
        lengths = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))  # name, extra
        start = info.header_offset + LOCAL_HEADER + sum(lengths)
        if head[:4] != b"PK\x03\x04" or start + info.compress_size > self._file.size:
            raise ValueError(f"record {name} is too short")
        return start

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytearray:
        """Read bytes of a record, uncompressed; raise ValueError if it is damaged."""
        info = self.infos[name]
        end = info.file_size if end is None else end
        start = self.start(name)
        if info.compress_type == zipfile.ZIP_STORED:
            if end > info.compress_size:
                raise ValueError(f"record {name} is too short")
            return self._file.read(start + begin, start + end)
        if info.compress_type != zipfile.ZIP_DEFLATED:
            raise ValueError(f"record {name} is compressed by method {info.compress_type}")
        unpack, content = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
        for packed in self._file.pieces(start, start + info.compress_size):
            content += unpack.decompress(packed, info.file_size + 1 - len(content))
            if len(content) > info.file_size:
                break
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise damaged(name)
        return content if end - begin == len(content) else content[begin:end]

    def verify(self, name: str) -> None:
        """Raise ValueError if a record that is not compressed differs from its CRC."""
        info = self.infos[name]
        if info.compress_type != zipfile.ZIP_STORED:
            return  # compared whenever it is read
        start, crc = self.start(name), 0
        for piece in self._file.pieces(start, start + info.compress_size):
            crc = zlib.crc32(piece, crc)
        if crc != info.CRC:
            raise damaged(name)


class RunningCrcs:
    """Compares the CRCs of all records that are not compressed, as a file's bytes go by in order."""

    def __init__(self, file: OpenFile) -> None:
        records = ZipRecords(file)
        stored = [
            (records.start(name), info)
            for name, info in records.infos.items()
            if info.compress_type == zipfile.ZIP_STORED and info.file_size
        ]
        self._waiting = sorted(stored, key=lambda record: -record[0])
        self._at, self._crc = 0, 0

    def update(self, piece: bytearray) -> None:
        """Take the next bytes of the file; raise ValueError if a record that ends there is damaged."""
        begin, self._at = self._at, self._at + len(piece)
        while self._waiting and self._waiting[-1][0] < self._at:
            start, info = self._waiting[-1]
            stop = start + info.compress_size
            self._crc = zlib.crc32(memoryview(piece)[max(0, start - begin) : stop - begin], self._crc)
            if stop > self._at:
                return
            if self._crc != info.CRC:
                raise damaged(info.filename)
            self._waiting.pop()
            self._crc = 0


def damaged(name: str) -> ValueError:
    """Say that a record is not as it was written."""
    return ValueError(f"record {name} is damaged: its bytes differ from their checksum")
