"""`entropy-cli estimate`."""

from typing import Annotated, Literal

import typer

from entropy_cli.input_options import check_options, parse_levels
from entropy_cli.options import MOST_NATS, Sides, Weights, number, parse_keyed_file
from entropy_cli.run_options import (
    PrecisionName,
    check_run_files,
    common_config,
    run_and_show,
    with_run_options,
)


@with_run_options
def estimate(
    context: typer.Context,
    weights: Weights = None,
    latents: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:KEY,...]",
            parser=parse_keyed_file,
            help="Latents, in place of --data and --ckpt: (images, C, h, w), (images, C, l) or "
            "(images, C), a tensor for each scale; .safetensors, .npy, .npz or .pt.",
        ),
    ] = None,
    channels: Annotated[
        Literal["first", "last"] | None,
        typer.Option(
            help="Axis of the channels C of --latents: first after the images, or last. Default: the "
            "one whose size is that of a code."
        ),
    ] = None,
    codebook: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:KEY,...]",
            parser=parse_keyed_file,
            rich_help_panel="Input",
            help="Codes for --latents: (V, C), one tensor for all scales or one for each, or (Q, V, C) "
            "for Q scales.",
        ),
    ] = None,
    levels: Annotated[
        Sides | None,
        typer.Option(
            metavar="8,5,5,...",
            parser=parse_levels,
            help="Number of levels of each dimension (FSQ): for --latents, or for a cosmos checkpoint "
            "that does not hold them.",
        ),
    ] = None,
    rule: Annotated[
        Literal["l2", "cosine", "dot", "sign", "bsq", "levels"] | None,
        typer.Option(
            help="Rule by which the nearest code is found; default: the family's, and l2 for "
            "--codebook. The last three are for --latents."
        ),
    ] = None,
    path: Annotated[
        Literal["hard", "drawn"],
        typer.Option(
            help="Tokens that are counted, saved, and subtracted before the next scale: hard, the "
            "nearest codes, or drawn at the first temperature, as in RQ-Transformer's training."
        ),
    ] = "hard",
    precision: Annotated[
        PrecisionName | None,
        typer.Option(
            help="Precision of the encoder; default: fp32 on a CPU, fp16 on a GPU. How far it moves the "
            "result is measured and shown."
        ),
    ] = None,
    target_ci: Annotated[
        float | None,
        number(
            1e-12,
            MOST_NATS,
            "Stop when the 95 % intervals of the assignment entropy's averages are at most this wide to "
            "each side.",
            "NATS",
        ),
    ] = None,
) -> int:
    """Estimate a tokenizer's irreducible loss on images.

    Interrupted, it saves what it has; the same command resumes from there.

    Example: entropy-cli estimate --data imagenet/ --ckpt vae_ch160v4096z32.pth -o result.json
    """
    params = context.params
    given = check_options(params)

    from entropy_cli.runs.config import EstimateConfig, GivenLatents
    from entropy_cli.tokenizers.settings import TokenizerSettings

    check_run_files(params)
    config = EstimateConfig(
        latents=None if given is None else GivenLatents(**given),
        tokenizer=TokenizerSettings(
            params["image_size"],
            params["patch_nums"],
            None if given else rule,
            weights,
            levels=None if given else levels,
        ),
        path=path,
        **common_config(context),
    )
    return run_and_show(context, config)
