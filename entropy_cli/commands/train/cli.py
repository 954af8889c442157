"""The command line of `entropy-cli train`."""

import shlex
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from entropy_cli.commands.train.recipe import PRESETS, Recipe
from entropy_cli.options import (
    MAX_FAILED,
    MOST_BATCH,
    MOST_CODES,
    MOST_WIDTH,
    MOST_WORKERS,
    AsJson,
    Device,
    MaxFailed,
    Sides,
    exit_code,
    list_parser,
    number,
    parse_sides,
    whole,
    whole_or_auto,
)
from entropy_cli.terminal import print_result, tqdm_bar
from entropy_cli.tokenizers.limits import MOST_PIXELS

MOST_STEPS = 10**9
HIGHEST = 1e12  # for weights and rates

if TYPE_CHECKING:
    from entropy_cli.commands.train.result import TrainResult


def _count(text: str, least: int = 1, metavar: str = "N", most: int = MOST_STEPS) -> Any:
    return whole(least, most, text, metavar)


def _number(text: str, most: float = HIGHEST) -> Any:
    return number(0, most, text)


def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR|TARS|synthetic",
            help="Folder or archives of images, or synthetic ones. val/ is held out if it is there, "
            "else a tenth of all.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for all output files.")
    ],
    preset: Annotated[
        Literal["tiny", "var"], typer.Option(help="Settings that the other options change one by one.")
    ] = "tiny",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the training in the --output folder, if there is one."),
    ] = False,
    steps: Annotated[int | None, _count("Number of optimizer steps.")] = None,
    batch_size: Annotated[
        int | None, _count("Images per step, over all processes.", most=MOST_BATCH)
    ] = None,
    image_size: Annotated[int | None, _count("Side of the images in pixels.", most=MOST_PIXELS)] = None,
    patch_nums: Annotated[
        Sides | None,
        typer.Option(
            metavar="1,2,3,...",
            parser=parse_sides,
            help="Side of each scale's grid, in tokens; default: by image size.",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, _count("Number of codes in the codebook.", 2, "V", MOST_CODES)
    ] = None,
    latent_dim: Annotated[
        int | None, _count("Number of dimensions of a code.", 1, "C", MOST_WIDTH)
    ] = None,
    width: Annotated[
        int | None, _count("Base number of channels, a multiple of 32.", 1, "CH", MOST_WIDTH)
    ] = None,
    width_mult: Annotated[
        Sides | None,
        typer.Option(
            metavar="1,1,2,...",
            parser=list_parser(1, 64, 12),
            help="Width of each level, in multiples of --width; each level but the last halves the "
            "size.",
        ),
    ] = None,
    blocks: Annotated[
        int | None, _count("Residual blocks per level; the decoder has one more.", most=100)
    ] = None,
    norm: Annotated[
        Literal["group", "batch"] | None,
        typer.Option(
            help="Norms of the convolutions. Batch norms are synchronized over processes; no published "
            "layout has them."
        ),
    ] = None,
    codebook: Annotated[
        Literal["ema", "gradient"] | None,
        typer.Option(help="Update codes by moving averages (ema) of their vectors, or by gradient."),
    ] = None,
    codebook_decay: Annotated[float | None, _number("Decay of those averages.", 1)] = None,
    init: Annotated[
        Literal["kmeans", "uniform"] | None,
        typer.Option(
            help="Initialize codes by k-means of residuals, or uniformly between -1/V and 1/V."
        ),
    ] = None,
    revive_every: Annotated[
        int | None,
        _count("Steps between restarts of dead codes, in the first 4/5 of the training; 0: never.", 0),
    ] = None,
    beta: Annotated[float | None, _number("Weight of the commitment loss.")] = None,
    l1: Annotated[float | None, _number("Weight of the absolute error.")] = None,
    l2: Annotated[float | None, _number("Weight of the squared error.")] = None,
    lr: Annotated[float | None, _number("Peak learning rate.")] = None,
    warmup: Annotated[int | None, _count("Steps of linear warm-up.", 0)] = None,
    schedule: Annotated[
        Literal["cosine", "staged"] | None,
        typer.Option(
            help="Learning rate after the warm-up: cosine, or a tenth at 2/3 and again at 8/9 of the "
            "steps."
        ),
    ] = None,
    final_lr: Annotated[
        float | None, _number("Final learning rate of cosine, as a share of --lr.", 1)
    ] = None,
    weight_decay: Annotated[float | None, _number("Weight decay of AdamW, for convolutions.")] = None,
    grad_clip: Annotated[float | None, _number("Maximum norm of the gradient; 0: no limit.")] = None,
    ema_decay: Annotated[
        float | None,
        _number("Decay of the averaged weights that are saved; 0: save the weights themselves.", 1),
    ] = None,
    grad_accum_steps: Annotated[
        int | None, _count("Number of micro-batches per step.", most=MOST_BATCH)
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"],
        typer.Option(
            help="Precision of all but the quantiser, which has fp32; auto: fp32 on a CPU, bf16 or "
            "fp16 on a GPU."
        ),
    ] = "auto",
    seed: Annotated[
        int | None,
        whole(0, 2**31 - 1, "Seed of the weights, codes, crops and the order of images."),
    ] = None,
    grad_checkpointing: Annotated[
        bool,
        typer.Option(
            "--grad-checkpointing",
            help="Recompute the activations of blocks in the backward pass: slower, with less memory.",
        ),
    ] = False,
    eval_every: Annotated[
        int | None, _count("Steps between evaluations and saves; default: a quarter of --steps.")
    ] = None,
    log_every: Annotated[int, _count("Steps between lines of metrics.jsonl.")] = 1,
    save_fp16: Annotated[
        bool, typer.Option("--save-fp16", help="Save the tokenizer in float16, half the size.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events to DIR/tensorboard.")
    ] = False,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        whole_or_auto(0, MOST_WORKERS, "Processes that decode images; 0: decode in this one."),
    ] = None,
    max_failed: MaxFailed = MAX_FAILED,
    as_json: AsJson = False,
) -> int:
    """Train a multi-scale VQ-VAE of VAR's layout on your own images.

    Example: entropy-cli train --data photos/ --output tokenizer/ --image-size 64 --steps 5000
    """
    from entropy_cli.commands.train.result import render
    from entropy_cli.commands.train.sizes import make_recipe
    from entropy_cli.commands.train.train import TrainConfig
    from entropy_cli.commands.train.train import train as run

    names = {field.name for field in fields(Recipe)} - {"preset", "precision"}
    overrides = {name: value for name, value in context.params.items() if name in names}
    config = TrainConfig(
        data=data,
        output=output,
        recipe=make_recipe(preset, overrides),
        precision=None if precision == "auto" else precision,
        command=shlex.join(["entropy-cli", *context.obj]),
        resume=resume,
        device=device,
        workers=workers,
        eval_every=eval_every,
        log_every=log_every,
        grad_checkpointing=grad_checkpointing,
        save_fp16=save_fp16,
        tensorboard=tensorboard,
    )

    def deliver(result: "TrainResult") -> None:
        print_result(result.to_json() if as_json else render(result))

    images = run(config, tqdm_bar, deliver)
    return exit_code(images["train"] + images["held_out"], images["failed"], max_failed)


def _show_defaults() -> None:
    """Add the values of the presets to the help of the options that change them."""
    for name, parameter in signature(train).parameters.items():
        values = [getattr(recipe, name, None) for recipe in PRESETS.values()]
        if parameter.default is None and None not in values and name != "patch_nums":
            shown = [",".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values]
            of_preset = [f"{preset} {value}" for preset, value in zip(PRESETS, shown, strict=True)]
            same = len(set(shown)) == 1
            option = parameter.annotation.__metadata__[0]
            option.help += f"  [default: {shown[0] if same else ', '.join(of_preset)}]"


_show_defaults()
