"""`entropy-cli merge`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from entropy_cli.options import (
    MAX_FAILED,
    AsJson,
    Explain,
    MaxFailed,
    Output,
    Overwrite,
    Units,
    WholeTable,
    exit_code,
)
from entropy_cli.terminal import deliver, tqdm_bar


def merge(
    context: typer.Context,
    states: Annotated[list[Path], typer.Argument(metavar="STATE...", help="State files of the shards.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept states that lack some images of the whole run.")
    ] = False,
    ladder: Annotated[
        bool,
        typer.Option("--ladder", help="Also bound the loss of the hard tokens that all shards kept."),
    ] = False,
    output: Output = None,
    overwrite: Overwrite = False,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the sum as a state, to resume from or to merge again."
        ),
    ] = None,
    max_failed: MaxFailed = MAX_FAILED,
    as_json: AsJson = False,
    table: WholeTable = False,
    explain: Explain = False,
    units: Units = "nats",
) -> int:
    """Add up the states of shards to the result of the whole run.

    Example: entropy-cli merge shard-*.state -o result.json
    """
    from entropy_cli.core.files import check_files
    from entropy_cli.results.text import render
    from entropy_cli.runs.merge import merge as run
    from entropy_cli.streaming.state_file import locked, save

    written = [("--output", output), ("--state", state)]
    check_files([("STATE", given) for given in states], written, overwrite=overwrite)
    command = shlex.join(["entropy-cli", *context.obj])
    merged = run(states, partial=partial, command=command, bars=tqdm_bar, with_ladder=ladder)
    result = merged.result

    def write() -> None:
        if state is not None:
            with locked(state):
                save(state, merged.state)
        if output is not None:
            result.write(output)

    text = result.to_json() if as_json else render(result, units, table=table, explain=explain)
    deliver(text, write)
    progress = merged.state.progress
    return exit_code(progress.images, len(progress.failed), max_failed)
