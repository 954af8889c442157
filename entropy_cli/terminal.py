"""What commands write to: stdout for the result, stderr for the rest, as much as the user wants."""

import contextlib
import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from entropy_cli.core.escaping import escape_terminal
from entropy_cli.core.progress_bars import LINE_EVERY_S, UNITS, Bar, LineBar, SilentBar, stage

logger = logging.getLogger(__name__)


@dataclass
class _Verbosity:
    """How much goes to stderr, as --quiet and --verbose chose for this process."""

    level: int = logging.INFO


VERBOSITY = _Verbosity()
BOLD = re.compile("(\x1b\\[[01]m)")  # begins and ends

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing on stderr but errors.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show each stage with its seconds on stderr.")
]


def with_verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that also takes --quiet and --verbose."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, **kwargs: Any) -> Any:  # noqa: ANN401
        VERBOSITY.level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
        logging.getLogger("entropy_cli").setLevel(VERBOSITY.level)
        return command(*args, **kwargs)

    own = inspect.signature(command).parameters.values()
    added = {"quiet": Quiet, "verbose": Verbose}.items()
    return with_parameters(run, [*own, *(option(*one, default=False) for one in added)])


def option(name: str, kind: Any, *, default: object) -> inspect.Parameter:  # noqa: ANN401 - a type
    """Return the parameter of an option, to add to a command's."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def with_parameters(
    command: Callable[..., Any], parameters: Sequence[inspect.Parameter]
) -> Callable[..., Any]:
    """Give a command parameters, all by keyword, in place of those that its code shows."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    changed: Any = command
    changed.__signature__ = inspect.Signature([one.replace(kind=keyword) for one in parameters])
    return command


def discard(stream: Any) -> None:  # noqa: ANN401 - a text stream, or None where the caller closed it
    """Discard what a stream still holds, or Python's own flush at the exit would fail again."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escape_stdout(text: str) -> str:
    """Return a text for stdout; where that is a terminal, bold remains, which heads of tables are in."""
    parts = BOLD.split(text) if sys.stdout is not None and sys.stdout.isatty() else [text]
    parts[::2] = map(escape_terminal, parts[::2])
    return "".join(parts)


def print_result(text: str, *, is_escaped: bool = False) -> None:
    """Write a result to stdout, to the last byte, with control characters shown as escapes.

    Args:
        text: the result.
        is_escaped: whether all control characters that it has are the program's own.

    Raises:
        ResultError: stdout can't be written to. A reader who left, like head, is no error.
    """
    from entropy_cli.core.errors import ResultError

    if sys.stdout is None:
        raise ResultError("stdout is closed. The same command shows the result again.")
    try:
        sys.stdout.write((text if is_escaped else escape_stdout(text)) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except (OSError, AttributeError, ValueError) as error:
        discard(sys.stdout)
        raise ResultError(
            f"stdout can't be written to ({error}). The same command shows the result again."
        ) from error


def deliver(text: str, *writes: Callable[[], object], is_escaped: bool = False) -> None:
    """Write the files of a result and print it: if one fails, the rest is done nevertheless.

    Raises:
        EntropyCliError: the first failure, with how to have the file written again.
    """
    from entropy_cli.core.errors import EntropyCliError, ResultError

    failures: list[EntropyCliError] = []
    for write in writes:
        try:
            write()
        except EntropyCliError as error:
            failures.append(ResultError(f"{error} The same command writes it again."))
    try:
        print_result(text, is_escaped=is_escaped)
    except EntropyCliError as error:
        failures.append(error)
    for failure in failures[:1]:
        raise failure


class _StderrIfThere:
    """A stderr whose reader may leave: that is no reason to stop the work."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever stderr has
        return getattr(sys.stderr, name)

    def write(self, text: str) -> None:
        """Write, if stderr can still be written to."""
        try:
            sys.stderr.write(text)
        except OSError:
            discard(sys.stderr)

    def flush(self) -> None:
        """Flush, if stderr can still be written to."""
        try:
            sys.stderr.flush()
        except OSError:
            discard(sys.stderr)


STDERR: Any = _StderrIfThere()


@contextlib.contextmanager
def tqdm_bar(desc: str, total: int | None, unit: str, initial: int = 0) -> Iterator[Bar]:
    """Show a progress bar on stderr, or without a terminal a line every 30 seconds."""
    with stage(desc or f"reading {UNITS.get(unit, unit)}"), _open_bar(desc, total, unit, initial) as bar:
        yield bar


def _open_bar(
    desc: str, total: int | None, unit: str, initial: int
) -> contextlib.AbstractContextManager[Bar]:
    if VERBOSITY.level > logging.INFO:
        return contextlib.nullcontext(SilentBar())
    if not sys.stderr.isatty():
        if not desc and unit != "B":
            logger.info("a line every %.0f s, with the speed in %s/s", LINE_EVERY_S, unit)
        return contextlib.closing(LineBar(desc, total, unit, initial, STDERR.write))
    from tqdm import tqdm

    lasts = not desc and unit in ("img", "step") and total is not None  # the run's own
    bar: Any = tqdm(
        desc=desc or None,
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=unit == "B",
        smoothing=0.05,
        delay=0 if lasts else 1,
        leave=lasts,
        mininterval=0.2,
        dynamic_ncols=True,
        file=STDERR,
    )
    return contextlib.closing(bar)
