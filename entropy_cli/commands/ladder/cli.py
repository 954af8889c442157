"""The command line of `entropy-cli ladder`."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from entropy_cli.input_options import files_read
from entropy_cli.options import (
    MOST_IMAGES,
    AsJson,
    Checkpoint,
    Output,
    Overwrite,
    Units,
    WholeTable,
    number,
    number_parser,
    whole,
)
from entropy_cli.terminal import deliver, tqdm_bar

MOST_STEPS = 10**7


def ladder(
    context_: typer.Context,
    tokens: Annotated[
        Path, typer.Option(metavar="FILE.npy", help="Hard tokens, from estimate --save-tokens.")
    ],
    result: Annotated[
        Path, typer.Option(metavar="RESULT.json", help="The result of the run that saved the --tokens.")
    ],
    context: Annotated[
        Literal["auto", "var", "raster", "depth", "none"],
        typer.Option(
            help="What the predictors see beside place and class: var, tokens of coarser scales; "
            "raster, the tokens before; depth, the depths before; auto goes by the scales."
        ),
    ] = "auto",
    cluster: Annotated[
        Literal["image", "folder"],
        typer.Option(
            help="What is kept within one fold: each image; or each folder, if its images are alike."
        ),
    ] = "image",
    classes: Annotated[
        Literal["auto", "none"],
        typer.Option(help="Classes of the images: auto takes the folders, if there are any."),
    ] = "auto",
    limit: Annotated[
        int | None,
        whole(1, MOST_IMAGES, "Number of images, a seeded sample; default: at most 50,000."),
    ] = None,
    probe: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS|off",
            parser=number_parser(1, MOST_STEPS, word="off"),
            show_default=False,
            help="Also train a small network for at most so many steps; 2000 is a start.  [default: "
            "off]",
        ),
    ] = None,
    probe_seconds: Annotated[
        float | None,
        number(
            1,
            1e7,
            "Longest time for the probe, in seconds; default: none. A run that it ends can't be "
            "repeated exactly.",
            "S",
        ),
    ] = None,
    ckpt: Checkpoint = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="LOSS.json", help="JSON of `loss`: a model's loss, to be shown beside the rungs."
        ),
    ] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    result_output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the RESULT.json with the ladder in it, for report, monitor and loss.",
        ),
    ] = None,
    as_json: AsJson = False,
    table: WholeTable = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the weights, and what is refused and why.")
    ] = False,
    units: Units = "nats",
) -> None:
    """Bound the loss of hard tokens by held-out predictors.

    Example: entropy-cli ladder --tokens tokens.npy --result result.json
    """
    from entropy_cli.commands.ladder.ladder import InputFiles
    from entropy_cli.commands.ladder.ladder import ladder as run
    from entropy_cli.core.files import check_files, write_text
    from entropy_cli.results.ladder import render, to_json
    from entropy_cli.streaming.ladder import LadderOptions
    from entropy_cli.streaming.token_file import paths_file

    for option, given in (("--ckpt", ckpt), ("--probe-seconds", probe_seconds)):
        if given is not None and probe is None:
            raise typer.BadParameter("is for the probe. Give --probe STEPS too.", param_hint=option)
    checkpoint = files_read({"latents": None, "codebook": None, "ckpt": ckpt})
    tables = [("--tokens", tokens), ("--tokens", paths_file(tokens))]
    check_files(
        [*tables, ("--result", result), *checkpoint, ("--model", model)],
        [("--output", output), ("--result-output", result_output)],
        overwrite=overwrite,
    )
    options = LadderOptions(context, cluster, classes == "auto", limit, probe, probe_seconds)
    command = shlex.join(["entropy-cli", *context_.obj])
    found, with_ladder = run(InputFiles(tokens, result, ckpt, model), options, command, tqdm_bar)
    text = to_json(found)
    writes: list[Callable[[], object]] = []
    if output is not None:
        writes.append(lambda: write_text(output, text + "\n"))
    if result_output is not None:
        writes.append(lambda: with_ladder.write(result_output))
    deliver(text if as_json else render(found, units, table=table, explain=explain), *writes)
