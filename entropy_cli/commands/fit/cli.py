"""`entropy-cli fit`."""

import contextlib
import math
import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from entropy_cli.options import AsJson, parse_output, print_result, tqdm_bar

IMAGES = (".png", ".svg", ".pdf")
EXPECTED = "a number from 0, or the result of an estimate"


def fit(
    context: typer.Context,
    points: Annotated[
        Path,
        typer.Argument(
            metavar="POINTS.csv", help="A table with a header and a line for each trained model."
        ),
    ],
    form: Annotated[
        Literal["power", "chinchilla"] | None,
        typer.Option(
            help="L = E + (N0/N)^alpha, or L = E + A/N^alpha + B/D^beta; default: power, or chinchilla "
            "with --data-size or --flop."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of parameters N, such as 310M or 2.0B; default by name."
        ),
    ] = None,
    data_size: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of training tokens D.")
    ] = None,
    flop: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of training FLOP, from which D = FLOP/6N."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of the final loss, nats per token; default by name."
        ),
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(
            metavar="X|RESULT.json",
            help="A number fixes E; a result of estimate is compared with the fitted E.",
        ),
    ] = None,
    floor_average: Annotated[
        Literal["mean", "last"] | None,
        typer.Option(
            help="Average of the result to compare: over all tokens (default) or over the final scale."
        ),
    ] = None,
    drop_largest: Annotated[
        int, typer.Option(min=0, metavar="N", help="Leave out the points with the N largest losses.")
    ] = 0,
    resamples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            min=0,
            metavar="N",
            help="Number of resamples; default 500, up to 30 points 100, up to 8 none.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the bootstrap.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the result (.json) or an image (.png, .svg, .pdf).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a scaling law to the losses of several models, and extrapolate to infinite size.

    Example: entropy-cli fit models.csv --size params --loss val_loss -o law.png
    """
    if data_size is not None and flop is not None:
        raise typer.BadParameter(
            "not with --flop, from which D is computed. Give one of them.", param_hint="--data-size"
        )
    if form == "power" and (data_size, flop) != (None, None):
        raise typer.BadParameter("power has no data size. Use chinchilla.", param_hint="--form")
    if resamples == 1:
        raise typer.BadParameter("1: expected 0 or at least 2.", param_hint="--bootstrap")
    fixed, result_of_estimate = _floor(floor)
    if floor_average is not None and result_of_estimate is None:
        raise typer.BadParameter("only with --floor RESULT.json.", param_hint="--floor-average")
    parse_output(output, (".json", *IMAGES), "--output")
    # Read when numpy is imported: on several threads such small matrices take ten times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from entropy_cli.commands.fit.fit import FitConfig
    from entropy_cli.commands.fit.fit import fit as run
    from entropy_cli.commands.fit.points import Columns
    from entropy_cli.commands.fit.result import render
    from entropy_cli.core.files import check_files, write_atomically

    read = [("POINTS.csv", points), ("--floor", result_of_estimate)]
    check_files(read, [("--output", output)])
    image = output if output is not None and output.suffix.lower() in IMAGES else None
    if image is not None:
        from entropy_cli.commands.fit.figure import draw
        from entropy_cli.core.figures import styled, write_figure

        styled()  # fails now, not after the fit, if matplotlib is missing
    config = FitConfig(
        table=points,
        form=form or ("power" if (data_size, flop) == (None, None) else "chinchilla"),
        columns=Columns(size, data_size, flop, loss),
        drop_largest=drop_largest,
        fixed_E=fixed,
        floor=result_of_estimate,
        average=floor_average or "mean",
        resamples=resamples,
        seed=seed,
        command=shlex.join(["entropy-cli", *context.obj]),
    )
    found = run(config, tqdm_bar)
    text = found.result.to_json()
    if image is not None:
        write_figure(draw(found.result, found.points), image)
    elif output is not None:
        write_atomically(output, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    print_result(text if as_json else render(found.result))


def _floor(text: str | None) -> tuple[float | None, Path | None]:
    """Parse --floor: a given E, or the path of a result to compare with."""
    if text is None:
        return None, None
    with contextlib.suppress(ValueError):
        value = float(text)
        if not (math.isfinite(value) and value >= 0):
            raise typer.BadParameter(f"{text}: expected {EXPECTED}.", param_hint="--floor")
        return value, None
    if not (Path(text).is_file() or Path(text).is_fifo()):
        raise typer.BadParameter(
            f"{text}: expected {EXPECTED}; there is no such file.", param_hint="--floor"
        )
    return None, Path(text)
