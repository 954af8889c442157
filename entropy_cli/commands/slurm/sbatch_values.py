"""Parse the values of slurm's options, and refuse what sbatch would, or what the scripts rely on."""

import math
import os
import re
import shlex
import subprocess
from pathlib import Path

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.reading import CONFIG_BYTES, read_bytes
from entropy_cli.options import BadValue

# Slurm may send the signal a minute early. Saving takes seconds, a batch on a CPU perhaps a minute.
WARNING_S = 120
# A shorter job would be stopped before it made progress, and requeued for ever.
LEAST_MINUTES = 10

TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
UNLIMITED = ("UNLIMITED", "INFINITE", "0", "-1")
GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?(\d{1,4})", re.ASCII)
PLACEHOLDER = re.compile(r"%%|%\d*[A-Za-z]")
NOT_FOR_LOGS = "expected a path of one line without a backslash, so that Slurm writes logs there."
# Options of sbatch that the scripts set or rely on.
FIXED = (
    *("--array", "-a", "--nodes", "-N", "--ntasks", "-n", "--ntasks-per-node", "--output", "-o"),
    *("--dependency", "-d", "--signal", "--requeue", "--no-requeue", "--open-mode", "--parsable"),
    *("--kill-on-invalid-dep", "--wrap"),
)


def parse_line(text: str) -> str:
    """Check that a text has one line."""
    if not text.isprintable():
        raise BadValue(f"{text!r}: expected one line of text.")
    return text


def parse_time(text: str) -> str:
    """Check that a time limit is one of sbatch's, and long enough to save before it."""
    try:
        long_enough = minutes(text) >= LEAST_MINUTES
    except ValueError as error:
        raise BadValue(f"{text}: expected minutes, H:M:S, D-H or D-H:M:S, such as 4:00:00.") from error
    if long_enough:
        return text
    raise BadValue(
        f"{text}: expected {LEAST_MINUTES} minutes or more, because a job stops to save "
        f"{WARNING_S // 60} or more before its limit."
    )


def minutes(text: str) -> float:
    """Parse a time limit in Slurm's notation, in minutes.

    >>> minutes("90"), minutes("1:30:00"), minutes("1-12"), minutes("UNLIMITED")
    (90.0, 90.0, 2160.0, inf)

    Raises:
        ValueError: the text is not a time limit.
    """
    if text.upper() in UNLIMITED:
        return math.inf
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    days, *parts = match.groups()
    first, second, third = (int(part or 0) for part in parts)
    if days is not None or parts[2] is not None:
        return int(days or 0) * 1440 + first * 60 + second + third / 60
    return first + second / 60


def parse_sbatch(text: str) -> str:
    """Check that an option of sbatch is none that the scripts set."""
    if not text.startswith("-") or not text.isprintable():
        raise BadValue(f"{text!r}: expected an option of sbatch, such as --qos=long.")
    name = re.split("[= ]", text)[0] if text.startswith("--") else text[:2]
    # sbatch accepts abbreviated long names.
    if any(fixed.startswith(name) for fixed in FIXED):
        raise BadValue(f"{text}: is set by this command. Leave it out.")
    return text


def parse_gpus(text: str) -> str:
    """Check that a number of GPUs is a number, or a type with one."""
    if GPUS.fullmatch(text):
        return text
    raise BadValue(f"{text}: expected N or TYPE:N, such as 1 or a100:1.")


def gpu_count(text: str) -> int:
    """Return the number in N or TYPE:N."""
    return int(text.rpartition(":")[2])


def parse_launcher(text: str) -> str:
    """Check that a command is one line of words, quoted as in a shell."""
    try:
        words = shlex.split(parse_line(text))
    except ValueError as error:
        raise BadValue(f"{text}: {str(error).lower()}.") from error
    if not words:
        raise BadValue("expected a command, such as srun.")
    return text


def parse_log(text: str) -> str:
    """Return an absolute pattern for sbatch's --output, with placeholders in the file's name only."""
    if not for_logs(Path(text)):
        raise BadValue(f"{text!r}: {NOT_FOR_LOGS}")
    folder, name = os.path.split(text)
    if not name or any(match != "%%" for match in PLACEHOLDER.findall(folder)):
        raise BadValue(
            f"{text}: expected a file, and no %a or %A in its folder, such as logs/%A_%a.out."
        )
    return text if Path(text).is_absolute() else f"{str(Path.cwd()).replace('%', '%%')}/{text}"


def for_logs(path: Path) -> bool:
    """Return whether Slurm can write logs to such a path: at a backslash it stops replacing %a."""
    return str(path.absolute()).isprintable() and "\\" not in str(path.absolute())


def read_prelude(path: Path) -> str:
    """Read the lines that every script runs first.

    Raises:
        EntropyCliError: they can't be read, or bash would not read them as they are meant.
    """
    try:
        text = os.fsdecode(read_bytes(path, CONFIG_BYTES)).replace("\r\n", "\n")
    except OSError as error:
        raise EntropyCliError(f"--prelude {path}: can't be read: {error.strerror}.") from error
    if re.search(r"^#SBATCH", text, re.MULTILINE):
        raise EntropyCliError(
            f"--prelude {path}: #SBATCH has no effect after the first command. Give --sbatch=OPTION."
        )
    done = subprocess.run(
        ["bash", "-n"], input=os.fsencode(text), env={**os.environ, "LC_ALL": "C"}, capture_output=True
    )
    if "\0" in text or done.stderr:
        reason = os.fsdecode(done.stderr).partition("\n")[0].removeprefix("bash: ") or "not text"
        raise EntropyCliError(f"--prelude {path}: not a script for bash: {reason}.")
    return text.rstrip("\n")
