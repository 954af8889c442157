"""Signals that ask the program to stop. Imports no torch: they may come before it does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal arrived; like KeyboardInterrupt not an Exception, so nothing swallows it.

    Attributes:
        saved: whether what was computed is there for another run.
        again: what goes on from it.
    """

    def __init__(self, number: int) -> None:
        self.saved, self.resume_command = False, "the same command"
        super().__init__(number)  # what travels between processes is made again from this
        self.exit_code = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def __str__(self) -> str:
        """The signal's name."""
        return signal.Signals(self.args[0]).name


class Signals:
    """SIGINT, SIGTERM and SIGUSR1 raise Interrupted, once, and not while state is being changed.

    Only the first raises at once: a second must not cut short the saving that the first began. If the
    exception was swallowed, as it is in a destructor, the end of the next `held` raises it again.
    """

    # SIGUSR1 is what schedulers are asked to send ahead of a job's time limit.
    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self._deferred = False
        self._received: int | None = None

    @property
    def received(self) -> Interrupted | None:
        """What came and has yet to be acted on, or was."""
        return None if self._received is None else Interrupted(self._received)

    def __enter__(self) -> "Signals":
        """Take the signals over, where Python lets us: in the main thread."""
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first, self._received = self._received is None, number
        if first and not self._deferred:
            raise Interrupted(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal waits; it is raised at the end of the outermost."""
        outer, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = outer
        if not outer and self.received is not None:
            raise self.received

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside a `held`, a part that a signal may break off; one that came before does at once."""
        outer, self._deferred = self._deferred, False
        try:
            if self.received is not None:
                raise self.received
            yield
        finally:
            self._deferred = outer
