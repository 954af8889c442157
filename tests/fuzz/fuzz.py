"""Damage files of every format and read them: each is read or refused, in one line and in time.

A case is made of a seed and a number alone: `python -m tests.fuzz --seed 7 --case 123` runs it again.
"""

import contextlib
import io
import json
import random
import resource
import shutil
import signal
import sys
import traceback
import warnings

from entropy_cli.cli import main
from tests.fuzz.mutations import mutated
from tests.fuzz.samples import samples

MOST_S, MOST_WAITED_S, MOST_KB = 10, 100, 2**20  # of the processor, and by the clock
MOST_CHARACTERS = 2000  # of an error
CODES = (0, 2, 3, 4)


class TooLongError(BaseException):
    """A command took too long."""


class Fuzzer:
    """Samples in a folder, and the cases that are made of them."""

    def __init__(self, folder):
        self.sound, self.case = folder / "sound", folder / "case"
        self.sound.mkdir()
        with silenced():
            self.samples = samples(self.sound)
        self.contents = [content for one in self.samples for content in one.files.values()]

    def check_samples(self):
        """Read every sample as it is by each command: all are accepted."""
        for sample in self.samples:
            for command in sample.commands:
                self.write(sample.files)
                code, _, err = self.read(sample, command)
                assert code == 0, (sample.name, command, err)

    def write(self, files):
        shutil.rmtree(self.case, ignore_errors=True)
        for name, content in files.items():
            path = self.case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def read(self, sample, command):
        return run(sample.argv(command, self.case, self.sound))

    def fault(self, seed, number):
        """Run a case; return what is wrong with its outcome, or None."""
        rng = random.Random(f"{seed} {number}")
        sample = rng.choice(self.samples)
        command, changed = rng.choice(sample.commands), rng.choice([*sample.files])
        content = mutated(sample.files[changed], rng, self.contents)
        self.write({**sample.files, changed: content})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wrong = wrong_outcome(*self.read(sample, command), is_json="--json" in command)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > MOST_KB and wrong is None:
            wrong = f"{grown // 1024} MB more memory"
        return wrong and f"case {number} of seed {seed}, {sample.name}: {command}: {changed}: {wrong}"


def run(argv):
    """Run a command line in this process; gives its exit code or traceback, stdout and stderr."""
    with silenced() as (out, err), timed():
        try:
            code = main(argv)
        except (Exception, TooLongError):  # noqa: BLE001 - is a fault, whatever it is
            code = traceback.format_exc()[-3000:]
    return code, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def silenced():
    """Take what is written to stdout and stderr; warnings are as in a process of its own."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = lambda message, kind, *_: sys.stderr.write(f"Warning: {message}\n")
        yield out, err


@contextlib.contextmanager
def timed():
    """Stop what takes too long, of the processor's time or by the clock."""

    def stop(*_):
        raise TooLongError

    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, MOST_S, 1)
    signal.setitimer(signal.ITIMER_REAL, MOST_WAITED_S, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def wrong_outcome(code, out, err, *, is_json):
    """Return what is wrong with an outcome, or None."""
    if code not in CODES:
        return code
    if "Traceback" in err or "Warning" in err:
        return err[-2000:]
    if code in (2, 3):
        lines = err.strip().splitlines()
        if (
            not lines[-1:]
            or not lines[-1].startswith("error: ")
            or sum(x.startswith("error: ") for x in lines) > 1
        ):
            return f"exit {code}, and not one error: {out[-200:]} {err[-2000:]}"
        if len(lines[-1]) > MOST_CHARACTERS:
            return f"an error of {len(lines[-1])} characters: {lines[-1][:300]}"
    elif is_json:
        json.loads(out, parse_constant=lambda name: 1 / 0)
    return None
