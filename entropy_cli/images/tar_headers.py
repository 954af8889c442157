"""Headers of tars as Python reads them, in time and memory that grow with their size alone."""

import re
import tarfile
from typing import Any

MOST_BYTES = 2**20  # of an extended header
MOST_GLOBAL = 100  # fields for all members, which are copied for each
RECORD = re.compile(rb"([0-9]{1,9}) [^=]{1,500}=")
LONG_NUMBER = re.compile(rb"[0-9]{100}")  # tarfile would scan it from each of its digits


class Header(tarfile.TarInfo):
    """The header of a member; of a sparse file it is only known that it is one."""

    def _proc_pax(self, archive: Any) -> Any:  # noqa: ANN401 - tarfile's own
        """Check an extended header before tarfile reads it, which trusts the lengths of its records."""
        start = archive.fileobj.tell()
        content = archive.fileobj.read(min(self.size, MOST_BYTES + 1))
        archive.fileobj.seek(start)
        at = 0
        while (record := RECORD.match(content, at)) and at + int(record[1]) >= record.end():
            at += int(record[1])
        is_long = len(content) > MOST_BYTES or len(archive.pax_headers) > MOST_GLOBAL
        if is_long or content[at:].strip(b"\0") or LONG_NUMBER.search(content):
            raise ValueError("an extended header that no program writes")
        return super()._proc_pax(archive)  # type: ignore[misc]

    def _mark_sparse(self, member: Any, *_: object) -> None:  # noqa: ANN401 - tarfile's own
        member.sparse = []

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _mark_sparse
