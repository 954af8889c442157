"""Slurm's scripts, run by bash with stand-ins for Slurm and for the program."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from entropy_cli.commands.slurm.sbatch_values import minutes
from entropy_cli.commands.slurm.script import Job, array_scripts, node_scripts
from entropy_cli.runs import first_images
from entropy_cli.streaming import pilot
from tests.e2e.test_estimate import assert_same

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
sleep 0.2 # until the script has noted its process
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
        command="estimate",
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
@pytest.mark.parametrize("pilot_images", [None, 1024])
def test_bash_reads_every_script(job, scripts, pilot_images):
    for text in scripts(replace(job, pilot_images=pilot_images)).values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("number, word", [(signal.SIGUSR1, "USR1"), (signal.SIGTERM, "TERM")])
def test_a_warned_task_saves_and_asks_for_its_next_turn(job, run, folder, number, word):
    process = run(array_scripts(job)["estimate.sbatch"])
    wait_for(folder / "ready")
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, out
    assert (folder / "saved").read_text() == f"{word}\n"
    assert calls(folder) == ["scontrol show job 5_2", "scontrol requeue 5_2"]


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PENDING"])
def test_of_a_preempted_or_cancelled_task_slurm_has_decided(job, run, folder, state):
    process = run(array_scripts(job)["estimate.sbatch"], state=state)
    wait_for(folder / "ready")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143 and (folder / "saved").exists()
    assert calls(folder) == ["scontrol show job 5_2"]


@pytest.mark.parametrize("code", [0, 3, 4, 1])
def test_a_task_that_ends_by_itself_is_not_requeued(job, run, folder, code):
    process = run(array_scripts(job)["estimate.sbatch"], code=code)
    process.communicate(timeout=60)
    assert process.returncode == code and not calls(folder)


def test_a_task_runs_its_shard_where_the_command_was_given(job, run, folder):
    process = run(array_scripts(job)["estimate.sbatch"], code=0, SLURM_CPUS_PER_TASK=6)
    process.communicate(timeout=60)
    assert (folder / "place").read_text() == f"{folder} 6\n"
    state = folder / "out %a" / "shard-2-of-4.safetensors"
    assert (folder / "arguments").read_text() == (
        f"-m entropy_cli estimate --data a b --ckpt $HOME/@folder@.pth --shard 2/4 --state {state}\n"
    )


def with_pilot(job):
    given = ("--temperature=2,auto", "--limit", "40")
    return replace(job, options=(*job.options, *given), pilot_images=32)


def test_a_pilot_fits_what_the_tasks_take(job, run, folder):
    scripts, out = array_scripts(with_pilot(job)), folder / "out %a"
    data = "-m entropy_cli estimate --data a b --ckpt $HOME/@folder@.pth"
    for name, expected in {
        "pilot.sbatch": "--temperature=2,auto --limit 40 --limit 32 --max-failed 1 "
        f"--state {out}/pilot.safetensors --output {out}/pilot.json",
        "estimate.sbatch": "--limit 40 "
        f"--temperature-from {out}/pilot.json --shard 2/4 --state {out}/shard-2-of-4.safetensors",
    }.items():
        process = run(scripts[name], code=0)
        process.communicate(timeout=60)
        assert (folder / "arguments").read_text() == f"{data} {expected}\n"


def test_a_pilot_builds_no_ladder(job):
    scripts = array_scripts(with_pilot(replace(job, options=(*job.options, "--ladder"))))
    assert "--ladder" in scripts["estimate.sbatch"] and "--ladder" not in scripts["pilot.sbatch"]


def test_a_warned_pilot_is_requeued(job, run, folder):
    process = run(array_scripts(with_pilot(job))["pilot.sbatch"])
    wait_for(folder / "ready")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert calls(folder) == ["scontrol show job 7", "scontrol requeue 7"]


def test_the_merge_takes_the_shards_of_this_number_only(job, run, folder):
    (folder / "out %a").mkdir()
    for name in ("shard-0-of-4", "shard-1-of-4", "shard-0-of-3"):
        (folder / "out %a" / f"{name}.safetensors").touch()
    process = run(array_scripts(job)["merge.sbatch"], code=0)
    process.communicate(timeout=60)
    given = shlex.split((folder / "arguments").read_text().replace("it's here", "it"))
    assert [Path(word).name for word in given if word.endswith("safetensors")] == [
        "shard-0-of-4.safetensors",
        "shard-1-of-4.safetensors",
    ]


def test_submit_makes_the_merge_wait_for_the_array(job, run, folder):
    process = run(array_scripts(job)["submit.sh"])
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "array of shards: job 5\ntheir merge: job 5\n"
    assert calls(folder) == [
        f"sbatch --parsable {job.folder}/estimate.sbatch",
        f"sbatch --parsable --dependency=afterany:5 {job.folder}/merge.sbatch",
    ]


def test_submit_makes_the_array_wait_for_a_pilot_that_succeeds(job, run, folder):
    process = run(array_scripts(with_pilot(job))["submit.sh"])
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.splitlines()[0] == "pilot for the temperature: job 5"
    assert [call.replace(f"{job.folder}/", "") for call in calls(folder)] == [
        "sbatch --parsable pilot.sbatch",
        "sbatch --parsable --dependency=afterok:5 --kill-on-invalid-dep=yes estimate.sbatch",
        "sbatch --parsable --dependency=afterany:5 merge.sbatch",
    ]


def test_nodes_are_one_job_by_torchrun(job, run, folder):
    process = run(node_scripts(job)["estimate.sbatch"], code=0, SLURM_CPUS_ON_NODE=3)
    out, _ = process.communicate(timeout=60)
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
    assert calls(folder)[-1] == "scancel --signal=TERM 7" and not (folder / "saved").exists()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:  # what scancel would do
        os.kill(int(child), signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert calls(folder)[-2:] == ["scontrol show job 7", "scontrol requeue 7"]


def test_what_is_asked_of_slurm(job):
    size = {
        "cpus_per_task": 4,
        "mem": "8G",
        "gpus": "a100:1",
        "others": ("--qos=long", "--comment=it is"),
    }
    scripts = array_scripts(replace(job, partition="low", time="1-0", throttle=2, **size))
    for name in ("estimate.sbatch", "merge.sbatch"):
        lines = scripts[name].splitlines()
        for option in ("--partition=low", "--qos=long", "'--comment=it is'"):
            assert f"#SBATCH {option}" in lines
    lines = scripts["estimate.sbatch"].splitlines()
    asked = (
        "--array=0-3%2",
        "--time=1-0",
        "--requeue",
        "--signal=B:USR1@120",
        "--cpus-per-task=4",
        "--mem=8G",
    )
    for option in (*asked, "--gres=gpu:a100:1", "--open-mode=append"):
        assert f"#SBATCH {option}" in lines
    assert "%%a/shard-%a.log" in scripts["estimate.sbatch"]  # a % of the folder's is no placeholder
    pilot = array_scripts(replace(with_pilot(job), partition="low", time="1-0", **size))["pilot.sbatch"]
    own = {line for line in lines if line.startswith("#SBATCH") and line not in pilot}
    assert {option.split("=")[0] for option in own} == {"#SBATCH --array", "#SBATCH '--output"}
    text = node_scripts(replace(job, parts=2, gpus="8", cpus_per_task=32))["estimate.sbatch"]
    assert "#SBATCH --cpus-per-task=32\n" in text and "--nnodes=2 --nproc-per-node=8" in text


def test_the_merge_has_resources_of_its_own(job):
    sizes = (
        "--gres=gpu:1",
        "-C a100",
        "--mem-per-gpu=9G",
        "-c8",
        "--exclusive",
        "--qos=long",
        "-Alab",
        "--export=ALL",
    )
    own = ("--partition=cpu", "--mem=20G")
    job = replace(job, partition="gpu", time="1-0", gpus="1", mem="64G", others=sizes, merge_others=own)
    text = array_scripts(replace(job, max_failed=0.25))["merge.sbatch"]
    ladder = array_scripts(replace(job, with_ladder=True))["merge.sbatch"]
    assert "--ladder --max-failed" in ladder and "--ladder" not in text
    assert [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line][2:] == [
        *("--ntasks=1", "--requeue", "--open-mode=append", "--time=30", "--mem=4G", "--cpus-per-task=1"),
        *("--partition=gpu", "--qos=long", "-Alab", "--export=ALL", *own),
    ]
    assert "--max-failed 0.25 --output" in text


def test_a_prelude_and_a_launcher(job, run, folder):
    prelude = "set -eu # as careful scripts do\nexport WORD='a  \"b $c' \\"
    launcher = ("env", "OTHER=x $y")
    changed = replace(job, prelude=prelude, launcher=launcher, python=str(folder / "bin" / "shows"))
    (folder / "bin" / "shows").write_text('#!/bin/bash\necho "$WORD|$OTHER"\nexit 4\n')
    (folder / "bin" / "shows").chmod(0o755)
    for text in array_scripts(replace(changed, pilot_images=32)).values():
        if "#SBATCH" in text:
            process = run(text)
            out, _ = process.communicate(timeout=60)
            assert (process.returncode, out) == (4, 'a  "b $c|x $y\n')
    assert " srun env 'OTHER=x $y' " in f" {node_scripts(changed)['estimate.sbatch']}".replace("\n", " ")


@pytest.mark.parametrize("launcher", ["srun", "/usr/bin/srun"])
def test_a_step_of_a_shard_is_signalled_past_srun(job, launcher):
    text = array_scripts(replace(job, launcher=(launcher, "-u")))["estimate.sbatch"]
    assert 'scancel --signal=TERM "$SLURM_JOB_ID"' in text
    assert f"{launcher} -u " in text


@pytest.mark.parametrize(
    "log, shard, merge",
    [
        (None, "out %%a/shard-%a.log", "out %%a/merge.log"),
        ("/l/%x-%A_%a.out", "/l/%x-%A_%a.out", "/l/%x-%A_merge.out"),
        ("/l/%3a%%a%j", "/l/%3a%%a%j", "/l/merge%%a%j"),
    ],
)
def test_where_the_logs_go(job, log, shard, merge):
    scripts = array_scripts(replace(job, log=log))
    for name, expected in (("estimate.sbatch", shard), ("merge.sbatch", merge)):
        (line,) = (line for line in scripts[name].splitlines() if "--output=" in line and "#" in line)
        assert shlex.split(line, comments=False)[1].endswith(expected)


@pytest.mark.parametrize(
    "text, expected",
    [("10", 10), ("10:30", 10.5), ("2:00:00", 120), ("1-0", 1440), ("1-2:30", 1590), ("0:10:30", 10.5)],
)
def test_time_limits_as_slurm_writes_them(text, expected):
    assert minutes(text) == expected


def test_the_command_writes_and_tells_what_to_run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--no-check", "--", "--data", "x", "--ckpt", "y.pth", "--limit", "40")
    code, out, err = cli("slurm", "--array", 3, *given)
    assert code == 0 and err == ""
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("slurm-y-") and out.endswith(f"bash {folder.name}/submit.sh\n")
    names = {"pilot.sbatch", "estimate.sbatch", "merge.sbatch", "submit.sh"}
    assert {path.name for path in folder.iterdir()} == names
    text = (folder / "estimate.sbatch").read_text()
    assert f"{sys.executable} -m entropy_cli estimate --data x --ckpt y.pth --limit 40" in text
    # The same work goes into the same folder, other work into another; asking for more changes nothing.
    assert cli("slurm", "--array", 3, *given)[0] == 0
    changed = ("slurm", "--array", 3, "--time", "4:00:00", *given)
    code, _, err = cli(*changed)
    assert code == 3 and "(pilot.sbatch, estimate.sbatch). Give another folder, or --overwrite" in err
    assert (folder / "estimate.sbatch").read_text() == text
    assert cli(*changed[:1], "--overwrite", *changed[1:])[0] == 0
    assert len(list(tmp_path.iterdir())) == 1
    assert "--time=4:00:00" in (folder / "estimate.sbatch").read_text()
    cli("slurm", "--array", 3, *given, "--seed", 1)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "options, has_pilot",
    [
        ("--temperature 1", False),
        ("--temperature 1,auto", True),
        ("--temperature-from r.json", False),
        ("", True),  # squared distances without a published temperature
        ("--rule cosine", True),
        ("--rule dot", False),
        ("--ckpt absent", True),  # here, but perhaps not where the jobs run
    ],
)
def test_a_pilot_only_where_a_temperature_is_fitted(cli, checkpoint, tmp_path, options, has_pilot):
    given = ("--no-check", "--", "--data", "x", "--ckpt", checkpoint, *options.split())
    code, out, err = cli("slurm", "--array", 3, "-o", tmp_path / "out", *given)
    assert code == 0 and err == ""
    assert ("a pilot for the temperature, 3 shards" in " ".join(out.split())) == has_pilot
    assert (tmp_path / "out" / "pilot.sbatch").exists() == has_pilot
    assert ("--temperature-from" in (tmp_path / "out" / "estimate.sbatch").read_text()) == (
        has_pilot or "--temperature-from" in options
    )


@pytest.mark.parametrize(
    "options, has_pilot", [("--rule sign", False), ("--codebook c.npy", True), ("--levels 3,3", False)]
)
def test_a_pilot_of_latents(cli, tmp_path, options, has_pilot):
    given = ("--no-check", "--", "--latents", "z.npy", *options.split())
    code, _, err = cli("slurm", "--array", 3, "-o", tmp_path / "out", *given)
    assert code == 0 and err == ""
    assert (tmp_path / "out" / "pilot.sbatch").exists() == has_pilot


def arguments(script, task=0):
    """The arguments of the program that a script runs."""
    text = script.read_text().replace("\\\n", "").replace("$SLURM_ARRAY_TASK_ID", str(task))
    (line,) = (line for line in text.splitlines() if " -m entropy_cli " in line)
    words = shlex.split(line.removesuffix("&"))
    return words[words.index("entropy_cli") + 1 :]


@pytest.mark.parametrize("temperature", [(), ("--temperature", "auto,2")])
def test_what_the_scripts_run_is_what_one_run_gives(
    cli, estimate, images, checkpoint, tmp_path, monkeypatch, temperature
):
    for module in (first_images, pilot):
        monkeypatch.setattr(module, "PILOT_BLOCKS", 2)  # the first 32 of 70 images
    options = ("--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--workers", 0, *temperature)
    whole, folder = estimate(*options), tmp_path / "my job"
    assert cli("slurm", "--array", 3, "-o", folder, "--", *options)[0] == 0
    commands = [arguments(folder / "pilot.sbatch")]
    commands += [arguments(folder / "estimate.sbatch", task) for task in range(3)]
    for command in commands:
        code, _, err = cli(*command)
        assert code == 0 and "to fit the temperature" not in err, err
    code, _, err = cli("merge", *folder.glob("shard-*.safetensors"), "-o", folder / "result.json")
    assert code == 0, err
    assert json.loads((folder / "pilot.json").read_text())["data"]["images_used"] == 32
    merged = json.loads((folder / "result.json").read_text())
    assert_same(whole, merged)
    for one, other in zip(whole["temperatures"], merged["temperatures"], strict=True):
        assert one["temperature"] == other["temperature"]
        assert [s["temperature"] for s in one["scales"]] == [s["temperature"] for s in other["scales"]]
    assert merged["provenance"]["temperature_fit"] == whole["provenance"]["temperature_fit"]


def test_it_needs_no_torch(tmp_path):
    code = (
        "import sys; from entropy_cli.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    argv = [sys.executable, "-c", code, "slurm", "--nodes", "2", "--output", tmp_path / "out"]
    argv += ["--no-check", "--", "--data", "x", "--ckpt", "y"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options, words",
    [
        ("-- --data x --ckpt y", "--array / --nodes"),
        ("--array 2 --nodes 2 -- --data x --ckpt y", "--array / --nodes"),
        ("--array 0 -- --data x --ckpt y", "--array"),
        ("--nodes 0 -- --data x --ckpt y", "--nodes"),
        ("--array 2", "OPTIONS"),
        ("--array 2 -- --data x", "--ckpt"),
        ("--array 2 -- --data x --ckpt y --frobnicate", "--frobnicate"),
        ("--array 2 -- --data x --ckpt y --limit 0", "--limit"),
        ("--array 2 -- --data x --ckpt y --state s", "--state"),
        ("--array 2 -- --data x --ckpt y -o r.json", "--output"),
        ("--array 2 -- --data x --ckpt y --shard 0/2", "--shard"),
        ("--array 2 -- --data x --ckpt y --target-ci 0.1", "--target-ci"),
        ("--array 2 -- --data x --ckpt y --dry-run", "--dry-run"),
        ("--nodes 2 -- --data x --ckpt y --state s", "--state"),
        ("--nodes 2 -- --data x --ckpt y --shard slurm", "--shard"),
        ("--array 2 --gpus 2 -- --data x --ckpt y", "--gpus"),
        ("--array 2 --gpus a100:2 -- --data x --ckpt y", "--gpus: a100:2: a shard uses one"),
        ("--array 2 --gpus a100 -- --data x --ckpt y", "expected N or TYPE:N"),
        ("--nodes 2 --throttle 2 -- --data x --ckpt y", "--throttle: is for an --array"),
        ("--nodes 2 --merge-sbatch --qos=x -- --data x --ckpt y", "--merge-sbatch: is for an --array"),
        ("--nodes 2 --launcher srun -- --data x --ckpt y", "--launcher"),
        ("--array 2 --launcher ' -- --data x --ckpt y", "--launcher: ': no closing quotation"),
        ("--array 2 --log %a/x -- --data x --ckpt y", "--log: %a/x: expected a file"),
        ("--array 2 --log logs/ -- --data x --ckpt y", "--log: logs/: expected a file"),
        ("--array 2 --log a\\b -- --data x --ckpt y", "without a backslash"),
        ("--array 2 -o a\\b -- --data x --ckpt y", "--output"),
        ("--array 2 --merge-sbatch -n2 -- --data x --ckpt y", "--merge-sbatch"),
        ("--array 2 -- --data x --ckpt y --report r.md", "--report"),
        (
            "--array 2 -- --data x --ckpt y --temperature 1 --temperature-from r",
            "--temperature / --temp",
        ),
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
    given = ("--no-check", "--", "--data", "x", "--ckpt", "y")
    code, _, err = cli("slurm", "--array", 2, "--output", tmp_path / "file", *given)
    assert code == 3 and "--output" in err


@pytest.mark.parametrize("options", ["--ckpt absent", "--data absent", "--split val", "--image-size 40"])
def test_what_estimate_would_refuse_is_refused_unless_told_not_to_look(
    cli, images, checkpoint, tmp_path, options
):
    given = ("--", "--data", images, "--ckpt", checkpoint, "--device", "cuda", "--precision", "fp16")
    command = ("slurm", "--array", 2, "-o", tmp_path / "out")
    code, out, err = cli(*command, *given, *options.split())
    assert code == 3 and out == "" and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert cli(*command, "--no-check", *given, *options.split())[0] == 0
    assert cli(*command, "--overwrite", *given)[0] == 0  # the GPU of the jobs need not be here


@pytest.mark.parametrize(
    "content, words",
    [
        (b"#SBATCH --mem=8G\n", "--sbatch"),
        (b"echo 'a\n", "not a script for bash: line 1: unexpected EOF"),
        (b"cat <<EOF\n", "not a script for bash: "),
        (b"a\0b\n", "not a script for bash"),
        (None, "can't be read: No such file"),
    ],
)
def test_a_prelude_that_would_break_the_script(cli, tmp_path, content, words):
    if content is not None:
        (tmp_path / "pre").write_bytes(content)
    given = ("--prelude", tmp_path / "pre", "--no-check", "--", "--data", "x", "--ckpt", "y")
    code, _, err = cli("slurm", "--array", 2, "-o", tmp_path / "out", *given)
    assert code == 3 and words in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_overwriting_leaves_no_script_of_other_settings(cli, tmp_path):
    command = ("slurm", "-o", tmp_path, "--no-check", "--overwrite")
    given = ("--", "--data", "x", "--ckpt", "y")
    log = tmp_path / "logs" / "%A_%a.out"
    assert cli(*command, "--array", 2, "--log", log, *given)[0] == 0 and log.parent.is_dir()
    assert cli(*command, "--nodes", 2, *given)[0] == 0
    assert {path.name for path in tmp_path.glob("*.s*")} == {"estimate.sbatch", "submit.sh"}


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_weights_of_a_model_are_not_asked_of_its_tokenizer(cli, shared, tmp_path, weights):
    """Its temperature is published, so that no pilot is needed, whichever copy of the model is used."""
    golden = shared / "golden"
    model = golden / "generators/llamagen_gpt/0000300.pt"
    given = ("--data", "x", "--ckpt", golden / "llamagen/ckpt.pth", "--model", model)
    run = ("slurm", "evaluate", "--array", 2, "--no-check", "--output", tmp_path / "s")
    code, out, err = cli(*run, "--", *given, "--weights", weights)
    assert code == 0, err
    assert "2 shards and their merge" in " ".join(out.split()) and "pilot" not in out
