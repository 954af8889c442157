"""The command line of `entropy-cli slurm`."""

import hashlib
import json
import os
import re
import shlex
import sys
from operator import methodcaller
from pathlib import Path
from typing import Annotated, Any

import typer

from entropy_cli.input_options import given_latents
from entropy_cli.options import BadValue
from entropy_cli.terminal import print_result

# Options of `estimate` that can't be used here, by parameter name, and why.
RESERVED = {
    "shard": "the script assigns the shards",
    "state": "the script keeps the state in the folder of slurm's --output",
    "output": "the result goes into the folder of slurm's --output",
    "dry_run": "the jobs would compute nothing; run entropy-cli estimate with it here",
}
RESERVED_WITH_ARRAY = {
    "save_tokens": "every shard would write the same file; run such shards by hand",
    "target_ci": "a shard does not know the precision of all shards together; use --limit",
}
# Options of sbatch that the scripts set or rely on.
FIXED = (
    *("--array", "-a", "--nodes", "-N", "--ntasks", "-n", "--ntasks-per-node", "--output", "-o"),
    *("--dependency", "-d", "--signal", "--requeue", "--no-requeue", "--open-mode", "--parsable"),
    *("--kill-on-invalid-dep", "--wrap"),
)


def parse_line(text: str) -> str:
    """Check that a text has one line."""
    if not text.isprintable():
        raise BadValue(f"{text!r}: expected one line of text.")
    return text


def parse_time(text: str) -> str:
    """Check that a time limit is one of sbatch's, and long enough to save before it."""
    from entropy_cli.commands.slurm.script import LEAST_MINUTES, WARNING_S, minutes

    try:
        long_enough = minutes(text) >= LEAST_MINUTES
    except ValueError as error:
        raise BadValue(f"{text}: expected minutes, H:M:S, D-H or D-H:M:S, such as 4:00:00.") from error
    if long_enough:
        return text
    raise BadValue(
        f"{text}: expected {LEAST_MINUTES} minutes or more, because a job stops to save "
        f"{WARNING_S // 60} or more before its limit."
    )


def parse_sbatch(text: str) -> str:
    """Check that an option of sbatch is none that the scripts set."""
    if not text.startswith("-") or not text.isprintable():
        raise BadValue(f"{text!r}: expected an option of sbatch, such as --qos=long.")
    name = re.split("[= ]", text)[0] if text.startswith("--") else text[:2]
    # sbatch accepts abbreviated long names.
    if any(fixed.startswith(name) for fixed in FIXED):
        raise BadValue(f"{text}: is set by this command. Leave it out.")
    return text


def slurm(
    context: typer.Context,
    options: Annotated[
        list[str],
        typer.Argument(metavar="OPTIONS OF ESTIMATE", help="After --, as for entropy-cli estimate."),
    ],
    array: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="An array of N jobs, each a shard, a job that merges, and before them, where the "
            "temperature is fitted, one that fits it.",
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="One job on K nodes, with torchrun.")
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
        str | None, typer.Option(metavar="NAME", parser=parse_line, help="Slurm partition.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            parser=parse_time,
            help="Time limit as for sbatch; a job that reaches it saves, and resumes.",
        ),
    ] = None,
    cpus_per_task: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cores for each shard, or on each node.")
    ] = None,
    gpus: Annotated[
        int, typer.Option(min=0, metavar="N", help="GPUs on each node; a shard uses at most one.")
    ] = 0,
    mem: Annotated[
        str | None, typer.Option(metavar="SIZE", parser=parse_line, help="Memory on each node.")
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            parser=parse_sbatch,
            help="Another option of sbatch, as --sbatch=--qos=long; repeatable.",
        ),
    ] = None,
) -> None:
    """Write the scripts that run `estimate` on a Slurm cluster.

    A job that is preempted or out of time saves, is requeued, and resumes. Give the number of shards
    or of nodes, then --, then the options of estimate.

    Example: entropy-cli slurm --array 8 --time 4:00:00 -- --data imagenet/ --ckpt vae.pth
    """
    from entropy_cli.commands.slurm.script import Job, array_scripts, node_scripts

    if (array is None) == (nodes is None):
        raise typer.BadParameter(
            "expected exactly one of the two. Give one.", param_hint="--array / --nodes"
        )
    if array is not None and gpus > 1:
        raise typer.BadParameter(
            f"{gpus}: a shard uses one GPU. Give more shards, or --nodes.", param_hint="--gpus"
        )
    reserved = RESERVED | RESERVED_WITH_ARRAY if nodes is None else RESERVED
    parsed = _parse_estimate_options(context, options, reserved)
    # The folder is the same for the same options, so that the work is resumed there.
    source = Path(parsed["ckpt"] or parsed["latents"].partition(":")[0])
    work = hashlib.sha256(json.dumps([options, array, nodes]).encode()).hexdigest()[:6]
    folder = output or Path(f"slurm-{source.stem}-{work}")
    if not str(folder.absolute()).isprintable():
        raise typer.BadParameter(
            f"{str(folder.absolute())!r}: expected one line of text.", param_hint="--output"
        )
    job = Job(
        python=sys.executable,
        options=tuple(options),
        workdir=Path.cwd(),
        folder=folder.absolute(),
        parts=array or nodes or 1,
        pilot_images=None if array is None else _pilot_images(parsed),
        partition=partition,
        time=time,
        cpus_per_task=cpus_per_task,
        mem=mem,
        gpus=gpus,
        others=tuple(sbatch or []),
    )
    _write(folder, array_scripts(job) if nodes is None else node_scripts(job))
    pilot = "" if job.pilot_images is None else "a pilot for the temperature, "
    jobs = f"{pilot}{array} shards and their merge" if nodes is None else f"one job on {nodes} nodes"
    print_result(
        f"Wrote {folder}/: {jobs}; the result will be {folder / 'result.json'}. To submit:\n\n"
        f"bash {shlex.quote(str(folder / 'submit.sh'))}"
    )


def _parse_estimate_options(
    context: typer.Context, options: list[str], reserved: dict[str, str]
) -> dict[str, Any]:
    """Parse estimate's options with estimate's own parser, so that errors show before the job runs."""
    group: Any = context.find_root()
    inner = group.command.commands["estimate"].make_context("estimate", list(options), parent=group)
    for name, why in reserved.items():
        source = inner.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = "--" + name.replace("_", "-")
            raise typer.BadParameter(f"can't be used here: {why}.", param_hint=option)
    given_latents(inner.params)
    return inner.params


def _pilot_images(parsed: dict[str, Any]) -> int | None:
    """Return how many images a temperature is to be fitted to, None if none is."""
    if not _fits_temperature(parsed):
        return None
    from entropy_cli.images.plan import BLOCK
    from entropy_cli.streaming.pilot import PILOT_BLOCKS

    return min(PILOT_BLOCKS * BLOCK, parsed["limit"] or PILOT_BLOCKS * BLOCK)


def _fits_temperature(parsed: dict[str, Any]) -> bool:
    """Return whether `auto` is among the temperatures that were given, or among the default ones."""
    if parsed["temperature_from"] is not None:
        return False
    if parsed["temperature"] is not None:
        return "auto" in parsed["temperature"]
    from entropy_cli.core.errors import EntropyCliError
    from entropy_cli.tokenizers.family import choose_temperature
    from entropy_cli.tokenizers.latents import DEFAULTS, FAMILY
    from entropy_cli.tokenizers.registry import find_family
    from entropy_cli.tokenizers.settings import TokenizerSettings

    if (latents := given_latents(parsed)) is not None:
        return "auto" in choose_temperature(latents["rule"], DEFAULTS, FAMILY).values
    names = ("image_size", "patch_nums", "rule", "weights")
    settings = TokenizerSettings(*(parsed[name] for name in names))
    try:
        found = find_family(Path(parsed["ckpt"]), parsed["family"], settings)
        temperatures = found.describe().temperatures
        found.checkpoint.close()
    except EntropyCliError:
        return True  # perhaps it can be read where the jobs run; a pilot of fixed values changes nothing
    return "auto" in temperatures


def _write(folder: Path, scripts: dict[str, str]) -> None:
    from entropy_cli.core.errors import ResultError
    from entropy_cli.core.files import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(
            f"--output {folder}: can't be created: {error.strerror}. Give another folder."
        ) from error
    for name, text in scripts.items():
        write_atomically(folder / name, methodcaller("write_bytes", os.fsencode(text)), announced=False)
