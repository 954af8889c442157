"""Batch scripts for Slurm: text that sbatch takes, from what to estimate and what to ask for.

A job is stopped before its end in two ways. Before the time limit the batch script alone is signalled,
as `--signal=B:USR1` asks, and nobody requeues the job. On preemption all its processes are, and Slurm
requeues it. So a script passes signals on, waits for its program to save, and asks to be requeued only
if Slurm still counts the job as running.
"""

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

# Slurm may send the warning a minute early. Saving takes seconds, a batch on a CPU perhaps a minute.
WARNING_S = 120
# A shorter job would be warned before it got anywhere, and requeued for ever.
LEAST_MINUTES = 10

TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
UNLIMITED = ("UNLIMITED", "INFINITE", "0", "-1")


@dataclass(frozen=True)
class Resources:
    """What each job asks Slurm for; None leaves it to the cluster.

    Attributes:
        gpus: of an array's task, or of each node.
        others: more options of sbatch, as `--qos=long`; for the merge too.
    """

    partition: str | None = None
    time: str | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    gpus: int = 0
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """An estimate to be run by Slurm.

    Attributes:
        python: the interpreter.
        options: of `estimate`, without those that the scripts give.
        workdir: absolute; relative paths among the options are meant from here.
        folder: absolute; where scripts, states, logs and the result are.
        parts: how many tasks, or nodes.
    """

    python: str
    options: tuple[str, ...]
    workdir: Path
    folder: Path
    parts: int
    resources: Resources


def array_scripts(job: Job) -> dict[str, str]:
    """An array that computes shards, a job that merges them, and what submits both; by file name."""
    return {
        "estimate.sbatch": _array(job),
        "merge.sbatch": _merge(job),
        "submit.sh": _fill(_SUBMIT_ARRAY, folder=_quote(job.folder)),
    }


def node_scripts(job: Job) -> dict[str, str]:
    """One job on several nodes, and what submits it; by file name."""
    return {"estimate.sbatch": _nodes(job), "submit.sh": _fill(_SUBMIT_NODES, folder=_quote(job.folder))}


def minutes(text: str) -> float:
    """The length of a time limit as Slurm writes it.

    >>> minutes("90"), minutes("1:30:00"), minutes("1-12"), minutes("UNLIMITED")
    (90.0, 90.0, 2160.0, inf)

    Raises:
        ValueError: it is none.
    """
    if text.upper() in UNLIMITED:
        return math.inf
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    days, *given = match.groups()
    first, second, third = (int(part or 0) for part in given)
    if days is not None or given[2] is not None:
        return int(days or 0) * 1440 + first * 60 + second + third / 60
    return first + second / 60


def _array(job: Job) -> str:
    """Each task computes one shard.

    The shard is the task's own number and not `--shard slurm`: so `sbatch --array=3 estimate.sbatch`
    does one shard again, where the array's variables would make it the whole.
    """
    return _fill(
        _ARRAY + _END,
        head=_head(job, "entropy-cli", "shard-%a.log", f"--array=0-{job.parts - 1}", *_stoppable(job)),
        parts=str(job.parts),
        id="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        **_places(job),
    )


def _nodes(job: Job) -> str:
    """One process on each GPU, or one on each node without."""
    cpus = job.resources.cpus_per_task
    size = (f"--nodes={job.parts}", "--ntasks-per-node=1")
    return _fill(
        _NODES + _END,
        head=_head(job, "entropy-cli", "estimate.log", *size, *_stoppable(job)),
        srun="srun" if cpus is None else f"srun --cpus-per-task={cpus}",
        parts=str(job.parts),
        processes=str(max(1, job.resources.gpus)),
        id="$SLURM_JOB_ID",
        **_places(job),
    )


def _merge(job: Job) -> str:
    head = _head(job, "entropy-cli-merge", "merge.log", "--ntasks=1", "--requeue")
    return _fill(_MERGE, head=head, parts=str(job.parts), **_places(job))


def _places(job: Job) -> dict[str, str]:
    """What every script names."""
    return {
        "workdir": _quote(job.workdir),
        "python": shlex.quote(job.python),
        "options": shlex.join(job.options),
        "folder": _quote(job.folder),
    }


def _stoppable(job: Job) -> list[str]:
    """Options of a job that may be stopped and goes on later, and of its size."""
    options = ["--requeue", "--open-mode=append", f"--signal=B:USR1@{WARNING_S}"]
    if job.resources.cpus_per_task is not None:
        options.append(f"--cpus-per-task={job.resources.cpus_per_task}")
    if job.resources.mem is not None:
        options.append(f"--mem={job.resources.mem}")
    if job.resources.gpus:
        options.append(f"--gres=gpu:{job.resources.gpus}")
    return options


def _head(job: Job, name: str, log: str, *options: str) -> str:
    """The lines that sbatch reads; what the user gave comes last, and so counts."""
    resources = job.resources
    # In the name of a log % begins a placeholder.
    lines = [f"--job-name={name}", f"--output={str(job.folder).replace('%', '%%')}/{log}", *options]
    if resources.partition is not None:
        lines.append(f"--partition={resources.partition}")
    if resources.time is not None:
        lines.append(f"--time={resources.time}")
    return "\n".join(f"#SBATCH {shlex.quote(line)}" for line in [*lines, *resources.others])


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _fill(text: str, **values: str) -> str:
    """Put values in for @names@; not str.format, for bash is full of braces."""
    return re.sub("@([a-z]+)@", lambda match: values[match[1]], text)


_ARRAY = """\
#!/bin/bash
@head@
# Task I of the array computes shard I of @parts@; requeued, it goes on from what is saved.

cd @workdir@ || exit
# As many threads as Slurm gives cores; torch would start one for each core of the machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}}"

program=
signalled=
pass_on() {
  signalled=yes
  if [ -n "$program" ]; then kill -s "$1" "$program" 2>/dev/null; fi
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM

@python@ -m entropy_cli estimate @options@ \\
  --shard "$SLURM_ARRAY_TASK_ID/@parts@" \\
  --state @folder@/shard-"$SLURM_ARRAY_TASK_ID"-of-@parts@.safetensors &
"""

_NODES = """\
#!/bin/bash
@head@
# Requeued, it goes on from what is saved.

cd @workdir@ || exit
# The cores that Slurm gives on a node, shared among its processes.
cores=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(((cores + @processes@ - 1) / @processes@))}"

# At a TERM srun would kill its step without a word, so the step is signalled past it. When the job is
# preempted or cancelled, Slurm has done that itself.
signalled=
trap 'signalled=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1
trap 'signalled=yes' TERM

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
@srun@ @python@ -m torch.distributed.run --nnodes=@parts@ --nproc-per-node=@processes@ \\
  --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \\
  --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" \\
  -m entropy_cli estimate @options@ \\
  --state @folder@/run.safetensors --output @folder@/result.json &
"""

_END = """\
program=$!
if [ -n "$signalled" ]; then kill -s TERM "$program"; fi # from before there was a program

# wait returns at a signal, when the program has yet to save.
wait "$program"
code=$?
while kill -0 "$program" 2>/dev/null; do
  wait "$program"
  code=$?
done
program=

# What Slurm preempts it requeues, what it cancels it doesn't, and neither counts as running any more. A
# job that does was only warned of its time limit.
job=@id@
if [ -n "$signalled" ] && [ "$code" != 0 ] && scontrol show job "$job" | grep -q JobState=RUNNING; then
  scontrol requeue "$job"
fi
exit "$code"
"""

_MERGE = """\
#!/bin/bash
@head@

cd @workdir@ || exit
exec @python@ -m entropy_cli merge @folder@/shard-*-of-@parts@.safetensors --output @folder@/result.json
"""

# afterany, not afterok: a task that ends with 4, some images being unreadable, is done; and the merge
# says in its log what is missing, where a job that waits for ever, or was cancelled, says nothing.
_SUBMIT_ARRAY = """\
#!/bin/bash
# Submits the array, and the merge for when all of its tasks have ended; it tells if a shard is missing.
set -eu
array=$(sbatch --parsable @folder@/estimate.sbatch)
array=${array%%;*}
echo "array of shards: job $array"
merge=$(sbatch --parsable --dependency=afterany:"$array" @folder@/merge.sbatch)
echo "their merge: job ${merge%%;*}"
"""

_SUBMIT_NODES = """\
#!/bin/bash
set -eu
job=$(sbatch --parsable @folder@/estimate.sbatch)
echo "job ${job%%;*}"
"""
