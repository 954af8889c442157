"""Nothing is lost: interrupted in every way, the same command ends with the same result."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from entropy_cli.entropy.tally import Tally
from tests.conftest import estimate_on_one_thread, python, subprocess_environment
from tests.e2e.test_estimate import assert_same

SLOW = ("--image-size", "128", "--patch-nums", "1,2,4,32", "--batch-size", "2", "--temperature", "1")


# A run that is killed as soon as two blocks are saved, however fast the machine.
KILLED = """
import os, signal, sys
from entropy_cli.cli import main
from entropy_cli.streaming import state_file

save = state_file.save


def save_and_die(path, saved):
    save(path, saved)
    if saved.progress.blocks_done.sum() >= 2:
        os.kill(os.getpid(), signal.SIGKILL)


state_file.save = save_and_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def command(images, checkpoint, tmp_path):
    """A run of a few seconds in its own process, that saves after every block."""

    def start(*options, program=("-m", "entropy_cli"), interpreter=None):
        argv = [*(interpreter or python()), *program, "estimate", "--json", *SLOW, "--save-every", "0"]
        argv += ["--workers", "0", "--data", images, "--ckpt", checkpoint, *options]
        return subprocess.Popen(
            [str(part) for part in argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=subprocess_environment(tmp_path),
        )

    return start


def blocks_done(path):
    with safe_open(path, framework="pt") as file:
        return int(file.get_tensor("blocks_done").sum())


def wait_for_blocks(path, number, process):
    """Wait until so many blocks are saved, and not all of them."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and blocks_done(path) >= number:
            return
        time.sleep(0.02)
    pytest.fail(f"the run ended or hung before it saved: {process.communicate()}")


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.fixture(scope="session")
def unbroken(images, checkpoint, tmp_path_factory):
    """What the run gives when nobody interrupts it, with one and with fitted temperatures."""
    folder, results = tmp_path_factory.mktemp("unbroken"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for temperature in ("1", "auto"):
            argv = (*SLOW, "--data", images, "--ckpt", checkpoint, "--temperature", temperature)
            results[temperature] = estimate_on_one_thread(folder / "result.json", *argv)
    assert not list((folder / "cache" / "entropy-cli").iterdir())  # removed at the end
    return results


@pytest.fixture
def again(estimate, images, checkpoint):
    """The same run as `command` in this process."""
    options = (*SLOW, "--save-every", 0, "--data", images, "--ckpt", checkpoint)
    return lambda *more: estimate(*options, *more)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", ["1", "auto"])
def test_a_run_killed_in_the_middle_ends_as_if_it_had_not_been(
    command, again, unbroken, tmp_path, temperature
):
    state = tmp_path / "run.state"
    options = ("--state", state, "--temperature", temperature)
    process = command(*options, program=("-c", KILLED))
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    done = blocks_done(state)
    assert 2 <= done < 5
    result = again(*options)
    assert result["provenance"]["images_resumed"] >= 16 * done
    assert_same(unbroken[temperature], result)
    assert result["data"]["fingerprint"] == unbroken[temperature]["data"]["fingerprint"]
    for entry, expected in zip(result["history"], unbroken[temperature]["history"], strict=True):
        assert entry == pytest.approx(expected)
    # Everything is done now: the same command only shows it.
    shown = again(*options)
    assert shown["provenance"]["images_resumed"] == 70
    assert_same(result, shown, tolerance=0)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_interrupted_by_a_signal_is_found_again(command, again, unbroken, tmp_path, number, code):
    cache = tmp_path / "cache" / "entropy-cli"
    process = command()
    deadline = time.monotonic() + 120
    while not list(cache.glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    (state,) = cache.glob("*.safetensors")  # without --state it is found by the fingerprint
    wait_for_blocks(state, 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and out == ""
    assert "Traceback" not in err and "to resume, run the same command" in err.splitlines()[-1]
    assert 1 <= blocks_done(state) < 5
    assert_same(unbroken["1"], again())
    assert not list(cache.iterdir())


@pytest.mark.slow
def test_a_job_is_terminated_with_its_workers(images, checkpoint, tmp_path):
    """A scheduler signals every process of a job, the decoding workers too."""
    state = tmp_path / "run.state"
    argv = [sys.executable, "-m", "entropy_cli", "estimate", "--state", state, "--save-every", "0"]
    argv += [*SLOW, "--workers", "2", "--data", images, "--ckpt", checkpoint]
    process = subprocess.Popen(
        [str(part) for part in argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_blocks(state, 1, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Traceback" not in err


def test_two_runs_on_one_state_are_kept_apart(command, cli, images, checkpoint, tmp_path):
    state = tmp_path / "run.state"
    process = command("--state", state)
    wait_for_blocks(state, 1, process)
    code, _, err = cli("estimate", *SLOW, "--data", images, "--ckpt", checkpoint, "--state", state)
    assert code == 3 and "another run" in err
    process.kill()
    process.communicate()


def test_a_lock_left_by_a_killed_run_does_not_hold(estimate, images, checkpoint, tmp_path):
    (tmp_path / "run.state.lock").touch()
    result = estimate("--data", images, "--ckpt", checkpoint, "--state", tmp_path / "run.state")
    assert result["data"]["images_used"] == 70


@pytest.mark.parametrize(
    "options, words",
    [
        (["--temperature", "2"], 'temperature [1.0, "auto"], but this run has [2.0]'),
        (["--temperature", "auto"], 'but this run has ["auto"]'),
        (["--seed", "3"], "seed 0, but this run has 3"),
        (["--limit", "20"], "images 70, but this run has 20"),
        (["--patch-nums", "1,8"], "patch_nums [1, 2, 4, 8], but this run has [1, 8]"),
        (["--rule", "cosine", "--temperature", "1"], 'rule "l2", but this run has "cosine"'),
    ],
)
def test_a_state_of_other_settings_is_refused(estimate, images, checkpoint, tmp_path, options, words):
    state = ("--state", tmp_path / "run.state")
    estimate("--data", images, "--ckpt", checkpoint, *state)
    code, err = estimate("--data", images, "--ckpt", checkpoint, *state, *options)
    assert code == 3 and words in err.splitlines()[-1]


def test_options_that_move_no_number_may_change(estimate, images, checkpoint, tmp_path):
    state = ("--state", tmp_path / "run.state")
    first = estimate("--data", images, "--ckpt", checkpoint, *state)
    again = estimate(
        *("--data", images, "--ckpt", checkpoint, "--batch-size", 3, "--save-every", 1),
        *("--device", "cpu", "--on-error", "fail", *state),
    )
    assert_same(first, again, tolerance=0)
    # Images that were read before are not of this run's speed.
    assert first["provenance"]["images_resumed"] == 0 < first["provenance"]["images_per_s"]
    assert again["provenance"]["images_resumed"] == 70 and again["provenance"]["images_per_s"] == 0


def test_damaged_states_are_refused_and_kept(estimate, images, checkpoint, tmp_path):
    path = tmp_path / "run.state"
    run = ("--data", images, "--ckpt", checkpoint, "--state", path)
    estimate(*run)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"something else", checkpoint.read_bytes()):
        path.write_bytes(content)
        code, err = estimate(*run)
        assert code == 3 and "state" in err.splitlines()[-1]
        assert path.read_bytes() == content


def test_other_images_or_another_checkpoint_are_named(estimate, images, checkpoint, weights, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    shutil.copytree(checkpoint.parent, tmp_path / "ckpt")
    run = ("--data", tmp_path / "data", "--ckpt", tmp_path / "ckpt" / checkpoint.name)
    run = (*run, "--state", tmp_path / "run.state")
    estimate(*run)
    save_file({**weights, "decoder.x": torch.zeros(1)}, tmp_path / "ckpt" / checkpoint.name)
    code, err = estimate(*run)
    assert code == 3 and "another checkpoint" in err.splitlines()[-1]
    shutil.copy(checkpoint, tmp_path / "ckpt")
    first = next((tmp_path / "data").rglob("*.jpg"))
    first.rename(first.with_name("renamed.jpg"))
    code, err = estimate(*run)
    assert code == 3 and "other images" in err.splitlines()[-1]


def test_images_that_were_all_unreadable_are_tried_again(estimate, images, checkpoint, tmp_path):
    good = [path.read_bytes() for path in sorted(images.rglob("*.jpg"))[:4]]
    for i, content in enumerate(good):
        (tmp_path / f"{i}.jpg").write_bytes(bytes(len(content)))
    code, err = estimate("--data", tmp_path, "--ckpt", checkpoint)
    assert code == 3 and "none of the first 4 images" in err
    for i, content in enumerate(good):
        (tmp_path / f"{i}.jpg").write_bytes(content)
    assert estimate("--data", tmp_path, "--ckpt", checkpoint)["data"]["images_used"] == 4


def test_unreadable_images_are_counted_once_by_a_run_that_goes_on(
    estimate, images, checkpoint, tmp_path, monkeypatch
):
    shutil.copytree(images, tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*.jpg"))[::10]:
        path.write_bytes(b"broken")
    run = ("--data", tmp_path / "data", "--ckpt", checkpoint, "--batch-size", 4)
    whole = estimate(*run)
    seen = []
    add_images = Tally.add

    def interrupt(self, *args):
        add_images(self, *args)
        seen.append(args)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Tally, "add", interrupt)
    state = ("--state", tmp_path / "run.state")
    code, err = estimate(*run, *state)
    assert code == 143 and "SIGTERM" in err.splitlines()[-1]
    monkeypatch.undo()
    again = estimate(*run, *state)
    assert again["data"]["failed"] == whole["data"]["failed"] and len(whole["data"]["failed"]) == 7
    assert_same(whole, again)


def test_what_a_killed_save_left_is_cleared_and_nothing_else(
    estimate, images, checkpoint, tmp_path, monkeypatch
):
    """A save that never comes back, as when the process is killed in it."""
    folder = tmp_path / "states"
    folder.mkdir()
    mine = {folder / ".run.state.abc", folder / ".run.state.d"}
    for path in mine:
        path.write_text("precious")
    run = ("--data", images, "--ckpt", checkpoint, "--state", folder / "run.state")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    assert estimate(*run)[0] == 143
    monkeypatch.undo()
    assert len(set(folder.iterdir()) - mine) > 0
    estimate(*run)
    assert set(folder.iterdir()) == mine | {folder / "run.state"}


@pytest.mark.slow
def test_killed_with_workers_it_goes_on_at_once(images, checkpoint, tmp_path):
    """Workers outlive a killed run by seconds; they must not hold its lock."""
    state = tmp_path / "run.state"
    argv = [sys.executable, "-m", "entropy_cli", "estimate", "--state", state, "--save-every", "0"]
    argv += [*SLOW, "--workers", "2", "--data", images, "--ckpt", checkpoint]
    argv = [str(part) for part in argv]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    wait_for_blocks(state, 1, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.kill()
    process.wait()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not any(Path(f"/proc/{child}").exists() for child in children)  # and no worker stays behind


def test_a_full_disk_under_the_state_is_one_line(estimate, images, checkpoint, tmp_path, monkeypatch):
    from entropy_cli.streaming import state_file

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state_file, "save_file", full)
    code, err = estimate("--data", images, "--ckpt", checkpoint, "--state", tmp_path / "run.state")
    assert code == 3 and "No space left" in err.splitlines()[-1]
    assert list(tmp_path.glob(".entropy*")) == []


def test_a_finished_state_with_failures_still_stops_at_the_first(estimate, images, checkpoint, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    (tmp_path / "data" / "broken.jpg").write_bytes(b"broken")
    run = ("--data", tmp_path / "data", "--ckpt", checkpoint, "--state", tmp_path / "s")
    assert estimate(*run)["data"]["images_failed"] == 1
    code, err = estimate(*run, "--on-error", "fail")
    assert code == 3 and "broken.jpg" in err.splitlines()[-1]


def test_a_result_that_can_not_be_written_is_not_computed_twice(
    estimate, images, checkpoint, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    run = ("--data", images, "--ckpt", checkpoint, "-o", tmp_path / "result.json")
    monkeypatch.setattr("pathlib.Path.write_text", full)
    code, err = estimate(*run)
    assert code == 3 and "No space left" in err.splitlines()[-1]
    assert not (tmp_path / "result.json").exists()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert estimate(*run)["provenance"]["images_resumed"] == 70
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_before_there_is_anything_to_save_is_one_line(command, number):
    process = command(interpreter=[sys.executable])
    status = Path(f"/proc/{process.pid}/status")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until the program's handlers are there, before torch is
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            break
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and out == ""
    assert (
        err.splitlines()[-1] == f"error: interrupted by {signal.Signals(number).name}, nothing is saved"
    )
