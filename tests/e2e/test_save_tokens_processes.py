"""`--save-tokens` of a run that is killed, and of several processes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import subprocess_environment, torchrun
from tests.e2e.test_resume import SLOW, wait_for_blocks

pytestmark = pytest.mark.slow


def test_killed_after_a_save(images, checkpoint, tmp_path):
    argv = [sys.executable, "-m", "entropy_cli", "estimate", *SLOW, "--workers", "0"]
    argv += ["--data", images, "--ckpt", checkpoint, "--save-every", "0"]
    argv = [str(part) for part in argv]
    environment = subprocess_environment(tmp_path)

    def tokens(name, *options):
        path = tmp_path / name
        return [*argv, "--save-tokens", str(path), *map(str, options)], path

    command, killed = tokens("killed.npy", "--state", tmp_path / "s")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    wait_for_blocks(tmp_path / "s", 2, process)
    time.sleep(0.2)  # somewhere between two saves
    process.kill()
    process.wait()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    command, unbroken = tokens("unbroken.npy")
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert killed.read_bytes() == unbroken.read_bytes()


def test_several_processes_write_one_file(images, checkpoint, tmp_path):
    options = ["estimate", "--workers", "0", "--batch-size", "4", "--data", images, "--ckpt", checkpoint]
    environment = {**subprocess_environment(tmp_path), "OMP_NUM_THREADS": "1"}
    for start, name in ((torchrun(2), "two.npy"), ([sys.executable, "-m"], "one.npy")):
        argv = [*start, "entropy_cli", *options, "--save-tokens", tmp_path / name]
        argv = [str(part) for part in argv]
        done = subprocess.run(
            argv, capture_output=True, text=True, env=environment, check=False, cwd=Path.cwd()
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert not list((tmp_path / "cache" / "entropy-cli").iterdir())
