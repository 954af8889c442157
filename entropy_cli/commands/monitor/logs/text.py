"""A log's bytes as lines: whatever encodings, colours and progress bars went into it."""

import codecs
import errno
import re
import sys
from pathlib import Path

from entropy_cli.core.errors import LogError
from entropy_cli.core.files import read_once

STDIN = Path("-")

COLOURS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# What a number looks like; whether it may be one is left to float().
NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Inf(?:inity)?)"


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def read_text(path: Path) -> str:
    """A log as text, with line feeds between its lines; what can't be decoded is replaced.

    Args:
        path: a file or a pipe, or "-" for standard input; it is read once.

    Raises:
        LogError: it can't be read.
    """
    try:
        content = _standard_input() if path == STDIN else read_once(path)
    except OSError as error:
        raise LogError(f"{path}: can't be read: {error.strerror}. Give a training log.") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", errors="replace")
    else:
        text = content.decode("utf-8-sig", errors="replace")
    text = COLOURS.sub("", text.replace("\0", ""))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decimals(text: str) -> int:
    """Digits after the point."""
    return len(text.strip().partition(".")[2])
