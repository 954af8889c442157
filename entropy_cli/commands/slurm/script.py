"""Batch scripts for Slurm: the text of each script for a job and its resources.

A job is stopped before its end in two ways. Before the time limit, `--signal=B:USR1` signals the batch
script alone, and the job is not requeued. On preemption all processes are signalled, and Slurm requeues
the job. So a script passes signals on, waits for its program to save, and requeues itself only if Slurm
still counts the job as running.
"""

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# Slurm may send the signal a minute early. Saving takes seconds, a batch on a CPU perhaps a minute.
WARNING_S = 120
# A shorter job would be stopped before it made progress, and requeued for ever.
LEAST_MINUTES = 10

TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
UNLIMITED = ("UNLIMITED", "INFINITE", "0", "-1")


@dataclass(frozen=True)
class Job:
    """An estimate for Slurm to run, and the resources of each job; None for the cluster's default.

    Attributes:
        python: the interpreter.
        options: of `estimate`, without those that the scripts set.
        workdir: absolute; relative paths among the options start here.
        folder: absolute; holds scripts, states, logs and the result.
        parts: number of tasks, or of nodes.
        pilot_images: number of the first images that a pilot fits the temperature to, before the array
            starts; None if there is nothing to fit.
        gpus: per task of an array, or per node.
        others: more options of sbatch, such as `--qos=long`; for the merge too.
    """

    python: str
    options: tuple[str, ...]
    workdir: Path
    folder: Path
    parts: int
    pilot_images: int | None = None
    partition: str | None = None
    time: str | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    gpus: int = 0
    others: tuple[str, ...] = ()


def array_scripts(job: Job) -> dict[str, str]:
    """Return the scripts of an array of shards, of its pilot and merge, and of submitting all, by name.

    The shard is the task's index and not `--shard slurm`, so that `sbatch --array=3 estimate.sbatch`
    computes that shard again; from the array's variables it would be the whole.
    """
    pilot = _pilot_script(job)
    if pilot:
        frozen = ("--temperature-from", str(job.folder / "pilot.json"))
        job = replace(job, options=(*_without("--temperature", job.options), *frozen))
    array = (f"--array=0-{job.parts - 1}", *_requeue_options(job))
    id_ = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    merge = _head(job, "entropy-cli-merge", "merge.log", "--ntasks=1", "--requeue")
    return {
        **pilot,
        "estimate.sbatch": _fill(
            _START + _SHARD + _END, job, head=_head(job, "entropy-cli", "shard-%a.log", *array), id=id_
        ),
        "merge.sbatch": _fill(_MERGE, job, head=merge),
        "submit.sh": _fill((_SUBMIT_AFTER_PILOT if pilot else _SUBMIT_ARRAY) + _SUBMIT_MERGE, job),
    }


def _pilot_script(job: Job) -> dict[str, str]:
    """Return the script of the pilot by its name, or nothing where there is nothing to fit.

    Unreadable images must not end it with exit code 4, which would keep the array from starting.
    """
    if job.pilot_images is None:
        return {}
    own = ("--limit", str(job.pilot_images), "--max-failed", "1")  # the last of an option counts
    job = replace(job, options=(*_without("--report", job.options), *own))
    head = _head(job, "entropy-cli-pilot", "pilot.log", *_requeue_options(job))
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
    cpus = job.cpus_per_task
    size = (f"--nodes={job.parts}", "--ntasks-per-node=1", *_requeue_options(job))
    text = _fill(
        _NODES + _END,
        job,
        head=_head(job, "entropy-cli", "estimate.log", *size),
        srun="srun" if cpus is None else f"srun --cpus-per-task={cpus}",
        processes=str(max(1, job.gpus)),
        id="$SLURM_JOB_ID",
    )
    return {"estimate.sbatch": text, "submit.sh": _fill(_SUBMIT_NODES, job)}


def minutes(text: str) -> float:
    """Parse a time limit in Slurm's notation, in minutes.

    >>> minutes("90"), minutes("1:30:00"), minutes("1-12"), minutes("UNLIMITED")
    (90.0, 90.0, 2160.0, inf)

    Raises:
        ValueError: the text is not a time limit.
    """
    if text.upper() in UNLIMITED:
        return math.inf
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    days, *parts = match.groups()
    first, second, third = (int(part or 0) for part in parts)
    if days is not None or parts[2] is not None:
        return int(days or 0) * 1440 + first * 60 + second + third / 60
    return first + second / 60


def _requeue_options(job: Job) -> list[str]:
    """Return the sbatch options of a job that can be requeued and resumed, and of its size."""
    gpus = job.gpus and f"gpu:{job.gpus}"
    sizes = {"cpus-per-task": job.cpus_per_task, "mem": job.mem, "gres": gpus}
    options = ["--requeue", "--open-mode=append", f"--signal=B:USR1@{WARNING_S}"]
    return [*options, *(f"--{name}={size}" for name, size in sizes.items() if size)]


def _head(job: Job, name: str, log: str, *options: str) -> str:
    """Return the #SBATCH lines; the user's options come last, and so win."""
    # % begins a placeholder in the name of a log.
    lines = [f"--job-name={name}", f"--output={str(job.folder).replace('%', '%%')}/{log}", *options]
    lines += [f"--partition={job.partition}"] if job.partition is not None else []
    lines += [f"--time={job.time}"] if job.time is not None else []
    return "\n".join(f"#SBATCH {shlex.quote(line)}" for line in [*lines, *job.others])


def _fill(text: str, job: Job, **values: str) -> str:
    """Replace each @name@ by its value; str.format would need every brace of bash doubled."""
    values |= {
        "parts": str(job.parts),
        "workdir": shlex.quote(str(job.workdir)),
        "python": shlex.quote(job.python),
        "options": shlex.join(job.options),
        "folder": shlex.quote(str(job.folder)),
    }
    return re.sub("@([a-z]+)@", lambda match: values[match[1]], text)


_START = """\
#!/bin/bash
@head@
# When requeued, it resumes from its saved state.

cd @workdir@ || exit
# As many threads as Slurm allots cores; torch would start one for each core of the machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}}"

program=
signalled=
pass_on() {
  signalled=yes
  if [ -n "$program" ]; then kill -s "$1" "$program" 2>/dev/null; fi
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
"""

_SHARD = """
# Task I of the array computes shard I of @parts@.
@python@ -m entropy_cli estimate @options@ \\
  --shard "$SLURM_ARRAY_TASK_ID/@parts@" \\
  --state @folder@/shard-"$SLURM_ARRAY_TASK_ID"-of-@parts@.safetensors &
"""

_PILOT = """
# The array takes the temperatures of this run's result.
@python@ -m entropy_cli estimate @options@ \\
  --state @folder@/pilot.safetensors --output @folder@/pilot.json &
"""

_NODES = """\
#!/bin/bash
@head@
# When requeued, it resumes from its saved state.

cd @workdir@ || exit
# The cores that Slurm allots on a node, shared among its processes.
cores=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(((cores + @processes@ - 1) / @processes@))}"

# On TERM srun would kill its step at once, so the step is signalled directly. When the job is
# preempted or cancelled, Slurm has already done so.
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
if [ -n "$signalled" ]; then kill -s TERM "$program"; fi # arrived before the program started

# wait returns on a signal, before the program has saved.
wait "$program"
code=$?
while kill -0 "$program" 2>/dev/null; do
  wait "$program"
  code=$?
done
program=

# Slurm requeues preempted jobs itself, and cancelled jobs must not be; neither counts as running now. A
# job that still does was only warned of its time limit.
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

_SUBMIT_ARRAY = """\
#!/bin/bash
# Submits the array, and the merge to run when all tasks have ended; the merge reports missing shards.
set -eu
array=$(sbatch --parsable @folder@/estimate.sbatch)
"""

# A run that Slurm requeues has not ended, so the array waits for it.
_SUBMIT_AFTER_PILOT = """\
#!/bin/bash
# Submits the pilot; the array, to run when it has succeeded; and the merge, to run when all tasks have
# ended. If the pilot fails Slurm cancels the array, and the merge reports that the shards are missing.
set -eu
pilot=$(sbatch --parsable @folder@/pilot.sbatch)
pilot=${pilot%%;*}
echo "pilot for the temperature: job $pilot"
array=$(sbatch --parsable --dependency=afterok:"$pilot" --kill-on-invalid-dep=yes \\
  @folder@/estimate.sbatch)
"""

# afterany, not afterok: a task that exits with 4 because some images are unreadable is done; and the
# merge logs what is missing, where a job that waits for ever or was cancelled would log nothing.
_SUBMIT_MERGE = """\
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
