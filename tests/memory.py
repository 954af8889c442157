"""How much memory a command takes, in a process of its own."""

import subprocess
import sys

from tests.conftest import subprocess_environment

# What a command imports before its work.
MODULES = {"estimate": "runs.estimate", "loss": "commands.loss.loss"}
CODE = """
import resource, sys; from entropy_cli.cli import main; import torch
import entropy_cli.{module}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def added_memory_kb(tmp_path, command, *argv):
    """Peak of a command line beyond what importing its command takes."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module=MODULES[command]), *map(str, argv)],
        capture_output=True,
        text=True,
        env=subprocess_environment(tmp_path),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])
