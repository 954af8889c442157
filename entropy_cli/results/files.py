"""Writing a file whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from entropy_cli.errors import ResultError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the same folder, then put it in the file's place.

    Raises:
        ResultError: the folder can't be written to, or the disk is full; what was there stays.
    """
    temporary = None
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(number)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise ResultError(f"{path}: can't be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path, option: str) -> None:
    """Find out before the work whether a file can be written after it.

    Raises:
        ResultError: its folder isn't there or can't be written to, or it is itself a folder.
    """
    if not path.parent.is_dir():
        raise ResultError(f"{option} {path}: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise ResultError(f"{option} {path}: is a folder, expected a file name.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ResultError(
            f"{option} {path}: can't write in {path.parent}: {error.strerror}. Choose another place."
        ) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
