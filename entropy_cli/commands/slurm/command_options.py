"""The options of `estimate` or `evaluate` that are given to `slurm`: checked before a job runs."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from entropy_cli.input_options import check_evaluation, check_options, given_latents

COMMANDS = ("estimate", "evaluate")
# Options that can't be used here, by parameter name, and why.
RESERVED = {
    "shard": "the script assigns the shards",
    "state": "the script keeps the state in the folder of slurm's --output",
    "output": "the result goes into the folder of slurm's --output",
    "dry_run": "the jobs would compute nothing; run the command with it here",
}
RESERVED_WITH_ARRAY = {
    "save_tokens": "every shard would write the same file; run such shards by hand",
    "per_image": "every shard would write the same file; run such shards by hand",
    "report": "every shard would write the same file; make it of the result with entropy-cli report",
    "target_ci": "a shard does not know the precision of all shards together; use --limit",
}


def parse_command(words: list[str]) -> tuple[str, list[str]]:
    """Return the command of the jobs and its options: `estimate` unless the first word names another."""
    return (words[0], words[1:]) if words[0] in COMMANDS else (COMMANDS[0], words)


def parse_options(
    context: typer.Context, command: str, options: list[str], *, has_array: bool
) -> dict[str, Any]:
    """Parse a command's options with its own parser, so that errors show before the job runs."""
    reserved = RESERVED | RESERVED_WITH_ARRAY if has_array else RESERVED
    inner = _command_context(context, command, options)
    for name, why in reserved.items():
        source = inner.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = "--" + name.replace("_", "-")
            raise typer.BadParameter(f"can't be used here: {why}.", param_hint=option)
    if command == "evaluate":
        check_evaluation(inner)
    else:
        check_options(inner.params)
    return inner.params


def _command_context(context: typer.Context, command: str, options: list[str]) -> Any:  # noqa: ANN401 - typer's own
    group: Any = context.find_root()
    return group.command.commands[command].make_context(command, list(options), parent=group)


def check_inputs(
    context: typer.Context, command: str, options: list[str], parsed: dict[str, Any]
) -> None:
    """Open all that the jobs will read, by a dry run of the command on the CPU; --no-check skips it.

    Raises:
        EntropyCliError: what the command would raise before its work.
    """
    more = ["--dry-run", "--batch-size", "4", "--workers", "0"]
    if parsed["device"] != "cpu":  # the GPUs of the jobs are not here
        more += (
            ["--device", "cpu"] if parsed.get("latents") else ["--device", "cpu", "--precision", "fp32"]
        )
    with (
        contextlib.redirect_stdout(io.StringIO()),
        _command_context(context, command, [*options, *more]) as inner,
    ):
        inner.command.invoke(inner)


def pilot_images(parsed: dict[str, Any]) -> int | None:
    """Return how many images a temperature is to be fitted to, None if none is."""
    if not _fits_temperature(parsed):
        return None
    from entropy_cli.images.plan import BLOCK
    from entropy_cli.streaming.pilot import PILOT_BLOCKS

    return min(PILOT_BLOCKS * BLOCK, parsed["limit"] or PILOT_BLOCKS * BLOCK)


def _fits_temperature(parsed: dict[str, Any]) -> bool:
    """Return whether `auto` is among the temperatures that were given, or among the default ones."""
    if parsed["temperature_from"] is not None or parsed.get("tokens") is not None:
        return False
    if parsed["temperature"] is not None:
        return "auto" in parsed["temperature"]
    from entropy_cli.core.errors import EntropyCliError
    from entropy_cli.tokenizers.choices import choose_temperature
    from entropy_cli.tokenizers.latents import DEFAULTS, FAMILY
    from entropy_cli.tokenizers.registry import find_family
    from entropy_cli.tokenizers.settings import TokenizerSettings

    if "latents" in parsed and (latents := given_latents(parsed)) is not None:
        return "auto" in choose_temperature(latents["rule"], DEFAULTS, FAMILY).values
    settings = TokenizerSettings(*(parsed[name] for name in ("image_size", "patch_nums", "rule")))
    if "model" not in parsed:  # or they are the model's
        settings = replace(settings, weights=parsed["weights"])
    try:
        found = find_family(Path(parsed["ckpt"] or parsed["model"]), parsed["family"], settings)
        temperatures = found.describe().temperatures
        found.checkpoint.close()
    except EntropyCliError:
        return True  # perhaps it can be read where the jobs run; a pilot of fixed values changes nothing
    return "auto" in temperatures
