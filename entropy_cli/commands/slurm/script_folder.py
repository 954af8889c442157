"""The folder that holds the scripts: those of other settings are kept unless told otherwise."""

import contextlib
import os
from operator import methodcaller
from pathlib import Path

from entropy_cli.core.errors import ResultError
from entropy_cli.core.files import write_atomically
from entropy_cli.core.reading import CONFIG_BYTES, read_bytes

SCRIPTS = ("pilot.sbatch", "estimate.sbatch", "merge.sbatch", "submit.sh")


def write_scripts(folder: Path, scripts: dict[str, str], log: str | None, *, overwrite: bool) -> None:
    """Write the scripts, and create the folder of the logs, which Slurm would not.

    Raises:
        ResultError: a folder can't be created or written to, or holds other scripts.
    """
    new = {name: os.fsencode(text) for name, text in scripts.items()}
    old = [name for name in SCRIPTS if os.path.lexists(folder / name)]
    differ = [name for name in old if not _holds(folder / name, new.get(name))]
    if differ and not overwrite:
        raise ResultError(
            f"--output {folder}: holds scripts of other settings ({', '.join(differ)}). Give another "
            "folder, or --overwrite to replace them."
        )
    for made in (folder, *([] if log is None else [Path(log.replace("%%", "%")).parent])):
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultError(
                f"--{'output' if made == folder else 'log'} {made}: can't be created: "
                f"{error.strerror}. Give another folder."
            ) from error
    for name in set(differ).difference(new):
        (folder / name).unlink()
    for name, content in new.items():
        write_atomically(folder / name, methodcaller("write_bytes", content), announced=False)


def _holds(path: Path, content: bytes | None) -> bool:
    """Return whether a file has this content."""
    with contextlib.suppress(OSError):
        return read_bytes(path, 2 * CONFIG_BYTES) == content
    return False
