"""Signals that ask the program to stop, and when they are listened to."""

import os
import pickle
import signal
import subprocess
import sys

import pytest

from entropy_cli.core.signals import Interrupted, Signals


def test_a_signal_waits_while_state_changes():
    done = []
    with Signals() as signals:
        with pytest.raises(Interrupted) as caught, signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("still here")
        assert done and caught.value.exit_code == 143

    with Signals() as signals:
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.exit_code == 130
        os.kill(os.getpid(), signal.SIGTERM)  # a second does not cut short what the first began
        with pytest.raises(Interrupted), signals.deferred():
            done.append("saved")
        assert done[-1] == "saved"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_signal_is_raised_again():
    class Destroyed:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    with Signals() as signals:
        thing = Destroyed()
        del thing  # Python prints and drops what a destructor raises
        with pytest.raises(Interrupted), signals.deferred():
            pass


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_scheduler_s_warning_is_a_request_to_stop(number):
    with Signals() as signals, pytest.raises(Interrupted) as caught, signals.deferred():
        with pytest.raises(Interrupted), signals.interruptible():
            os.kill(os.getpid(), number)
        assert signals.received is not None
        with signals.deferred():  # an inner one does not raise
            pass
    assert caught.value.exit_code == 143 and str(caught.value) == signal.Signals(number).name
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # to other processes


def test_a_closed_terminal_is_a_request_to_stop_unless_it_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be ignored here, too
    try:
        with Signals(), pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGHUP)
        assert caught.value.exit_code == 143
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


TWICE = """
import os, signal, sys, time
from pathlib import Path
from entropy_cli.core import signals
from entropy_cli.core.files import write_atomically

signals.AGAIN_S = 0.2

def write(path):
    path.write_text("half")
    for pause in (0, 0, 0.3, 90):
        time.sleep(pause)
        os.kill(os.getpid(), signal.SIGINT)

with signals.Signals() as received, received.deferred():
    write_atomically(Path(sys.argv[1]), write)
"""


def test_a_second_ctrl_c_ends_at_once_and_leaves_nothing_half_written(tmp_path):
    argv = [sys.executable, "-c", TWICE, str(tmp_path / "r.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130 and not list(tmp_path.iterdir())
    assert done.stderr.strip() == (
        "error: interrupted twice: ended at once; what was saved before is kept"
    )
