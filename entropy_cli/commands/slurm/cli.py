"""The command line of `entropy-cli slurm`."""

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from entropy_cli.commands.slurm.command_options import (
    check_inputs,
    parse_command,
    parse_options,
    pilot_images,
)
from entropy_cli.commands.slurm.sbatch_values import (
    NOT_FOR_LOGS,
    for_logs,
    gpu_count,
    parse_gpus,
    parse_launcher,
    parse_line,
    parse_log,
    parse_sbatch,
    parse_time,
    read_prelude,
)
from entropy_cli.commands.slurm.script_folder import write_scripts
from entropy_cli.core.table import wrapped
from entropy_cli.options import whole
from entropy_cli.terminal import print_result

MOST_JOBS = 10**5


def slurm(
    context: typer.Context,
    options: Annotated[
        list[str],
        typer.Argument(
            metavar="[estimate|evaluate] -- OPTIONS",
            help="The command of the jobs, default estimate; after --, its options.",
        ),
    ],
    array: Annotated[
        int | None,
        whole(
            1,
            MOST_JOBS,
            "Write an array of N jobs, each a shard, a job that merges them, and, where the "
            "temperature is fitted, one before them that fits it.",
        ),
    ] = None,
    throttle: Annotated[
        int | None, whole(1, MOST_JOBS, "Most jobs of the array that run at once; default: all.")
    ] = None,
    nodes: Annotated[
        int | None, whole(1, MOST_JOBS, "Write one job on K nodes, with torchrun.", "K")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            *("--output", "-o"),
            metavar="DIR",
            help="Folder for scripts, states, logs and the result; default: slurm-CKPT-HASH.",
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(metavar="NAME", parser=parse_line, help="Slurm partition; default: the cluster's."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            parser=parse_time,
            help="Time limit, as for sbatch; a job that reaches it saves and resumes.",
        ),
    ] = None,
    cpus_per_task: Annotated[
        int | None, whole(1, 4096, "Cores for each shard, or on each node; default: the cluster's.")
    ] = None,
    gpus: Annotated[
        str,
        typer.Option(
            metavar="[TYPE:]N",
            parser=parse_gpus,
            help="GPUs on each node, such as a100:1; a shard uses at most one.",
        ),
    ] = "0",
    mem: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            parser=parse_line,
            help="Memory on each node, such as 32G; default: the cluster's.",
        ),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            parser=parse_sbatch,
            help="Another option of sbatch, such as --sbatch=--qos=long; can be given again.",
        ),
    ] = None,
    merge_sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            parser=parse_sbatch,
            help="An option of sbatch for the merge alone, which has one core, 4 GB, 30 minutes and no "
            "GPU, such as --merge-sbatch=--partition=cpu; can be given again.",
        ),
    ] = None,
    prelude: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Lines of bash that each script runs first, such as module load."
        ),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            parser=parse_launcher,
            help="Words before the interpreter, such as 'srun' or 'apptainer exec --nv vq.sif'.",
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", parser=parse_line, help="Python interpreter of the jobs; default: this one."
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            parser=parse_log,
            help="Names of the logs, as for sbatch, such as logs/%x-%A_%a.out; default: in the folder.",
        ),
    ] = None,
    no_check: Annotated[
        bool,
        typer.Option(
            "--no-check", help="Do not open the data and the checkpoint, which may be elsewhere."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace scripts that were written with other settings.")
    ] = False,
) -> None:
    """Write the scripts of a run on a Slurm cluster.

    The run is one of `estimate` or `evaluate`. A job that is preempted or out of time saves, is
    requeued, and resumes. Give the number of shards or of nodes, then --, then the options of the
    command.

    Example: entropy-cli slurm --array 8 --time 4:00:00 -- --data imagenet/ --ckpt vae.pth
    """
    from entropy_cli.commands.slurm.script import Job, array_scripts, node_scripts

    words = tuple(shlex.split(launcher or ""))
    _check_together(array, nodes, throttle, merge_sbatch, gpus, words)
    command, own = parse_command(options)
    parsed = parse_options(context, command, own, has_array=nodes is None)
    # The folder is the same for the same options, so that the work is resumed there.
    source = Path(parsed.get("model") or parsed["ckpt"] or parsed["latents"].partition(":")[0])
    work = hashlib.sha256(json.dumps([options, array, nodes]).encode()).hexdigest()[:6]
    folder = output or Path(f"slurm-{source.stem}-{work}")
    if not for_logs(folder):
        raise typer.BadParameter(f"{str(folder.absolute())!r}: {NOT_FOR_LOGS}", param_hint="--output")
    job = Job(
        python=python or sys.executable,
        command=command,
        options=tuple(own),
        workdir=Path.cwd(),
        folder=folder.absolute(),
        parts=array or nodes or 1,
        launcher=words,
        prelude="" if prelude is None else read_prelude(prelude),
        log=log,
        throttle=throttle,
        pilot_images=None if array is None else pilot_images(parsed),
        partition=partition,
        time=time,
        cpus_per_task=cpus_per_task,
        mem=mem,
        gpus=gpus,
        others=tuple(sbatch or []),
        merge_others=tuple(merge_sbatch or []),
        max_failed=parsed["max_failed"],
        with_ladder=parsed["ladder"],
    )
    if not no_check:
        check_inputs(context, command, own, parsed)
    scripts = array_scripts(job) if nodes is None else node_scripts(job)
    write_scripts(folder, scripts, log, overwrite=overwrite)
    pilot = "" if job.pilot_images is None else "a pilot for the temperature, "
    jobs = f"{pilot}{array} shards and their merge" if nodes is None else f"one job on {nodes} nodes"
    written = f"Wrote {folder}/: {jobs}; the result will be {folder / 'result.json'}. To submit:"
    print_result(f"{wrapped('', written)}\n\nbash {shlex.quote(str(folder / 'submit.sh'))}")


def _check_together(
    array: int | None,
    nodes: int | None,
    throttle: int | None,
    merge_sbatch: list[str] | None,
    gpus: str,
    launcher: tuple[str, ...],
) -> None:
    """Raise BadParameter for options that don't go together."""
    for option, wrong, words in (
        ("--array / --nodes", (array is None) == (nodes is None), "expected exactly one of the two"),
        ("--throttle", nodes is not None and throttle is not None, "is for an --array"),
        ("--merge-sbatch", nodes is not None and bool(merge_sbatch), "is for an --array"),
        ("--gpus", array is not None and gpu_count(gpus) > 1, f"{gpus}: a shard uses one GPU"),
        ("--launcher", nodes is not None and launcher[:1] == ("srun",), "srun is there with --nodes"),
    ):
        if wrong:
            raise typer.BadParameter(f"{words}.", param_hint=option)
