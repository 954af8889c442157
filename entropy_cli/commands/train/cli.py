"""`entropy-cli train`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from entropy_cli.options import (
    MAX_FAILED,
    AsJson,
    Device,
    MaxFailed,
    exit_code,
    parse_count,
    parse_device,
    parse_patch_nums,
    print_result,
    tqdm_bar,
)

HIGHEST = 1e12  # of weights and rates: infinity is no number to go on with

if TYPE_CHECKING:
    from entropy_cli.commands.train.result import TrainResult


def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR|TARS|synthetic",
            help="Images, or procedural pictures. val/ is held out if it is there, else a tenth.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for everything that it writes.")
    ],
    preset: Annotated[
        Literal["tiny", "var"], typer.Option(help="The default of every option below.")
    ] = "tiny",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what DIR holds, if it holds a training.")
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of the optimizer.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images in a step, of all processes together."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Pixels on a side.")] = None,
    patch_nums: Annotated[
        str | None,
        typer.Option(metavar="1,2,3,...", help="Side of each scale's grid; default by image size."),
    ] = None,
    vocab_size: Annotated[int | None, typer.Option(min=2, metavar="V", help="Codes.")] = None,
    latent_dim: Annotated[
        int | None, typer.Option(min=1, metavar="C", help="Numbers in a code.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, metavar="CH", help="Channels, a multiple of 32.")
    ] = None,
    width_mult: Annotated[
        str | None,
        typer.Option(metavar="1,1,2,...", help="Of each level; each but the last halves the size."),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each level; the decoder has one more.")
    ] = None,
    norm: Annotated[
        Literal["group", "batch"] | None,
        typer.Option(help="Batch norms see all processes' pictures, and are in no published layout."),
    ] = None,
    codebook: Annotated[
        Literal["ema", "gradient"] | None,
        typer.Option(help="Codes as moving averages of the vectors nearest to them, or trained."),
    ] = None,
    codebook_decay: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="F", help="Of the moving averages.")
    ] = None,
    init: Annotated[
        Literal["kmeans", "uniform"] | None,
        typer.Option(help="Codes begin as k-means of the first residuals, or uniform in +-1/V."),
    ] = None,
    revive_every: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Steps between revivals of dead codes, until 4/5; 0 for never."
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(min=0, max=HIGHEST, metavar="F", help="Weight of the commitment loss."),
    ] = None,
    l1: Annotated[
        float | None, typer.Option(min=0, max=HIGHEST, metavar="F", help="Weight of the absolute error.")
    ] = None,
    l2: Annotated[
        float | None, typer.Option(min=0, max=HIGHEST, metavar="F", help="Weight of the squared error.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(min=0, max=HIGHEST, metavar="F", help="Learning rate at its highest.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Steps in which it grows.")
    ] = None,
    schedule: Annotated[
        Literal["cosine", "staged"] | None,
        typer.Option(help="Then: cosine, or a tenth at 2/3 and again at 8/9 of the steps."),
    ] = None,
    final_lr: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="F", help="Where cosine ends, as a share of --lr."),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, max=HIGHEST, metavar="F", help="Of convolutions, by AdamW.")
    ] = None,
    grad_clip: Annotated[
        float | None,
        typer.Option(min=0, max=HIGHEST, metavar="F", help="Largest norm of the gradient; 0 for any."),
    ] = None,
    ema_decay: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="F", help="Decay of the average of weights that is saved; 0 for none."
        ),
    ] = None,
    grad_accum_steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Parts that a batch is computed in.")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"],
        typer.Option(help="Of all but the quantiser; auto: fp32 on a CPU, bf16 or fp16 on a GPU."),
    ] = "auto",
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, metavar="N", help="Of weights, codes, crops and order."),
    ] = None,
    grad_checkpointing: Annotated[
        bool,
        typer.Option("--grad-checkpointing", help="Keep no activations of blocks: slower, less memory."),
    ] = False,
    eval_every: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Steps between evaluations and saves; default a quarter."),
    ] = None,
    log_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps between lines of metrics.jsonl.")
    ] = 1,
    save_fp16: Annotated[
        bool, typer.Option("--save-fp16", help="Save the tokenizer in float16, half the size.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write DIR/tensorboard too; an extra.")
    ] = False,
    device: Device = "auto",
    workers: Annotated[
        str, typer.Option(metavar="N|auto", help="Processes that decode images; 0 for none.")
    ] = "auto",
    max_failed: MaxFailed = MAX_FAILED,
    as_json: AsJson = False,
) -> int:
    """Train a multi-scale VQ-VAE of VAR's layout on your own images.

    Example: entropy-cli train --data photos/ --output tokenizer/ --image-size 64 --steps 5000
    """
    parse_device(device, "--device")
    decoders = parse_count(workers, 0, "--workers")
    sizes = {
        "patch_nums": patch_nums and parse_patch_nums(patch_nums, "--patch-nums"),
        "width_mult": width_mult and parse_patch_nums(width_mult, "--width-mult"),
    }
    from entropy_cli.commands.train.result import render
    from entropy_cli.commands.train.sizes import recipe_of
    from entropy_cli.commands.train.train import TrainConfig
    from entropy_cli.commands.train.train import train as run

    given = {
        **sizes,
        "steps": steps,
        "batch_size": batch_size,
        "image_size": image_size,
        "vocab_size": vocab_size,
        "latent_dim": latent_dim,
        "width": width,
        "blocks": blocks,
        "norm": norm,
        "codebook": codebook,
        "codebook_decay": codebook_decay,
        "init": init,
        "revive_every": revive_every,
        "beta": beta,
        "l1": l1,
        "l2": l2,
        "lr": lr,
        "warmup": warmup,
        "schedule": schedule,
        "final_lr": final_lr,
        "weight_decay": weight_decay,
        "grad_clip": grad_clip,
        "ema_decay": ema_decay,
        "grad_accum_steps": grad_accum_steps,
        "seed": seed,
    }
    config = TrainConfig(
        data=data,
        output=output,
        recipe=recipe_of(preset, given),
        precision=None if precision == "auto" else precision,
        command=shlex.join(["entropy-cli", *context.obj]),
        resume=resume,
        device=device,
        workers=decoders,
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
