"""Decode the bytes of a log to plain lines, without colours and progress bars."""

import codecs
import re
from pathlib import Path

from entropy_cli.core.errors import LogError
from entropy_cli.core.reading import LOG_BYTES, read_stream

STDIN = Path("-")

COLOURS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# A rough pattern of a number; float() has the last word.
NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Inf(?:inity)?)"


def read_text(path: Path) -> str:
    """Read a log as text with line feeds between lines; undecodable bytes are replaced.

    Args:
        path: a file, a pipe, or "-" for standard input; read only once.

    Raises:
        LogError: it can't be read.
    """
    try:
        content = read_stream(path, LOG_BYTES)
    except OSError as error:
        raise LogError(f"{path}: can't be read: {error.strerror}. Give a training log.") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", errors="replace")
    else:
        text = content.decode("utf-8-sig", errors="replace")
    text = COLOURS.sub("", text.replace("\0", ""))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decimals(text: str) -> int:
    """Return the number of digits after the decimal point."""
    return len(text.strip().partition(".")[2])
