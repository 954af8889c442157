"""Read a log as text, piece by piece: whole lines, without colours, whatever its encoding."""

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from entropy_cli.core.errors import LogError
from entropy_cli.core.reading import stream_pieces

COLOURS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
LONGEST = 2**24  # characters of a line that are waited for


def read_pieces(path: Path, progress: Callable[[int], object] = lambda _: None) -> Iterator[str]:
    r"""Yield the text of a file, a pipe or "-" in pieces that end with a line feed, except for the last.

    Bad bytes are replaced; the lines of a bar that is redrawn, which end with \r, are lines.

    Args:
        path: of the log.
        progress: called with the number of bytes that were read.

    Raises:
        LogError: it can't be read.
    """
    decoder: codecs.IncrementalDecoder | None = None
    rest = ""
    try:
        for piece in stream_pieces(path):
            progress(len(piece))
            decoder = decoder or _decoder(piece)
            text = rest + decoder.decode(piece)
            cut = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
            if cut == 0 and len(text) > LONGEST:
                cut = len(text)
            rest = text[cut:]
            if cut:
                yield _cleaned(text[:cut])
    except OSError as error:
        raise LogError(f"{path}: can't be read: {error.strerror}. Give a training log.") from error
    if rest:
        yield _cleaned(rest)


def _decoder(piece: bytes) -> codecs.IncrementalDecoder:
    is_utf16 = piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8-sig")(errors="replace")


def _cleaned(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "")
    if "\x1b" in text:
        text = COLOURS.sub("", text)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def count_decimals(number: str) -> int:
    """Return the number of digits after the decimal point."""
    return len(number.strip().partition(".")[2])


def parse_number(cell: object) -> float | None:
    """Return a cell as a number, or None; booleans are no numbers."""
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None
