"""Read a log again and again while it grows."""

import logging
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from entropy_cli.commands.monitor.logs.read import log_stamps
from entropy_cli.commands.monitor.monitor import MonitorConfig, MonitorOutput, monitor_log
from entropy_cli.core.errors import LogError
from entropy_cli.core.signals import Interrupted, Signals

logger = logging.getLogger(__name__)


def follow(
    config: MonitorConfig, interval: float, show: Callable[[MonitorOutput], object]
) -> MonitorOutput:
    """Show a log again whenever it has changed, until Ctrl-C; return what was read last.

    Raises:
        LogError: nothing could be read.
    """
    look = _Look(config, show)
    try:
        with Signals() as signals:
            look.shielded = signals.deferred
            while True:
                look()
                time.sleep(interval)
    except Interrupted as error:
        if error.args[0] != signal.SIGINT:
            raise
    look.shielded = nullcontext
    look()
    if look.last is None:
        raise LogError(look.problem)
    return look.last


class _Look:
    """A look at a growing log; one that can't be read, as while it is rewritten, is waited for."""

    def __init__(self, config: MonitorConfig, show: Callable[[MonitorOutput], object]) -> None:
        self.config, self.show = config, show
        self.shielded: Callable[[], AbstractContextManager[object]] = nullcontext  # from Ctrl-C
        self.seen: object = None  # of the log, when it was read last
        self.last: MonitorOutput | None = None
        self.problem = ""

    def __call__(self) -> None:
        """Show the log if it has changed; say once why it can't be read."""
        known, path = self.problem, self.config.path
        try:
            if self.seen == (now := log_stamps(path)):
                return
            self.seen = now
            done = monitor_log(self.config)
        except (LogError, OSError) as error:
            reason = f"{path}: {error.strerror}." if isinstance(error, OSError) else error
            self.problem = str(reason)
            if not known:
                logger.warning("%s Waiting for its next change.", self.problem)
            return
        with self.shielded():  # what is written is written whole
            self.last, self.problem = done, ""
            self.show(done)
