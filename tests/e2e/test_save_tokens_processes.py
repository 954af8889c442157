"""`--save-tokens` of a run that is killed, and of several processes."""

import subprocess
import time

import pytest

from entropy_cli.cli import main
from tests.conftest import one_thread, python, subprocess_environment, torchrun
from tests.e2e.test_resume import SLOW, wait_for_blocks

pytestmark = pytest.mark.slow


def test_tokens_of_a_run_killed_after_a_save_are_those_of_an_unbroken_one(images, checkpoint, tmp_path):
    argv = [*python(), "-m", "entropy_cli", "estimate", *SLOW, "--workers", "0"]
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
    assert main(command[len(python()) + 2 :]) == 0
    command, unbroken = tokens("unbroken.npy")
    assert main(command[len(python()) + 2 :]) == 0
    assert killed.read_bytes() == unbroken.read_bytes()


def test_several_processes_write_one_file(images, checkpoint, tmp_path):
    options = ["estimate", "--workers", "0", "--batch-size", "4", "--data", images, "--ckpt", checkpoint]
    environment = {**subprocess_environment(tmp_path), "OMP_NUM_THREADS": "1"}
    argv = [str(part) for part in (*options, "--save-tokens")]
    together = [*torchrun(2), "entropy_cli", *argv, str(tmp_path / "two.npy")]
    done = subprocess.run(together, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    with one_thread():
        assert main([*argv, str(tmp_path / "one.npy")]) == 0
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert not list((tmp_path / "cache" / "entropy-cli").iterdir())
