"""Reading and writing the program's own files: checks before a run, and atomic writes."""

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from safetensors import SafetensorError

from entropy_cli.core.errors import EntropyCliError, ResultError, StateError
from entropy_cli.core.reading import OpenFile
from entropy_cli.core.signals import TEMPORARY

logger = logging.getLogger(__name__)

LEFTOVER = ".part"
SMALLEST = 2**16  # bytes that must fit on the disk for a run to begin
ENDS = 2**16  # bytes at the ends of a file in which to look for a mark
OWN_JSON = re.compile(rb'\s*\{\s*"schema"\s*:\s*"entropy-cli/')
PER_IMAGE = ("path", "label", "nats")  # columns of the losses of images
# In figures, pages, states and text; in tables.
OWN_MARKS = (b"entropy-cli", b",plug_in,se,", ",".join(PER_IMAGE).encode())


def write_atomically(path: Path, write: Callable[[Path], object], *, announced: bool = True) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to the path.

    Args:
        path: of the file.
        write: writes to the path that it is given.
        announced: whether the user is told, as of results; not of the program's own files.

    Raises:
        ResultError: the folder can't be written to, or the disk is full; an existing file is kept.
    """
    given, path = path, _target(path)  # a link stays a link
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(LEFTOVER, _prefix(path), path.parent)
        temporary = Path(name)
        TEMPORARY.add(name)
        os.close(descriptor)
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
            TEMPORARY.discard(str(temporary))
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
    """Write text as UTF-8, atomically; bytes of a file name that are no text become question marks.

    Raises:
        ResultError: it can't be written; an existing file is kept.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8", errors="replace"))


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that a killed `write_atomically` left; call it while nobody writes."""
    path = _target(path)
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


def create_in_cache(folder: Path) -> None:
    """Create a folder in the program's cache, if it is not there.

    Raises:
        StateError: it can't be created, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "no permission"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise StateError(
            f"{folder}: can't be written to: {reason}. Set XDG_CACHE_HOME to a folder for caches."
        )


def check_writable(path: Path, option: str) -> None:
    """Check before a run that a file can be written after it.

    Raises:
        ResultError: its folder isn't there or can't be written to, its name is too long, the disk is
            full, or it is no ordinary file.
    """
    if not path.parent.is_dir():
        raise ResultError(f"{option} {path}: there is no folder {path.parent}. Create it first.")
    try:
        if path.exists() and not path.is_file():
            raise ResultError(f"{option} {path}: is a folder or device, expected an ordinary file.")
        with tempfile.TemporaryFile(dir=_target(path).parent) as file:
            file.write(bytes(SMALLEST))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResultError(
            f"{option} {path}: can't write in {path.parent}: {error.strerror}. Choose another place."
        ) from error


def check_files(
    read: Iterable[tuple[str, Path | None]],
    written: Sequence[tuple[str, Path | None]],
    *,
    overwrite: bool = False,
) -> None:
    """Check before a run that its output files can be written and replace nothing of somebody else's.

    Args:
        read: options and their input files.
        written: options and their output files.
        overwrite: whether files that this program did not write may be replaced.

    Raises:
        ResultError: one can't be written, or would replace another file of the run, or a foreign one.
    """
    for option, path in written:
        if path is not None:
            check_writable(path, option)
    check_different(*written)
    for file in read:
        check_different(file, *written)
    for option, path in written:
        if path is not None and not overwrite and path.exists() and not _is_own(path):
            raise ResultError(
                f"{option} {path}: exists and is no output of entropy-cli. Give another name, or "
                "--overwrite to replace it."
            )


def check_different(*files: tuple[str, Path | None]) -> None:
    """Raise ResultError if two options name the same file, which would then be overwritten.

    Links are followed, and hard links to a file are the same file.
    """
    seen: dict[Hashable, str] = {}
    for option, path in files:
        if path is None:
            continue
        try:
            status = _target(path).stat()
            identity: Hashable = status.st_dev, status.st_ino
        except OSError:  # not there yet
            identity = _target(path)
        other = seen.setdefault(identity, option)
        if other != option:
            raise ResultError(f"{option} {path}: is the same file as {other}. Give another.")


def _is_own(path: Path) -> bool:
    """Return whether a file is empty, or bears a mark of this program at one of its ends."""
    try:
        file = OpenFile(path)
        ends = file.read(0, min(ENDS, file.size)) + file.read(max(0, file.size - ENDS))
    except OSError:
        return False
    if path.suffix.lower() == ".json":
        return not file.size or OWN_JSON.match(ends) is not None
    return not file.size or any(mark in ends for mark in OWN_MARKS)


def _target(path: Path) -> Path:
    """Return the path that a link leads to; unlike Path.resolve also for one that leads to itself."""
    return Path(os.path.realpath(path))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
