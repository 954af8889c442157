"""`entropy-cli evaluate`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from entropy_cli.input_options import check_evaluation
from entropy_cli.options import (
    MOST_HEADS,
    MOST_IMAGES,
    MOST_NATS,
    number,
    suffix_parser,
    whole,
    whole_or_auto,
)
from entropy_cli.run_options import (
    PrecisionName,
    check_run_files,
    common_config,
    run_and_show,
    with_run_options,
)


def parse_labels(text: str) -> str:
    """Check that labels are auto, none, or a file that is there."""
    if text in ("auto", "none") or Path(text).is_file():
        return text
    raise typer.BadParameter(
        f"{text}: no such file. Expected auto, none, or a file of lines path,class."
    )


@with_run_options
def evaluate(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="The generator, such as var_d16.pth or c2i_L_256.pt; VAR's ar-ckpt-*.pth holds its "
            "tokenizer too.",
        ),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="auto|none|FILE",
            parser=parse_labels,
            help="Classes of the images: auto finds them by WordNet ids, a column or the folders; none "
            "gives the null class to all; a file has lines path,index or path,wnid.",
        ),
    ] = "auto",
    label_check: Annotated[
        Any,  # a whole number or None
        whole_or_auto(
            0,
            MOST_IMAGES,
            "Number of first images that are also given the null class, to see whether their labels "
            "help; 0: none; auto: 64 on a CPU, 512 on a GPU.",
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            parser=suffix_parser(".npy"),
            help="Tokens that estimate saved, in place of --data; needs the --result of that run.",
        ),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option(metavar="RESULT.json", help="The result of the run that saved the --tokens."),
    ] = None,
    weights: Annotated[
        Literal["raw", "ema"] | None,
        typer.Option(
            rich_help_panel="Input",
            help="Copy of the model's weights: raw, as last trained, or ema, averaged over the "
            "training; default: raw.",
        ),
    ] = None,
    heads: Annotated[
        int | None,
        whole(1, MOST_HEADS, "Number of the model's attention heads, where its file does not show it."),
    ] = None,
    rule: Annotated[
        Literal["l2", "cosine", "dot"] | None,
        typer.Option(help="Rule by which the nearest code is found; default: the family's."),
    ] = None,
    precision: Annotated[
        PrecisionName | None,
        typer.Option(
            help="Precision of the encoder and of the model's products; default: fp32 on a CPU, on a "
            "GPU fp16 and that of the model's training. How far it moves the result is measured and "
            "shown."
        ),
    ] = None,
    target_ci: Annotated[
        float | None,
        number(
            1e-12,
            MOST_NATS,
            "Stop when the 95 % intervals of the cross-entropy's averages are at most this wide to each "
            "side.",
            "NATS",
        ),
    ] = None,
    per_image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=suffix_parser(".csv", ".parquet"),
            help="Write the loss of each image, in nats an image: .csv or .parquet.",
        ),
    ] = None,
) -> int:
    """Measure a generator's loss on images, beside its floors.

    The model predicts each token of the images given those before it, as in its training. Its
    cross-entropy is set beside the entropies of the same tokens. Interrupted, the command saves what it
    has; the same command resumes from there.

    Example: entropy-cli evaluate --data imagenet/val --ckpt vae_ch160v4096z32.pth --model var_d16.pth
    """
    check_evaluation(context)
    params = context.params

    from entropy_cli.results.evaluations.per_image import check_per_image
    from entropy_cli.runs.config import EstimateConfig, ModelChoice, SavedTokens
    from entropy_cli.streaming.token_file import paths_file
    from entropy_cli.tokenizers.settings import TokenizerSettings

    assert model is not None
    label_file = None if labels in ("auto", "none") else Path(labels)
    lines = None if tokens is None else paths_file(tokens)
    inputs = [("--tokens", tokens), ("--tokens", lines), ("--result", result), ("--labels", label_file)]
    read = [(option, path) for option, path in inputs if path is not None]
    check_run_files(params, [("--per-image", per_image)], read=read)
    if per_image is not None:
        check_per_image(per_image)
    choice = ModelChoice(
        model,
        heads=heads,
        weights=weights,
        labels=label_file or ("none" if labels == "none" else "auto"),
        label_check=label_check,
        given=None if tokens is None or result is None else SavedTokens(tokens, result),
        per_image=per_image,
    )
    config = EstimateConfig(
        tokenizer=TokenizerSettings(params["image_size"], params["patch_nums"], rule),
        model=choice,
        **common_config(context),
    )
    return run_and_show(context, config)
