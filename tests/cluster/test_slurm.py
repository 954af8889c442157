"""On a real Slurm: shards and nodes, preempted and warned, give what one run gives."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import wait_until
from tests.conftest import estimate_on_one_thread
from tests.e2e.test_estimate import assert_same
from tests.e2e.test_resume import SLOW, blocks_done

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]


@pytest.fixture
def options(images, checkpoint):
    """Of a run of a few seconds that saves after every block."""
    options = ("--data", images, "--ckpt", checkpoint, "--workers", "0", *SLOW, "--save-every", "0")
    return tuple(str(option) for option in options)


@pytest.fixture(scope="session")
def unbroken(images, checkpoint, tmp_path_factory):
    """The result of one run, with as many threads as the jobs have."""
    output = tmp_path_factory.mktemp("one") / "result.json"
    return estimate_on_one_thread(output, *SLOW, "--data", images, "--ckpt", checkpoint)


@pytest.fixture
def submit(cluster, cli, options, tmp_path, monkeypatch):
    """Write and submit jobs as a user does; the ids that submit.sh prints."""
    monkeypatch.chdir(tmp_path)

    def submit(*how, more=()):
        check = ("--no-check",) if "--data" in more else ()
        code, _, err = cli("slurm", *how, *check, "--output", "my job", "--", *options, *more)
        assert code == 0, err
        return submitted(cluster, tmp_path / "my job")

    yield submit
    cluster("scancel", "--user", "root")


def submitted(cluster, folder):
    """Run submit.sh; the ids that it prints."""
    # Jobs inherit this: the code under test, wherever they run, and one thread for each.
    environment = {**cluster.environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        ["bash", folder / "submit.sh"], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return [line.rpartition(" ")[2] for line in out.stdout.splitlines()]


def freeze_after_a_block(state):
    """Stop the program with this state once it has saved a block, so that there is something left."""
    wait_until(lambda: state.exists() and blocks_done(state) >= 1, 60, what=f"a block in {state}")
    pids = [pid for pid, words in command_lines() if os.fsencode(state) in words]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    assert pids
    return pids


def command_lines():
    """Of all Python processes: pid and words."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"python") and b"-m" in words and b"torch.distributed.run" not in words:
                yield int(process.name), words


def wait_for_the_end(cluster, job, folder):
    """Wait until a job has ended well."""

    def ended():
        states = {task["JobState"] for task in cluster.show(job)}
        return not states & {"PENDING", "RUNNING", "COMPLETING"}

    def logs():
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(folder.glob("*.log")))

    wait_until(ended, 90, what=f"job {job} ended")
    for task in cluster.show(job):
        assert (task["JobState"], task["ExitCode"]) == ("COMPLETED", "0:0"), logs()


def test_an_array_is_preempted_goes_on_and_is_merged(cluster, submit, unbroken, tmp_path):
    folder = tmp_path / "my job"
    array, merge = submit("--array", 3, "--partition", "low")
    # However five blocks are cut in three, the middle shard has two.
    state = folder / "shard-1-of-3.safetensors"
    freeze_after_a_block(state)
    done = blocks_done(state)
    # All of the node for a job of the other partition: what runs there has to go, and is continued.
    cluster("sbatch", "--wait", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "true")
    assert cluster.show(f"{array}_1")[0]["Restarts"] == "1"
    wait_for_the_end(cluster, merge, folder)
    wait_for_the_end(cluster, array, folder)
    log = (folder / "shard-1.log").read_text()
    assert "PREEMPTION" in log and "interrupted by SIGTERM" in log
    assert f"resuming from {16 * done} of 22 images" in log
    assert_same(unbroken, json.loads((folder / "result.json").read_text()))


def test_an_array_waits_for_a_pilot_that_is_preempted(cluster, submit, options, tmp_path):
    folder, fitted = tmp_path / "my job", ("--temperature", "1,auto")
    expected = estimate_on_one_thread(tmp_path / "one.json", *options, *fitted)
    pilot, array, merge = submit("--array", 3, "--partition", "low", more=fitted)
    freeze_after_a_block(folder / "pilot.safetensors")
    cluster("sbatch", "--wait", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "true")
    assert cluster.show(pilot)[0]["Restarts"] == "1"
    assert not list(folder.glob("shard-*"))
    for job in (merge, array, pilot):
        wait_for_the_end(cluster, job, folder)
    assert "resuming from" in (folder / "pilot.log").read_text()
    merged = json.loads((folder / "result.json").read_text())
    assert_same(expected, merged)
    assert merged["provenance"]["temperature_fit"] == expected["provenance"]["temperature_fit"]
    for one, other in zip(expected["temperatures"], merged["temperatures"], strict=True):
        assert [s["temperature"] for s in one["scales"]] == [s["temperature"] for s in other["scales"]]


def test_names_that_need_quotes_a_throttle_and_gpus(
    cluster, cli, images, checkpoint, tmp_path, monkeypatch
):
    (tmp_path / "a '%a\" #x").mkdir()
    monkeypatch.chdir(tmp_path / "a '%a\" #x")
    (data := Path("it's $HOME \n `x`")).symlink_to(images)
    Path("pre lude").write_text("set -eu\nexport WORD='a  \"b'\n")
    options = ("--array", 2, "--throttle", 1, "--gpus", "a100:1", "--prelude", "pre lude")
    options += ("--launcher", "env 'A B=$c'", "--log", "l '%% $x/%x-%A_%a.out", "-o", "o '%A")
    options += ('--merge-sbatch=--comment=it\'s "#1"', "--python", sys.executable)
    code, _, err = cli("slurm", *options, "--", "--data", data, "--ckpt", checkpoint, "--workers", 0)
    assert code == 0, err
    for script in Path("o '%A").glob("*.sbatch"):
        cluster("sbatch", "--test-only", script)
    pilot, array, merge = submitted(cluster, Path("o '%A"))
    for job in (merge, array, pilot):
        wait_for_the_end(cluster, job, Path("l '% $x"))
    tasks = cluster.show(array)
    assert {task["ArrayTaskThrottle"] for task in tasks} == {"1"}
    first, second = sorted(tasks, key=lambda task: task["StartTime"])
    assert first["EndTime"] <= second["StartTime"]
    assert {task["TresPerNode"] for task in tasks} == {"gres:gpu:a100:1"}
    assert "TresPerNode" not in cluster.show(merge)[0]
    names = {"-merge-{}_merge", "-pilot-{}_pilot", "-{}_0", "-{}_1"}
    expected = {name.format({"-m": merge, "-p": pilot}.get(name[:2], array)) for name in names}
    assert {log.stem for log in Path("l '% $x").iterdir()} == {f"entropy-cli{name}" for name in expected}
    result = json.loads(Path("o '%A/result.json").read_text())
    assert result["data"]["images_used"] == 70 and len(result["provenance"]["runs"]) == 2


def test_an_array_does_not_wait_for_a_pilot_that_failed(cluster, submit, tmp_path):
    (tmp_path / "empty").mkdir()
    _, array, merge = submit("--array", 3, more=("--temperature", "auto", "--data", tmp_path / "empty"))
    wait_until(lambda: cluster.show(merge)[0]["JobState"] == "FAILED", 60, what="the merge failed")
    assert {task["JobState"] for task in cluster.show(array)} == {"CANCELLED"}
    assert "no images found" in (tmp_path / "my job" / "pilot.log").read_text()
    assert "no such file" in (tmp_path / "my job" / "merge.log").read_text()


@pytest.mark.parametrize(
    "how, state, log",
    [
        (("--nodes", 1), "run", "estimate"),
        (("--array", 1, "--launcher", "srun"), "shard-0-of-1", "shard-0"),
    ],
)
def test_a_warned_step_is_requeued_and_goes_on(cluster, submit, unbroken, tmp_path, how, state, log):
    folder = tmp_path / "my job"
    job, *merge = submit(*how)
    frozen = freeze_after_a_block(folder / f"{state}.safetensors")
    # What Slurm does before the time limit.
    cluster("scancel", "--batch", "--signal=USR1", job)
    time.sleep(1)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: cluster.show(job)[0]["Restarts"] == "1", 60, what="requeued")
    for each in (job, *merge):
        wait_for_the_end(cluster, each, folder)
    assert "resuming from" in (folder / f"{log}.log").read_text()
    assert_same(unbroken, json.loads((folder / "result.json").read_text()))


def test_a_shard_by_the_variables_of_an_array_of_one_s_own(cluster, cli, options, unbroken, tmp_path):
    estimate = f"{sys.executable} -m entropy_cli estimate --shard slurm"
    (tmp_path / "script").write_text(
        f"#!/bin/bash\nexport OMP_NUM_THREADS=1\ncd {ROOT} || exit\n"
        f"exec {estimate} {' '.join(options)} --state {tmp_path}/$SLURM_ARRAY_TASK_ID.safetensors\n"
    )
    job = cluster("sbatch", "--parsable", "--array=2-6:2", f"-o{tmp_path}/%a.log", tmp_path / "script")
    wait_for_the_end(cluster, job, tmp_path)
    states = sorted(tmp_path.glob("*.safetensors"))
    assert [state.stem for state in states] == ["2", "4", "6"]
    code, out, err = cli("merge", *states, "--json")
    assert code == 0, err
    assert_same(unbroken, json.loads(out))
