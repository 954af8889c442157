"""Batch scripts for Slurm: the text of each script for a job and its resources.

A job is stopped before its end in two ways. Before the time limit, `--signal=B:USR1` signals the batch
script alone, and the job is not requeued. On preemption all processes are signalled, and Slurm requeues
the job. So a script passes signals on, waits for its program to save, and requeues itself only if Slurm
still counts the job as running.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from entropy_cli.commands.slurm.sbatch_values import PLACEHOLDER, WARNING_S, gpu_count
from entropy_cli.commands.slurm.submit import (
    SUBMIT_AFTER_PILOT,
    SUBMIT_ARRAY,
    SUBMIT_MERGE,
    SUBMIT_NODES,
)
from entropy_cli.options import MAX_FAILED

# The merge adds files up, in a minute and little memory; without a GPU, where a queue is short.
MERGE_SIZE = ("--time=30", "--mem=4G", "--cpus-per-task=1")
# Options of sbatch that size the shards, and not their merge.
SIZES = re.compile("--(gp|gr|mem|cp|core|exclus|cons|tim|tmp)|--[a-z]+-per-gpu|-[GcCt]")


@dataclass(frozen=True)
class Job:
    """A run for Slurm, and the resources of each job; None for the cluster's default.

    Attributes:
        python: the interpreter.
        command: of the jobs, "estimate" or "evaluate".
        options: of the command, without those that the scripts set.
        workdir: absolute; relative paths among the options start here.
        folder: absolute; holds scripts, states, logs and the result.
        parts: number of tasks, or of nodes.
        launcher: words before the interpreter in every command, such as `srun`.
        prelude: lines of bash that every script runs first.
        log: absolute pattern of the logs' names, as of sbatch; None for names of ours in the folder.
        throttle: the most tasks of an array to run at once; None for all.
        pilot_images: of the first images, that a pilot fits the temperature to; None without a pilot.
        gpus: per task of an array, or per node: a number, or a type and a number, such as `a100:1`.
        others: more options of sbatch, such as `--qos=long`; for the merge too, but for those of SIZES.
        merge_others: more options of sbatch for the merge alone.
        max_failed: the share of unreadable images that the merge lets pass.
        with_ladder: whether the merge bounds the loss of the hard tokens that the shards keep.
    """

    python: str
    command: str
    options: tuple[str, ...]
    workdir: Path
    folder: Path
    parts: int
    launcher: tuple[str, ...] = ()
    prelude: str = ""
    log: str | None = None
    throttle: int | None = None
    pilot_images: int | None = None
    partition: str | None = None
    time: str | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    gpus: str = "0"
    others: tuple[str, ...] = ()
    merge_others: tuple[str, ...] = ()
    max_failed: float = MAX_FAILED
    with_ladder: bool = False


def array_scripts(job: Job) -> dict[str, str]:
    """Return the scripts of an array of shards, of its pilot and merge, and of submitting all, by name.

    The shard is the task's index and not `--shard slurm`, so that `sbatch --array=3 estimate.sbatch`
    computes that shard again; from the array's variables it would be the whole.
    """
    pilot = _pilot_script(job)
    if pilot:
        frozen = ("--temperature-from", str(job.folder / "pilot.json"))
        job = replace(job, options=(*_without("--temperature", job.options), *frozen))
    at_once = "" if job.throttle is None else f"%{job.throttle}"
    array = (f"--array=0-{job.parts - 1}{at_once}", *_requeue_options(job))
    return {
        **pilot,
        "estimate.sbatch": _fill(
            _START + _SHARD + _END,
            job,
            head=_head(job, "entropy-cli", "shard-%a", *array),
            id="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        ),
        "merge.sbatch": _merge_script(job),
        "submit.sh": _fill((SUBMIT_AFTER_PILOT if pilot else SUBMIT_ARRAY) + SUBMIT_MERGE, job),
    }


def _merge_script(job: Job) -> str:
    """Return the script of the merge, whose resources are its own."""
    others = [option for option in job.others if not SIZES.match(option)]
    job = replace(job, time=None, others=(*others, *job.merge_others))
    head = _head(
        job, "entropy-cli-merge", "merge", "--ntasks=1", "--requeue", "--open-mode=append", *MERGE_SIZE
    )
    return _fill(
        _BEGIN + _MERGE, job, head=head, failed=str(job.max_failed), ladder="--ladder " * job.with_ladder
    )


def _pilot_script(job: Job) -> dict[str, str]:
    """Return the script of the pilot by its name, or nothing where there is nothing to fit.

    Unreadable images must not end it with exit code 4, which would keep the array from starting.
    """
    if job.pilot_images is None:
        return {}
    own = ("--limit", str(job.pilot_images), "--max-failed", "1")  # the last of an option counts
    job = replace(job, options=(*(word for word in job.options if word != "--ladder"), *own))
    head = _head(job, "entropy-cli-pilot", "pilot", *_requeue_options(job))
    return {"pilot.sbatch": _fill(_START + _PILOT + _END, job, head=head, id="$SLURM_JOB_ID")}


def _without(name: str, options: Sequence[str]) -> Iterator[str]:
    """Leave out an option and its value."""
    words = iter(options)
    for word in words:
        if word == name:
            next(words)
        elif not word.startswith(f"{name}="):
            yield word


def node_scripts(job: Job) -> dict[str, str]:
    """Return the scripts of one job on several nodes and of submitting it, by file name.

    The job has a process per GPU, or per node without GPUs.
    """
    size = (f"--nodes={job.parts}", "--ntasks-per-node=1", *_requeue_options(job))
    text = _fill(
        _START + _NODES + _END,
        replace(job, launcher=("srun", *job.launcher)),
        head=_head(job, "entropy-cli", "estimate", *size),
        processes=str(max(1, gpu_count(job.gpus))),
        id="$SLURM_JOB_ID",
    )
    return {"estimate.sbatch": text, "submit.sh": _fill(SUBMIT_NODES, job)}


def _requeue_options(job: Job) -> list[str]:
    """Return the sbatch options of a job that can be requeued and resumed, and of its size."""
    gpus = gpu_count(job.gpus) and f"gpu:{job.gpus}"
    sizes = {"cpus-per-task": job.cpus_per_task, "mem": job.mem, "gres": gpus}
    options = ["--requeue", "--open-mode=append", f"--signal=B:USR1@{WARNING_S}"]
    return [*options, *(f"--{name}={size}" for name, size in sizes.items() if size)]


def _head(job: Job, name: str, log: str, *options: str) -> str:
    """Return the #SBATCH lines; the user's options come last, and so win."""
    lines = [f"--job-name={name}", f"--output={_log(job, log)}", *options]
    lines += [f"--partition={job.partition}"] if job.partition is not None else []
    lines += [f"--time={job.time}"] if job.time is not None else []
    return "\n".join(f"#SBATCH {shlex.quote(line)}" for line in [*lines, *job.others])


def _log(job: Job, name: str) -> str:
    """Return the pattern of a log's name, in which %a is the name of a job that is no array."""
    if job.log is None:
        return f"{str(job.folder).replace('%', '%%')}/{name}.log"
    if "%a" in name:
        return job.log
    return PLACEHOLDER.sub(lambda match: name if match[0].endswith("a") else match[0], job.log)


def _fill(text: str, job: Job, **values: str) -> str:
    """Replace each @name@ by its value; str.format would need every brace of bash doubled."""
    values = {
        "parts": str(job.parts),
        "workdir": shlex.quote(str(job.workdir)),
        "prelude": job.prelude
        and f"\n{job.prelude}\n\nset +eu # the script looks at exit codes itself\n",
        "program": shlex.join((*job.launcher, job.python)),
        "stop": _STOP_STEP if Path(*job.launcher[:1]).name == "srun" else _STOP_PROGRAM,
        "processes": "1",
        "command": job.command,
        "options": shlex.join(job.options),
        "folder": shlex.quote(str(job.folder)),
        **values,
    }
    return re.sub("@([a-z]+)@", lambda match: values[match[1]], text)


_BEGIN = """\
#!/bin/bash
@head@

cd @workdir@ || exit
@prelude@"""

# Options of sbatch reach srun but for the cores.
_START = (
    _BEGIN
    + """
# When requeued, it resumes from its saved state.

# The cores that Slurm allots, shared among the processes of a node; torch would start as many threads as
# the machine has cores.
if [ -n "$SLURM_CPUS_PER_TASK" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
cores=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(((cores + @processes@ - 1) / @processes@))}"

program=
signalled=
stop() {
  signalled=yes
  if [ -n "$program" ]; then @stop@; fi
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM
"""
)
_STOP_PROGRAM = 'kill -s "$1" "$program" 2>/dev/null'
# On TERM srun would kill its step at once, so the step is signalled directly. When the job is preempted
# or cancelled, Slurm has already done so.
_STOP_STEP = '[ "$1" = TERM ] || scancel --signal=TERM "$SLURM_JOB_ID"'

_SHARD = """
# Task I of the array computes shard I of @parts@.
@program@ -m entropy_cli @command@ @options@ \\
  --shard "$SLURM_ARRAY_TASK_ID/@parts@" \\
  --state @folder@/shard-"$SLURM_ARRAY_TASK_ID"-of-@parts@.safetensors &
"""

_PILOT = """
# The array takes the temperatures of this run's result.
@program@ -m entropy_cli @command@ @options@ \\
  --state @folder@/pilot.safetensors --output @folder@/pilot.json &
"""

_NODES = """
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
@program@ -m torch.distributed.run --nnodes=@parts@ --nproc-per-node=@processes@ \\
  --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \\
  --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" \\
  -m entropy_cli @command@ @options@ \\
  --state @folder@/run.safetensors --output @folder@/result.json &
"""

_END = """\
program=$!
if [ -n "$signalled" ]; then kill -s TERM "$program"; fi # arrived before the program started

# wait returns on a signal, before the program has saved.
wait "$program"
code=$?
while kill -0 "$program" 2>/dev/null; do
  wait "$program"
  code=$?
done
program=

# Only a job that was warned of its time limit still counts as running; Slurm requeues preempted ones.
job=@id@
if [ -n "$signalled" ] && [ "$code" != 0 ] && scontrol show job "$job" | grep -q JobState=RUNNING; then
  scontrol requeue "$job"
fi
exit "$code"
"""

_MERGE = """
exec @program@ -m entropy_cli merge @folder@/shard-*-of-@parts@.safetensors \\
  @ladder@--max-failed @failed@ --output @folder@/result.json
"""
