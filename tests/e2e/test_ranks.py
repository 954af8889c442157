"""Several processes of one run, as torchrun starts them, give what one gives; none is left hanging."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import estimate_on_one_thread
from tests.conftest import torchrun as launcher
from tests.e2e.test_estimate import assert_same
from tests.e2e.test_resume import SLOW, blocks_done, wait_for_blocks

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def torchrun(images, checkpoint, tmp_path):
    """Start processes of one run, with one thread each."""
    started = []

    def start(processes, *options, data=images, program=("-m", "entropy_cli"), is_real=False):
        argv = [*launcher(processes, is_real=is_real)[:-1], *program, "estimate"]
        argv += ["--json", "--workers", 0, "--data", data, "--ckpt", checkpoint, *options]
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def alone(images, checkpoint, tmp_path_factory):
    """What one process with one thread gives, computed once for the same options."""

    @functools.cache
    def run(*options):
        output = tmp_path_factory.mktemp("alone") / "result.json"
        return estimate_on_one_thread(output, "--data", images, "--ckpt", checkpoint, *options)

    return run


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), err


def workers_of(process):
    """The processes of the run, by rank: in the order in which they were started."""
    members = []
    for name in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if name.read_text().strip() == str(process.pid):
                members.append(int(name.parent.name))
    return sorted(members)[1:]  # the first is their launcher


@pytest.mark.parametrize(
    "processes, temperature, path, is_real",
    [(2, "1", "hard", True), (3, "auto", "hard", False), (2, "auto,0.3", "drawn", False)],
)
def test_processes_share_a_run(torchrun, alone, tmp_path, processes, temperature, path, is_real):
    options = ("--batch-size", "4", "--temperature", temperature, "--path", path)
    expected = alone(*options)
    result, _ = finish(torchrun(processes, *options, is_real=is_real))
    assert_same(expected, result)
    assert [s["temperature"] for s in result["scales"]] == [s["temperature"] for s in expected["scales"]]
    for got, point in zip(result["history"], expected["history"], strict=True):
        assert got == pytest.approx(point)
    assert result["provenance"]["processes"] == processes
    assert result["data"] == expected["data"]
    assert not list((tmp_path / "cache" / "entropy-cli").iterdir())


def test_a_run_goes_on_with_another_number_of_processes(torchrun, alone, tmp_path):
    """Stopped by a signal to all of them, as a scheduler sends it."""
    expected = alone(*SLOW)
    state = tmp_path / "run.state"
    options = (*SLOW, "--save-every", 0, "--state", state)
    first = torchrun(2, *options)
    wait_for_blocks(state, 1, first)
    first.send_signal(signal.SIGTERM)  # torchrun passes it on
    _, err = first.communicate(timeout=60)
    assert (first.returncode != 0 and "Traceback (most recent call last):\n  File" in err) or err
    assert "interrupted by SIGTERM; to resume, run the same command" in err
    done = blocks_done(state)
    assert 1 <= done < 5
    result, err = finish(torchrun(3, *options))
    assert "resuming from" in err
    assert result["provenance"]["images_resumed"] >= 16 * (done - 1)
    assert_same(expected, result)


@pytest.mark.parametrize("victim", [0])  # whose store is gone with it; of 1: the trainings
def test_a_process_that_dies_stops_all_and_spoils_nothing(torchrun, alone, tmp_path, victim):
    expected = alone(*SLOW)
    state = tmp_path / "run.state"
    options = (*SLOW, "--save-every", 0, "--state", state)
    run = torchrun(2, *options)
    wait_for_blocks(state, 1, run)
    os.kill(workers_of(run)[victim], signal.SIGKILL)
    start = time.monotonic()
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0 and time.monotonic() - start < 50
    assert "another process of this run has ended" in err or "interrupted by SIGTERM" in err
    assert 1 <= blocks_done(state) < 5
    assert_same(expected, finish(torchrun(1, *options))[0])


@pytest.mark.parametrize("option, values", [("shard", "@/2")])
def test_processes_of_other_options_end_at_once(torchrun, tmp_path, option, values):
    """@ becomes the number of the process."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys; from entropy_cli.cli import main\n"
        "sys.exit(main([part.replace('@', os.environ['RANK']) for part in sys.argv[1:]]))"
    )
    run = torchrun(2, f"--{option}", values, program=[program])
    start = time.monotonic()
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0 and time.monotonic() - start < 50
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors and all(f"process 1 of this run has {option} " in line for line in errors), err
    assert "exitcode  : 3" in err


def test_an_error_of_one_is_the_error_of_all(torchrun, images, tmp_path):
    """A broken image that only one of them reads, and nobody is to skip."""
    import shutil

    shutil.copytree(images, tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*.jpg"))[::20]:
        path.write_bytes(b"broken")
    run = torchrun(2, "--on-error", "fail", data=tmp_path / "data")
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and all("Stopped by --on-error fail" in line for line in errors), err


def test_all_stop_at_the_target(torchrun, tmp_path, checkpoint):
    """1,056 pictures, of which the looks at 992 and 1,024 suffice."""
    from entropy_cli.images.synthetic import write_image_folder

    write_image_folder(tmp_path / "data", 1100, 36, 3)
    result, _ = finish(torchrun(2, "--batch-size", 16, "--target-ci", 0.5, data=tmp_path / "data"))
    assert result["target_reached"] is True
    assert result["data"]["images_used"] == 1024 and result["data"]["images_found"] == 1100
