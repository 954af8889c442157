"""`entropy-cli fit`."""

import contextlib
import os
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from entropy_cli.options import (
    MOST_NATS,
    MOST_SEED,
    AsJson,
    BadValue,
    Overwrite,
    number_parser,
    suffix_parser,
    whole,
)
from entropy_cli.terminal import deliver, tqdm_bar

IMAGES = (".png", ".svg", ".pdf")
EXPECTED = f"a number from 0 to {MOST_NATS:,}, or the result of an estimate"


def parse_floor(text: str) -> float | Path:
    """Parse a given E, or the path of a result to compare with."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= MOST_NATS:
            return value
        raise BadValue(f"{text}: expected {EXPECTED}.")
    if Path(text).is_file() or Path(text).is_fifo():
        return Path(text)
    raise BadValue(f"{text}: expected {EXPECTED}; there is no such file.")


def parse_resamples(text: str) -> int:
    """Parse a number of resamples, which have a spread if there are any."""
    resamples: int = number_parser(0, 10**6)(text)
    if resamples == 1:
        raise BadValue("1: expected 0 or at least 2.")
    return resamples


def fit(
    context: typer.Context,
    points: Annotated[
        list[Path],
        typer.Argument(
            metavar="POINTS.csv|RESULT.json...",
            help="A table with a header and a line for each trained model, or results of evaluate.",
        ),
    ],
    form: Annotated[
        Literal["power", "chinchilla"] | None,
        typer.Option(
            help="L = E + (N0/N)^alpha, or L = E + A/N^alpha + B/D^beta; default: chinchilla where the "
            "table has data sizes or FLOP, else power."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of parameters N, such as 310M or 2.0B; default: found by its name.",
        ),
    ] = None,
    data_size: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of training tokens D; default: found by its name."),
    ] = None,
    flop: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of training FLOP, from which D = FLOP/(6N)."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the final loss, in nats a token; default: found by its name. For results of "
            "evaluate, the average: token_weighted (default), over_scales or last_scale.",
        ),
    ] = None,
    floor: Annotated[
        Any,  # a number, a path or None
        typer.Option(
            metavar="X|RESULT.json",
            parser=parse_floor,
            help="A number, in nats a token, at which E is held; or a result of estimate, to compare "
            "the fitted E with.",
        ),
    ] = None,
    floor_average: Annotated[
        Literal["mean", "last"] | None,
        typer.Option(
            help="Average of the result to compare: over all tokens (default) or over the final scale."
        ),
    ] = None,
    drop_largest: Annotated[int, whole(0, 10**9, "Leave out the points with the N largest losses.")] = 0,
    resamples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            metavar="N",
            parser=parse_resamples,
            help="Number of resamples; default: 500, with at most 30 points 100, with at most 8 none.",
        ),
    ] = None,
    seed: Annotated[int, whole(0, MOST_SEED, "Seed of the bootstrap.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=suffix_parser(".json", *IMAGES),
            help="Write the result (.json) or an image (.png, .svg, .pdf).",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit a scaling law to the losses of several models.

    Example: entropy-cli fit models.csv --size params --loss val_loss -o law.png
    """
    if data_size is not None and flop is not None:
        raise typer.BadParameter(
            "not with --flop, from which D is computed. Give one of them.", param_hint="--data-size"
        )
    if form == "power" and (data_size, flop) != (None, None):
        raise typer.BadParameter("power has no data size. Use chinchilla.", param_hint="--form")
    fixed, result_of_estimate = (None, floor) if isinstance(floor, Path) else (floor, None)
    if floor_average is not None and result_of_estimate is None:
        raise typer.BadParameter("only with --floor RESULT.json.", param_hint="--floor-average")
    # Read when numpy is imported: on several threads such small matrices take ten times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from entropy_cli.commands.fit.fit import FitConfig
    from entropy_cli.commands.fit.fit import fit as run
    from entropy_cli.commands.fit.result import render
    from entropy_cli.core.files import check_files, write_text

    read = [*(("POINTS.csv", file) for file in points), ("--floor", result_of_estimate)]
    check_files(read, [("--output", output)], overwrite=overwrite)
    image = output if output is not None and output.suffix.lower() in IMAGES else None
    if image is not None:
        from entropy_cli.commands.fit.figure import draw
        from entropy_cli.core.figures import styled, write_figure

        styled()  # fails now, not after the fit, if matplotlib is missing
    config = FitConfig(
        sources=tuple(points),
        form=form or (None if (data_size, flop) == (None, None) else "chinchilla"),
        columns={"size": size, "data size": data_size, "FLOP": flop, "loss": loss},
        drop_largest=drop_largest,
        fixed_E=fixed,
        floor=result_of_estimate,
        average=floor_average or "mean",
        resamples=resamples,
        seed=seed,
        command=shlex.join(["entropy-cli", *context.obj]),
    )
    result, kept = run(config, tqdm_bar)
    text = result.to_json()

    def write() -> None:
        if image is not None:
            write_figure(draw(result, kept), image)
        elif output is not None:
            write_text(output, text + "\n")

    deliver(text if as_json else render(result), write)
