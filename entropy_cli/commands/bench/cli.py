"""The command line of `entropy-cli bench`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from entropy_cli.options import (
    Device,
    Family,
    ImageSize,
    PatchNums,
    parse_count,
    parse_device,
    parse_patch_nums,
    parse_temperatures,
    print_result,
    tqdm_bar,
)


def bench(
    ckpt: Annotated[
        Path | None,
        typer.Option("--ckpt", metavar="FILE", help="A tokenizer; default: random weights."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Images; default: synthetic images."),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Also time a plain PyTorch loop, written as a researcher would first."
        ),
    ] = False,
    images: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of images; default: two batches.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, metavar="N", help="Timed passes over each stage.")] = 3,
    family: Family = "auto",
    patch_nums: PatchNums = None,
    image_size: ImageSize = None,
    vocab_size: Annotated[
        int, typer.Option(min=2, metavar="V", help="Codes of the random weights.")
    ] = 4096,
    width: Annotated[
        int, typer.Option(min=32, metavar="CH", help="Width of the random weights, a multiple of 32.")
    ] = 160,
    temperature: Annotated[
        str, typer.Option(metavar="T[,T...]", help="Divisors of the squared distance.")
    ] = "1",
    device: Device = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "bf16"] | None,
        typer.Option(help="Precision of the encoder; default: fp32 on a CPU, fp16 on a GPU."),
    ] = None,
    batch_size: Annotated[str, typer.Option(metavar="N|auto", help="Images per batch.")] = "auto",
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|auto", help="Processes that decode images; 0 decodes in the main process."
        ),
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result as JSON.")
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Show the fastest times and the floor too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Time decoding, encoder, quantiser and the whole pass, and compare them with the device's peak.

    Example: entropy-cli bench --baseline
    """
    temperatures = parse_temperatures(temperature, "--temperature")
    if temperatures == "auto":
        raise typer.BadParameter("auto: can't be timed. Give numbers.", param_hint="--temperature")
    if width % 32:
        raise typer.BadParameter(f"{width}: expected a multiple of 32.", param_hint="--width")
    grids = None if patch_nums is None else parse_patch_nums(patch_nums, "--patch-nums")
    name = parse_device(device, "--device")
    sizes = parse_count(batch_size, 1, "--batch-size"), parse_count(workers, 0, "--workers")

    from entropy_cli.commands.bench.bench import BenchConfig
    from entropy_cli.commands.bench.bench import bench as run
    from entropy_cli.commands.bench.result import render
    from entropy_cli.core.files import check_writable, write_atomically
    from entropy_cli.tokenizers.layers.var_layout import VARSizes
    from entropy_cli.tokenizers.settings import TokenizerSettings

    if output is not None:
        check_writable(output, "--output")
    config = BenchConfig(
        checkpoint=ckpt,
        data=data,
        sizes=VARSizes(width=width, vocab_size=vocab_size),
        tokenizer=TokenizerSettings(image_size, grids),
        family=family,
        images=images,
        device=name,
        precision=precision,
        batch_size=sizes[0],
        workers=sizes[1],
        temperatures=temperatures,
        rounds=rounds,
        baseline=baseline,
    )
    found = run(config, tqdm_bar)
    text = found.to_json()
    if output is not None:
        write_atomically(output, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    print_result(text if as_json else render(found, full=table))
