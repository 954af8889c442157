"""Slurm's scripts, run by bash with stand-ins for Slurm and for the program."""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from entropy_cli.commands.slurm.script import Job, array_scripts, minutes, node_scripts

# The parts of Slurm that the scripts call: each call is logged, and jobs are in state $STATE.
SLURM = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $1 $2" in
  "scontrol show hostnames") printf 'node1\\nnode2\\n' ;;
  "scontrol show job") echo "JobId=7 ArrayJobId=5 JobState=$STATE Reason=None" ;;
  sbatch*) echo 5 ;;
  srun*) exec "$@" ;;
esac
"""
# A program that takes a while to save when it is stopped, and touches a file when it is ready.
PROGRAM = """#!/bin/bash
echo "$@" > "$FOLDER/arguments"
echo "$PWD $OMP_NUM_THREADS" > "$FOLDER/place"
stop() { sleep 0.5; echo "$1" >> "$FOLDER/saved"; exit "$2"; }
trap 'stop USR1 138' USR1
trap 'stop TERM 143' TERM
touch "$FOLDER/ready"
[ -n "$CODE" ] && exit "$CODE"
for i in {1..400}; do sleep 0.05; done
"""


@pytest.fixture
def folder(tmp_path):
    """With stand-ins under names that need quoting."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    for name in ("scontrol", "sbatch", "srun", "scancel", "program"):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PROGRAM if name == "program" else SLURM)
        path.chmod(0o755)
    return folder


@pytest.fixture
def job(folder):
    return Job(
        python=str(folder / "bin" / "program"),
        options=("--data", "a b", "--ckpt", "$HOME/@folder@.pth"),
        workdir=folder,
        folder=folder / "out %a",
        parts=4,
    )


@pytest.fixture
def run(folder):
    """Start a script as a batch script of task 2 of array 5, whose own job is 7."""

    def start(text, *, state="RUNNING", code="", **environment):
        (folder / "script").write_text(text)
        variables = {"SLURM_ARRAY_JOB_ID": 5, "SLURM_ARRAY_TASK_ID": 2, "SLURM_JOB_ID": 7}
        variables |= {"FOLDER": folder, "CALLS": folder / "calls", "STATE": state, "CODE": code}
        variables |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **environment}
        inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        return subprocess.Popen(
            ["bash", folder / "script"],
            env=inherited | {name: str(value) for name, value in variables.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def calls(folder):
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("scripts", [array_scripts, node_scripts])
def test_bash_reads_every_script(job, scripts):
    for text in scripts(job).values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("number, word", [(signal.SIGUSR1, "USR1"), (signal.SIGTERM, "TERM")])
def test_a_warned_task_saves_and_asks_for_its_next_turn(job, run, folder, number, word):
    process = run(array_scripts(job)["estimate.sbatch"])
    wait_for(folder / "ready")
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number, out
    assert (folder / "saved").read_text() == f"{word}\n"
    assert calls(folder) == ["scontrol show job 5_2", "scontrol requeue 5_2"]


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PENDING"])
def test_of_a_preempted_or_cancelled_task_slurm_has_decided(job, run, folder, state):
    process = run(array_scripts(job)["estimate.sbatch"], state=state)
    wait_for(folder / "ready")
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143 and (folder / "saved").exists()
    assert calls(folder) == ["scontrol show job 5_2"]


@pytest.mark.parametrize("code", [0, 3, 4, 1])
def test_a_task_that_ends_by_itself_is_not_requeued(job, run, folder, code):
    process = run(array_scripts(job)["estimate.sbatch"], code=code)
    process.communicate(timeout=30)
    assert process.returncode == code and not calls(folder)


def test_a_task_runs_its_shard_where_the_command_was_given(job, run, folder):
    process = run(array_scripts(job)["estimate.sbatch"], code=0, SLURM_CPUS_PER_TASK=6)
    process.communicate(timeout=30)
    assert (folder / "place").read_text() == f"{folder} 6\n"
    state = folder / "out %a" / "shard-2-of-4.safetensors"
    assert (folder / "arguments").read_text() == (
        f"-m entropy_cli estimate --data a b --ckpt $HOME/@folder@.pth --shard 2/4 --state {state}\n"
    )


def test_the_merge_takes_the_shards_of_this_number_only(job, run, folder):
    (folder / "out %a").mkdir()
    for name in ("shard-0-of-4", "shard-1-of-4", "shard-0-of-3"):
        (folder / "out %a" / f"{name}.safetensors").touch()
    process = run(array_scripts(job)["merge.sbatch"], code=0)
    process.communicate(timeout=30)
    given = shlex.split((folder / "arguments").read_text().replace("it's here", "it"))
    assert [Path(word).name for word in given if word.endswith("safetensors")] == [
        "shard-0-of-4.safetensors",
        "shard-1-of-4.safetensors",
    ]


def test_submit_makes_the_merge_wait_for_the_array(job, run, folder):
    process = run(array_scripts(job)["submit.sh"])
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and out == "array of shards: job 5\ntheir merge: job 5\n"
    assert calls(folder) == [
        f"sbatch --parsable {job.folder}/estimate.sbatch",
        f"sbatch --parsable --dependency=afterany:5 {job.folder}/merge.sbatch",
    ]


def test_nodes_are_one_job_by_torchrun(job, run, folder):
    process = run(node_scripts(job)["estimate.sbatch"], code=0, SLURM_CPUS_ON_NODE=3)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    given = (folder / "arguments").read_text()
    assert given.startswith("-m torch.distributed.run --nnodes=4 --nproc-per-node=1 ")
    assert "--rdzv-endpoint=node1:20007 -m entropy_cli estimate --data a b" in given
    assert "--shard" not in given and given.endswith(f"--output {job.folder}/result.json\n")
    assert (folder / "place").read_text() == f"{folder} 3\n"


def test_a_warned_job_on_nodes_has_its_step_signalled_past_srun(job, run, folder):
    process = run(node_scripts(job)["estimate.sbatch"])
    wait_for(folder / "ready")
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    assert calls(folder)[-1] == "scancel --signal=TERM 7.0" and not (folder / "saved").exists()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:  # what scancel would do
        os.kill(int(child), signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert calls(folder)[-2:] == ["scontrol show job 7", "scontrol requeue 7"]


def test_what_is_asked_of_slurm(job):
    size = {"cpus_per_task": 4, "mem": "8G", "gpus": 1, "others": ("--qos=long", "--comment=it is")}
    scripts = array_scripts(replace(job, partition="low", time="1-0", **size))
    for name in ("estimate.sbatch", "merge.sbatch"):
        lines = scripts[name].splitlines()
        for option in ("--partition=low", "--time=1-0", "--qos=long", "'--comment=it is'"):
            assert f"#SBATCH {option}" in lines
    lines = scripts["estimate.sbatch"].splitlines()
    asked = ("--array=0-3", "--requeue", "--signal=B:USR1@120", "--cpus-per-task=4", "--mem=8G")
    for option in (*asked, "--gres=gpu:1", "--open-mode=append"):
        assert f"#SBATCH {option}" in lines
    assert "%%a/shard-%a.log" in scripts["estimate.sbatch"]  # a % of the folder's is no placeholder
    assert "gpu" not in scripts["merge.sbatch"]
    text = node_scripts(replace(job, parts=2, gpus=8, cpus_per_task=32))["estimate.sbatch"]
    assert "srun --cpus-per-task=32" in text and "--nnodes=2 --nproc-per-node=8" in text


@pytest.mark.parametrize(
    "text, expected",
    [("10", 10), ("10:30", 10.5), ("2:00:00", 120), ("1-0", 1440), ("1-2:30", 1590), ("0:10:30", 10.5)],
)
def test_time_limits_as_slurm_writes_them(text, expected):
    assert minutes(text) == expected


def test_the_command_writes_and_tells_what_to_run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--", "--data", "x", "--ckpt", "y.pth", "--limit", "40")
    code, out, err = cli("slurm", "--array", 3, *given)
    assert code == 0 and err == ""
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("slurm-y-") and out.endswith(f"bash {folder.name}/submit.sh\n")
    names = {"estimate.sbatch", "merge.sbatch", "submit.sh"}
    assert {path.name for path in folder.iterdir()} == names
    text = (folder / "estimate.sbatch").read_text()
    assert f"{sys.executable} -m entropy_cli estimate --data x --ckpt y.pth --limit 40" in text
    # The same work goes into the same folder, other work into another; asking for more changes nothing.
    cli("slurm", "--array", 3, "--time", "4:00:00", *given)
    assert len(list(tmp_path.iterdir())) == 1
    assert "--time=4:00:00" in (folder / "estimate.sbatch").read_text()
    cli("slurm", "--array", 3, *given, "--seed", 1)
    assert len(list(tmp_path.iterdir())) == 2


def test_it_needs_no_torch(tmp_path):
    code = (
        "import sys; from entropy_cli.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    argv = [sys.executable, "-c", code, "slurm", "--nodes", "2", "--output", tmp_path / "out"]
    argv += ["--", "--data", "x", "--ckpt", "y"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options, words",
    [
        ("-- --data x --ckpt y", "--array / --nodes"),
        ("--array 2 --nodes 2 -- --data x --ckpt y", "--array / --nodes"),
        ("--array 0 -- --data x --ckpt y", "--array"),
        ("--nodes 0 -- --data x --ckpt y", "--nodes"),
        ("--array 2", "OPTIONS OF ESTIMATE"),
        ("--array 2 -- --data x", "--ckpt"),
        ("--array 2 -- --data x --ckpt y --frobnicate", "--frobnicate"),
        ("--array 2 -- --data x --ckpt y --limit 0", "--limit"),
        ("--array 2 -- --data x --ckpt y --state s", "--state"),
        ("--array 2 -- --data x --ckpt y -o r.json", "--output"),
        ("--array 2 -- --data x --ckpt y --shard 0/2", "--shard"),
        ("--array 2 -- --data x --ckpt y --target-ci 0.1", "--target-ci"),
        ("--nodes 2 -- --data x --ckpt y --state s", "--state"),
        ("--nodes 2 -- --data x --ckpt y --shard slurm", "--shard"),
        ("--array 2 --gpus 2 -- --data x --ckpt y", "--gpus"),
        ("--array 2 --time soon -- --data x --ckpt y", "--time: soon"),
        ("--array 2 --time 5 -- --data x --ckpt y", "10 minutes or more"),
        ("--array 2 --sbatch --array=3 -- --data x --ckpt y", "--sbatch: --array=3"),
        ("--array 2 --sbatch --arr=3 -- --data x --ckpt y", "--sbatch"),
        ("--array 2 --sbatch long -- --data x --ckpt y", "--sbatch"),
    ],
)
def test_wrong_usage_writes_nothing(cli, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("slurm", *options.split())
    assert code == 2 and out == "" and words in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(cli, tmp_path):
    (tmp_path / "file").touch()
    given = ("--", "--data", "x", "--ckpt", "y")
    code, _, err = cli("slurm", "--array", 2, "--output", tmp_path / "file", *given)
    assert code == 3 and "--output" in err
