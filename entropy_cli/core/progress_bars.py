"""The interface of progress bars, for code that does not touch the terminal."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol

logger = logging.getLogger(__name__)

LINE_EVERY_S = 30.0
UNITS = {"img": "images", "step": "steps", "B": "bytes"}


class Bar(Protocol):
    """The part of the interface of a tqdm bar that the program uses."""

    def update(self, n: int) -> object:
        """Advance the bar by n."""
        ...

    def set_description(self, desc: str, refresh: bool = True) -> object:  # noqa: FBT001, FBT002
        """Set the text before the bar; without `refresh` it appears at the next update."""
        ...

    def set_postfix_str(self, s: str, refresh: bool = True) -> object:  # noqa: FBT001, FBT002
        """Set the text after the numbers."""
        ...


class Bars(Protocol):
    """A function that creates progress bars."""

    def __call__(
        self, desc: str, total: int | None, unit: str, initial: int = 0
    ) -> contextlib.AbstractContextManager[Bar]:
        """Create a bar; `total` is None if unknown, `initial` is how much is done already."""
        ...


class SilentBar:
    """A bar that draws nothing."""

    def update(self, n: int) -> None:
        """Do nothing."""

    def set_description(self, desc: str, refresh: bool = True) -> None:  # noqa: FBT001, FBT002
        """Do nothing."""

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:  # noqa: FBT001, FBT002
        """Do nothing."""


class LineBar:
    """A bar for logs: a line every 30 seconds, and one at the end of what took longer.

    Args:
        desc: what is done; may be empty.
        total: number of units, None if unknown.
        unit: as of tqdm.
        initial: how many are done already.
        write: called with each line.
        clock: in seconds.
    """

    def __init__(
        self,
        desc: str,
        total: int | None,
        unit: str,
        initial: int,
        write: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.desc, self.total, self.unit, self.done = desc, total, UNITS.get(unit, unit), initial
        self.write, self.clock, self.postfix, self.initial = write, clock, "", initial
        self.started = self.written = clock()

    def update(self, n: int) -> None:
        """Count, and write a line if it is time."""
        self.done += n
        if self.clock() - self.written >= LINE_EVERY_S:
            self._write()

    def set_description(self, desc: str, refresh: bool = True) -> None:  # noqa: FBT001, FBT002
        """Set the text before the numbers, and write a line if it is time."""
        self.desc = desc
        self.update(0)

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:  # noqa: FBT001, FBT002
        """Set the text after the numbers, for the next line."""
        self.postfix = s

    def close(self) -> None:
        """Write the last line, if there were others before."""
        if self.written > self.started:
            self._write()

    def _write(self) -> None:
        self.written = now = self.clock()
        seconds, new = now - self.started, self.done - self.initial
        of = "" if self.total is None else f"/{self.total:,}"
        parts = [time.strftime("%H:%M:%S"), self.desc, f"{self.done:,}{of} {self.unit}"]
        if new and seconds:
            parts.append(f"{new / seconds:.1f}/s" if new >= seconds else f"{seconds / new:.1f} s each")
            if self.total is not None:
                parts.append(f"{duration((self.total - self.done) * seconds / new)} left")
        self.write("  ".join(filter(None, [*parts, self.postfix])) + "\n")


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Tell those who asked for it (--verbose) how long a stage took."""
    started = time.monotonic()
    try:
        yield
    finally:
        logger.debug("%s: %.2f s", name, time.monotonic() - started)


def no_bars(
    desc: str, total: int | None, unit: str, initial: int = 0
) -> contextlib.AbstractContextManager[Bar]:
    """Create a bar that draws nothing, for processes that do not report."""
    return contextlib.nullcontext(SilentBar())
