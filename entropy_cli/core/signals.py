"""Signals that stop the program. Imports no torch: a signal may arrive while torch is imported."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0  # after which a second Ctrl-C is one; torchrun and schedulers pass the first on twice
TEMPORARY: set[str] = set()  # files to remove if the process has to end at once


class Interrupted(BaseException):
    """A signal arrived; like KeyboardInterrupt not an Exception, so that no handler swallows it.

    Attributes:
        saved: whether the work so far is saved for another run.
        resume_command: the command that resumes it.
    """

    def __init__(self, number: int) -> None:
        self.saved, self.resume_command = False, "the same command"
        super().__init__(number)  # unpickling in another process calls __init__ with this
        self.exit_code = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def __str__(self) -> str:
        """Return the signal's name."""
        return signal.Signals(self.args[0]).name


class Signals:
    """A context in which signals that ask to stop raise Interrupted, except while state changes.

    Only the first raises: another must not cut short the saving that the first began. But another
    Ctrl-C, a second or more after the first, ends the process at once. If the exception was swallowed,
    as in a destructor, the end of the next `deferred` raises it again.
    """

    # A terminal that is closed sends SIGHUP, schedulers SIGUSR1 ahead of a job's time limit.
    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self) -> None:
        self._deferred = False
        self._received: int | None = None
        self._ctrl_c_at: float | None = None

    @property
    def received(self) -> Interrupted | None:
        """The first signal that arrived, handled or not; None if there was none."""
        return None if self._received is None else Interrupted(self._received)

    def __enter__(self) -> "Signals":
        """Install the handlers, if this is the main thread: Python allows it nowhere else."""
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup has it
            numbers = [number for number in self.NUMBERS if number != signal.SIGHUP or not ignored]
            self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers from before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first, self._received = self._received is None, number
        if number == signal.SIGINT:
            if self._ctrl_c_at is not None and time.monotonic() - self._ctrl_c_at >= AGAIN_S:
                _end_at_once()
            self._ctrl_c_at = self._ctrl_c_at or time.monotonic()
        if first and not self._deferred:
            raise Interrupted(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals: one that arrives inside is raised at the end of the outermost block."""
        outer, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = outer
        if not outer and self.received is not None:
            raise self.received

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Allow signals inside a `deferred` block; raise at once one that arrived before."""
        outer, self._deferred = self._deferred, False
        try:
            if self.received is not None:
                raise self.received
            yield
        finally:
            self._deferred = outer


def _end_at_once() -> None:
    """End the process without saving, as Ctrl-C given twice asks for."""
    for path in list(TEMPORARY):
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - what a Path does is one more place to be interrupted in
    with contextlib.suppress(OSError):
        os.write(2, b"\nerror: interrupted twice: ended at once; what was saved before is kept\n")
    os._exit(128 + signal.SIGINT)


@contextmanager
def blocked() -> Iterator[None]:
    """Keep signals waiting; processes that are started inside begin with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, Signals.NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
