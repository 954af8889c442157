"""Options that give the floor of a loss, and the parsing of their values."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from entropy_cli.options import MOST_NATS, number

if TYPE_CHECKING:
    from entropy_cli.results.floors import Floor


FloorFile = Annotated[
    Path | None,
    typer.Option(
        "--floor",
        metavar="RESULT.json",
        help="Result of estimate or evaluate, whose floors and ceilings the loss is set against.",
    ),
]
FloorMean = Annotated[
    float | None,
    number(
        0,
        MOST_NATS,
        "Floor of the loss averaged over all tokens, in nats a token, in place of --floor.",
        "X",
    ),
]
FloorLast = Annotated[
    float | None,
    number(0, MOST_NATS, "Floor of the loss averaged over the final scale, in nats a token.", "X"),
]


def parse_floor(path: Path | None, mean: float | None, last: float | None) -> "Floor | None":
    """Return the floors of a result or those given as numbers; None without either.

    Raises:
        BadParameter: a number is given together with a result.
    """
    from entropy_cli.results.floors import floor_from_numbers, read_floor

    for option, value in (("--floor-mean", mean), ("--floor-last", last)):
        if value is not None and path is not None:
            raise typer.BadParameter("--floor has it already. Give one of them.", param_hint=option)
    if path is not None:
        return read_floor(path)
    return None if mean is None and last is None else floor_from_numbers(mean, last)
