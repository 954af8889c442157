"""The command line of `entropy-cli inspect`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from entropy_cli.input_options import parse_levels
from entropy_cli.options import (
    MOST_HEADS,
    AsJson,
    Family,
    ImageSize,
    PatchNums,
    Sides,
    Weights,
    WholeTable,
    whole,
)
from entropy_cli.terminal import print_result, tqdm_bar


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint, a folder that holds one, or an address such as hf://ORG/REPO/FILE.",
        ),
    ],
    family: Family = "auto",
    weights: Weights = None,
    patch_nums: PatchNums = None,
    image_size: ImageSize = None,
    rule: Annotated[
        Literal["l2", "cosine", "dot"] | None,
        typer.Option(help="Rule by which the nearest code is found; default: the family's."),
    ] = None,
    levels: Annotated[
        Sides | None,
        typer.Option(
            metavar="8,5,5,...",
            parser=parse_levels,
            help="Number of levels of each dimension (FSQ), for a cosmos checkpoint that does not hold "
            "them.",
        ),
    ] = None,
    heads: Annotated[
        int | None,
        whole(
            1, MOST_HEADS, "Number of a generator's attention heads, where its file does not show it."
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Also hash the file, read all weights and build the tokenizer."),
    ] = False,
    table: WholeTable = False,
    as_json: AsJson = False,
) -> None:
    """Describe a checkpoint without running it.

    Example: entropy-cli inspect vq.pt
    """
    from entropy_cli.commands.inspect.inspect import inspect as run
    from entropy_cli.commands.inspect.table import render
    from entropy_cli.core.errors import CheckpointError
    from entropy_cli.tokenizers.settings import TokenizerSettings

    settings = TokenizerSettings(image_size, patch_nums, rule, weights, levels=levels)
    found = run(file, family, settings, tqdm_bar, full=full, heads=heads)
    print_result(found.to_json() if as_json else render(found, full=table))
    if found.problem is not None:
        raise CheckpointError(found.problem)
