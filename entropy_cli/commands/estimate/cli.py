"""`entropy-cli estimate`."""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from entropy_cli.input_options import (
    ClusterOf,
    Shard,
    check_not_among_images,
    check_options,
    files_read,
    parse_levels,
    parse_shard,
)
from entropy_cli.options import (
    MAX_FAILED,
    MOST_BATCH,
    MOST_IMAGES,
    MOST_NATS,
    MOST_SECONDS,
    MOST_SEED,
    MOST_WORKERS,
    AsJson,
    Checkpoint,
    Data,
    Device,
    Explain,
    Family,
    ImageSize,
    MaxFailed,
    Output,
    Overwrite,
    PatchNums,
    Sides,
    Units,
    Weights,
    WholeTable,
    exit_code,
    number,
    parse_keyed_file,
    parse_temperatures,
    suffix_parser,
    whole,
    whole_or_auto,
)
from entropy_cli.terminal import deliver as show
from entropy_cli.terminal import print_result, tqdm_bar

if TYPE_CHECKING:
    from entropy_cli.results.schema import Result


def estimate(
    context: typer.Context,
    data: Data = None,
    ckpt: Checkpoint = None,
    split: Annotated[
        Literal["auto", "train", "val", "all"] | None,
        typer.Option(help="Part of the data to read; auto takes val/ if there, else train/, else all."),
    ] = None,
    limit: Annotated[
        int | None,
        whole(1, MOST_IMAGES, "Read only the first N images of the seeded order."),
    ] = None,
    seed: Annotated[
        int,
        whole(0, MOST_SEED, "Seed of the images' order, of their groups, and of drawn tokens."),
    ] = 0,
    cluster: ClusterOf = "image",
    family: Family = "auto",
    patch_nums: PatchNums = None,
    image_size: ImageSize = None,
    weights: Weights = None,
    latents: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:KEY,...]",
            parser=parse_keyed_file,
            help="In place of images and checkpoint: latents (images, C, h, w), (images, C, l) or "
            "(images, C), a tensor for each scale; .safetensors, .npy, .npz or .pt.",
        ),
    ] = None,
    channels: Annotated[
        Literal["first", "last"] | None,
        typer.Option(
            help="Where the channels of --latents are: right after the images, or last. Default: where "
            "the codes' dimensions fit."
        ),
    ] = None,
    codebook: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:KEY,...]",
            parser=parse_keyed_file,
            rich_help_panel="Input",
            help="Codes (V, C) for --latents, of all or each scale, or (Q, V, C) of Q scales.",
        ),
    ] = None,
    levels: Annotated[
        Sides | None,
        typer.Option(
            metavar="8,5,5,...",
            parser=parse_levels,
            help="Levels of each dimension of --latents (FSQ), which are bounded to them.",
        ),
    ] = None,
    rule: Annotated[
        Literal["l2", "cosine", "dot", "sign", "bsq", "levels"] | None,
        typer.Option(
            help="Rule by which the nearest code is found; default the family's. The last three are for "
            "--latents."
        ),
    ] = None,
    temperature: Annotated[
        Any,  # a tuple of numbers, "auto" or None
        typer.Option(
            metavar="T[,T...]",
            parser=parse_temperatures,
            help="Divisors of the squared distance or dot product: numbers, or auto to fit one to each "
            "scale. The first is the headline. Default: the published one, else 1,auto.",
        ),
    ] = None,
    temperature_from: Annotated[
        Path | None,
        typer.Option(metavar="RESULT.json", help="Use the temperatures of another run as they are."),
    ] = None,
    path: Annotated[
        Literal["hard", "drawn"],
        typer.Option(
            help="Tokens that are counted, saved, and subtracted before the next scale: the nearest "
            "codes, or codes drawn at the first temperature, as RQ-Transformer's training does."
        ),
    ] = "hard",
    device: Device = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "bf16"] | None,
        typer.Option(
            help="Precision of the encoder; default fp32 on a CPU, fp16 on a GPU. What it costs is "
            "measured and shown."
        ),
    ] = None,
    compile: Annotated[
        Literal["auto", "on", "off"] | None,
        typer.Option(
            rich_help_panel="Compute",
            help="Compile the encoder, which takes a minute or so; default auto: on a GPU, for half a "
            "million images or more. Moves the number no more than rounding.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        whole_or_auto(1, MOST_BATCH, "Images at once; never moves the number."),
    ] = None,
    workers: Annotated[
        int | None,
        whole_or_auto(0, MOST_WORKERS, "Processes that decode; 0 uses this one."),
    ] = None,
    target_ci: Annotated[
        float | None,
        number(
            1e-12,
            MOST_NATS,
            "Stop when the assignment entropy's 95 % intervals are at most so wide to each side.",
            "NATS",
        ),
    ] = None,
    shard: Annotated[
        Shard | None,
        typer.Option(
            metavar="I/N|slurm",
            parser=parse_shard,
            help="Only part I of N, from 0, for `merge`; slurm takes both from the job array.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep what is accumulated here; default: in the cache until the end."
        ),
    ] = None,
    save_every: Annotated[
        float, number(0, MOST_SECONDS, "Time between saves of the state; 0: at each step.", "SECONDS")
    ] = 60.0,
    save_tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            parser=suffix_parser(".npy"),
            help="Write the tokens: a row for each image that was read, scale after scale, and the "
            "images' paths beside it.",
        ),
    ] = None,
    ladder: Annotated[
        bool,
        typer.Option("--ladder", help="Also bound the loss of the hard tokens; see `guide ladder`."),
    ] = False,
    output: Output = None,
    overwrite: Overwrite = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="End with a report: .html, .png, .svg, .pdf, .md or .csv."),
    ] = None,
    on_error: Annotated[
        Literal["skip", "fail"], typer.Option(help="What to do with unreadable images.")
    ] = "skip",
    max_failed: MaxFailed = MAX_FAILED,
    as_json: AsJson = False,
    table: WholeTable = False,
    explain: Explain = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be read, how, and how long it would take."),
    ] = False,
    units: Units = "nats",
) -> int:
    """Estimate a tokenizer's irreducible loss on images.

    Interrupted, it saves what it has; the same command resumes from there.

    Example: entropy-cli estimate --data imagenet/ --ckpt vae_ch160v4096z32.pth -o result.json
    """
    given = check_options(context.params)

    from entropy_cli.core.files import check_files
    from entropy_cli.results.page.report_file import check_report, write_report
    from entropy_cli.results.text import render
    from entropy_cli.runs.config import EstimateConfig, GivenLatents
    from entropy_cli.runs.estimate import estimate as run
    from entropy_cli.streaming.token_file import paths_file
    from entropy_cli.tokenizers.settings import TokenizerSettings

    lines = None if save_tokens is None else paths_file(save_tokens)
    results = [("--output", output), ("--report", report)]
    tokens = [("--save-tokens", save_tokens), ("--save-tokens", lines)]
    check_files([], [*results, *tokens, ("--state", state)], overwrite=True)  # a state is resumed
    read = list(files_read(context.params))
    check_files(read, [("--state", state)], overwrite=True)
    check_files(read, results, overwrite=overwrite)
    # An array of tokens bears no mark but the paths beside it.
    is_own = lines is not None and lines.exists()
    check_files(read, tokens, overwrite=overwrite or is_own)
    check_not_among_images(data, [*results, ("--state", state)])
    if report is not None:
        check_report(report)

    delivered = False

    def deliver(result: "Result") -> None:
        nonlocal delivered
        delivered = True
        text = render(result, units, table=table, explain=explain)
        writes: list[Callable[[], object]] = []
        if output is not None:
            writes.append(partial(result.write, output))
        if report is not None:
            writes.append(partial(write_report, report, [result], []))
        show(result.to_json() if as_json else text, *writes)

    config = EstimateConfig(
        data=data,
        checkpoint=ckpt,
        latents=None if given is None else GivenLatents(**given),
        split=split or "auto",
        limit=limit,
        seed=seed,
        cluster=cluster,
        family=family,
        tokenizer=TokenizerSettings(image_size, patch_nums, None if given else rule, weights),
        precision=precision,
        compile=compile or "auto",
        target=target_ci,
        shard=shard,
        state=state,
        tokens=save_tokens,
        ladder=ladder,
        save_every_s=save_every,
        fail_at_first=on_error == "fail",
        command=shlex.join(["entropy-cli", *context.obj]),
        temperatures=temperature,
        temperature_from=temperature_from,
        path=path,
        device=device,
        batch_size=batch_size,
        workers=workers,
    )
    if dry_run:
        from entropy_cli.runs.dry_run import dry_run as describe_run

        print_result(describe_run(config, tqdm_bar))
        return 0
    images = run(config, tqdm_bar, deliver)
    for older in (output, report) if shard is not None and not delivered else ():
        if older is not None:
            older.unlink(missing_ok=True)  # an older run's result must not pass for this one's
    return exit_code(images.used, images.failed, max_failed)
