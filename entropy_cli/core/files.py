"""Reading and writing the program's own files: checks before a run, and atomic writes."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from safetensors import SafetensorError

from entropy_cli.core.errors import EntropyCliError, ResultError, StateError

logger = logging.getLogger(__name__)

LEFTOVER = ".part"
WRITER_TIMEOUT_S = 3  # how long to wait until somebody opens a pipe for writing


def write_atomically(path: Path, write: Callable[[Path], object], *, announced: bool = True) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to the path.

    Args:
        path: of the file.
        write: writes to the path that it is given.
        announced: whether the user is told, as of results; not of the program's own files.

    Raises:
        ResultError: the folder can't be written to, or the disk is full; an existing file is kept.
    """
    given, path = path, path.resolve()  # a link stays a link
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(LEFTOVER, _prefix(path), path.parent)
        os.close(descriptor)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultError(f"{path}: can't be written: {reason}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    if announced:
        logger.info("wrote %s", given)


def path_argument(name: str, path: object) -> Path:
    """Return what a Python caller gave as a path; empty text would be the working folder.

    Raises:
        EntropyCliError: it is no path.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise EntropyCliError(f"{name} {str(path)[:60]!r}: expected a path.")
    if not str(path).strip():
        raise EntropyCliError(f"{name} {str(path)!r}: is empty, expected a path.")
    return Path(path)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically.

    Raises:
        ResultError: it can't be written; an existing file is kept.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that a killed `write_atomically` left; call it while nobody writes."""
    path = path.resolve()
    for leftover in path.parent.glob(f"{_prefix(path)}*{LEFTOVER}"):
        leftover.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """Return the prefix of this path's temporary files: short, and unique to its name."""
    return f".entropy-cli-{hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()}-"


def cache_folder() -> Path:
    """Return the program's folder in the user's cache folder.

    Raises:
        StateError: there is no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "entropy-cli"
    except RuntimeError as error:
        raise StateError(
            "there is no home folder to keep the state in. Give --state, or set XDG_CACHE_HOME."
        ) from error


def check_writable(path: Path, option: str) -> None:
    """Check before a run that a file can be written after it.

    Raises:
        ResultError: its folder isn't there or can't be written to, or it is no ordinary file.
    """
    if not path.parent.is_dir():
        raise ResultError(f"{option} {path}: there is no folder {path.parent}. Create it first.")
    if path.exists() and not path.is_file():
        raise ResultError(f"{option} {path}: is a folder or device, expected an ordinary file.")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise ResultError(
            f"{option} {path}: can't write in {path.parent}: {error.strerror}. Choose another place."
        ) from error


def check_files(
    read: Iterable[tuple[str, Path | None]], written: Sequence[tuple[str, Path | None]]
) -> None:
    """Check before a run that its output files can be written and overwrite no other file of the run.

    Args:
        read: options and their input files.
        written: options and their output files.

    Raises:
        ResultError: one can't be written, or would overwrite another.
    """
    for option, path in written:
        if path is not None:
            check_writable(path, option)
    for file in read:
        check_different(file, *written)


def check_different(*files: tuple[str, Path | None]) -> None:
    """Raise ResultError if two options name the same file, which would then be overwritten."""
    seen: dict[Path, str] = {}
    for option, path in files:
        if path is None:
            continue
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise ResultError(f"{option} {path}: is the same file as {other}. Give another.")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
