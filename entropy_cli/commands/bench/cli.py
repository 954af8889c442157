"""The command line of `entropy-cli bench`."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from entropy_cli.options import (
    MOST_BATCH,
    MOST_CODES,
    MOST_IMAGES,
    MOST_WIDTH,
    MOST_WORKERS,
    AsJson,
    BadValue,
    Device,
    Family,
    ImageSize,
    Output,
    Overwrite,
    PatchNums,
    WholeTable,
    number_parser,
    parse_temperatures,
    whole,
    whole_or_auto,
)
from entropy_cli.terminal import deliver, tqdm_bar

MOST_DEPTH = 64  # of a generator of random weights


def parse_numbers(text: str) -> tuple[float, ...]:
    """Parse temperatures, of which `auto` is none that can be timed."""
    numbers = tuple(value for value in parse_temperatures(text) if value != "auto")
    if "auto" in text:
        raise BadValue(f"{text}: auto can't be timed. Give numbers.")
    return numbers


def parse_width(text: str) -> int:
    """Parse a width, a multiple of the norms' groups."""
    width: int = number_parser(32, MOST_WIDTH)(text)
    if width % 32:
        raise BadValue(f"{width}: expected a multiple of 32.")
    return width


def check_model(text: str) -> str:
    """Check the depth of a generator of random weights, if it is one."""
    parse_model(text)
    return text


def parse_model(text: str) -> Path | int:
    """Parse a generator's file, or the depth of one of random weights."""
    depth = re.fullmatch(r"d(\d{1,3})", text)
    if depth and not 1 <= int(depth[1]) <= MOST_DEPTH:
        raise BadValue(f"{text}: expected d1 to d{MOST_DEPTH}, or a file.")
    return int(depth[1]) if depth else Path(text)


def bench(
    ckpt: Annotated[
        Path | None,
        typer.Option(
            "--ckpt", metavar="FILE", help="A tokenizer; default: random weights of VAR's layout."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder of images; default: synthetic ones."),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Also time a plain PyTorch loop, written as one would at first."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|dN",
            parser=check_model,
            help="Also time a generator: its file, or dN for VAR of N blocks with random weights.",
        ),
    ] = None,
    images: Annotated[
        int | None, whole(1, MOST_IMAGES, "Number of images; default: two batches.")
    ] = None,
    rounds: Annotated[int, whole(3, 10**6, "Timed passes over each stage.")] = 3,
    family: Family = "auto",
    patch_nums: PatchNums = None,
    image_size: ImageSize = None,
    vocab_size: Annotated[
        int, whole(2, MOST_CODES, "Number of codes of the random weights.", "V")
    ] = 4096,
    width: Annotated[
        int,
        typer.Option(
            metavar="CH",
            parser=parse_width,
            help="Width of the random weights, a multiple of 32.",
        ),
    ] = 160,
    temperature: Annotated[
        Any,  # a tuple of numbers
        typer.Option(metavar="T[,T...]", parser=parse_numbers, help="Divisors of the squared distance."),
    ] = "1",
    device: Device = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "bf16"] | None,
        typer.Option(help="Precision of the encoder; default: fp32 on a CPU, fp16 on a GPU."),
    ] = None,
    batch_size: Annotated[int | None, whole_or_auto(1, MOST_BATCH, "Images per batch.")] = None,
    workers: Annotated[
        int | None,
        whole_or_auto(0, MOST_WORKERS, "Processes that decode images; 0: decode in this one."),
    ] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    table: WholeTable = False,
    as_json: AsJson = False,
) -> None:
    """Time each stage, and compare it with the peak of the device.

    Example: entropy-cli bench --baseline
    """
    from entropy_cli.commands.bench.bench import BenchConfig
    from entropy_cli.commands.bench.bench import bench as run
    from entropy_cli.commands.bench.result import render
    from entropy_cli.core.files import check_files, write_text
    from entropy_cli.tokenizers.layers.var_layout import VARSizes
    from entropy_cli.tokenizers.settings import TokenizerSettings

    check_files([], [("--output", output)], overwrite=overwrite)
    config = BenchConfig(
        checkpoint=ckpt,
        data=data,
        sizes=VARSizes(width=width, vocab_size=vocab_size),
        tokenizer=TokenizerSettings(image_size, patch_nums),
        family=family,
        images=images,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        temperatures=temperature,
        rounds=rounds,
        baseline=baseline,
        model=None if model is None else parse_model(model),
    )
    found = run(config, tqdm_bar)
    text = found.to_json()
    write = [] if output is None else [partial(write_text, output, text + "\n")]
    deliver(text if as_json else render(found, full=table), *write)
