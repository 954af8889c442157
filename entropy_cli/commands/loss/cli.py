"""`entropy-cli loss`."""

import logging
import shlex
from functools import partial
from typing import Annotated, Any

import typer

from entropy_cli.floor_options import FloorFile, FloorLast, FloorMean, parse_floor
from entropy_cli.options import (
    AsJson,
    Output,
    Overwrite,
    Sides,
    Units,
    WholeTable,
    keyed_file,
    number,
    parse_keyed_file,
    parse_sides,
    whole,
)
from entropy_cli.terminal import deliver, tqdm_bar

logger = logging.getLogger(__name__)


def _tensor_option(help_text: str) -> Any:
    return typer.Option(metavar="FILE[:KEY]", parser=parse_keyed_file, help=help_text)


def loss(
    context: typer.Context,
    logits: Annotated[
        str,
        _tensor_option(
            "Logits, (B, L, V) or (N, V), as .safetensors, .npy, .npz or .pt; KEY names a tensor."
        ),
    ],
    labels: Annotated[
        str | None, _tensor_option("Labels, integers (B, L) or (N,); optional with --targets.")
    ] = None,
    targets: Annotated[
        str | None,
        _tensor_option(
            "Soft labels q, probabilities in the shape of the logits: cross_entropy is then "
            "-sum q ln p = H(q) + KL(q||p); with --labels also label_cross_entropy."
        ),
    ] = None,
    shift: Annotated[
        bool,
        typer.Option(
            "--shift",
            help="Let the logits of position t predict label (and target) t+1, as in language models.",
        ),
    ] = False,
    ignore_index: Annotated[
        int,
        whole(-(2**63), 2**63 - 1, "Ignore tokens with this label."),
    ] = -100,
    patch_nums: Annotated[
        Sides | None,
        typer.Option(
            metavar="1,2,3,...",
            parser=parse_sides,
            help="Sides of the grids that make up a row of tokens, to also print the loss of each "
            "scale.",
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        number(0, 1, "Also print the loss with labels smoothed by EPS, and its floor.", "EPS"),
    ] = None,
    floor: FloorFile = None,
    floor_mean: FloorMean = None,
    floor_last: FloorLast = None,
    output: Output = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    units: Units = "nats",
    table: WholeTable = False,
) -> None:
    """Split a model's loss, from its logits and labels.

    Example: entropy-cli loss --logits logits.npy --labels labels.npy --patch-nums 1,2,3,4
    """
    refusals = {
        "--labels": (
            labels is None and targets is None,
            "is missing. Give --labels, --targets or both.",
        ),
        "--label-smoothing": (
            label_smoothing is not None and (labels is None or targets is not None),
            "only with --labels alone. Smooth --targets before.",
        ),
        "--shift": (
            shift and patch_nums is not None,
            "a scale predicts its own tokens, not the next. Leave --patch-nums or --shift out.",
        ),
        "--floor-last": (
            floor_last is not None and patch_nums is None,
            "needs --patch-nums to locate the tokens of the final scale.",
        ),
    }
    for option, (is_refused, reason) in refusals.items():
        if is_refused:
            raise typer.BadParameter(reason, param_hint=option)
    floors = parse_floor(floor, floor_mean, floor_last)

    from entropy_cli import __version__
    from entropy_cli.commands.loss.dump import InputFiles
    from entropy_cli.commands.loss.loss import loss as run
    from entropy_cli.commands.loss.table import render
    from entropy_cli.core.files import check_files, write_text

    options = {"--logits": logits, "--labels": labels, "--targets": targets}
    read = [(option, keyed_file(text)[0]) for option, text in options.items() if text is not None]
    check_files([*read, ("--floor", floor)], [("--output", output)], overwrite=overwrite)
    result = run(
        InputFiles(logits, labels, targets, shift, ignore_index, patch_nums),
        label_smoothing=label_smoothing,
        floor=floors,
        provenance={
            "command": shlex.join(["entropy-cli", *context.obj]),
            "tool_version": __version__,
        },
        bars=tqdm_bar,
    )
    text = result.to_json()
    for finding in result.findings if as_json else []:
        if finding.severity == "warning":
            logger.warning("%s", finding.message)
    write = [] if output is None else [partial(write_text, output, text + "\n")]
    deliver(text if as_json else render(result, units, whole=table), *write)
