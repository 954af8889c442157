"""The command line of `entropy-cli show`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from entropy_cli.core.figures import FORMATS
from entropy_cli.input_options import files_read
from entropy_cli.options import (
    AsJson,
    BadValue,
    Device,
    Family,
    ImageSize,
    Overwrite,
    PatchNums,
    Weights,
    parse_temperatures,
)
from entropy_cli.terminal import deliver, tqdm_bar


def parse_temperature(text: str) -> float | Literal["auto"]:
    """Parse one temperature, or `auto`."""
    values = parse_temperatures(text)
    if values[1:]:
        raise BadValue(f"{text}: expected one number.")
    return values[0]


def show(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    ckpt: Annotated[
        Path,
        typer.Option(
            "--ckpt",
            metavar="FILE",
            help="The tokenizer: .pth, .pt, .ckpt, .bin or .safetensors, their index, a folder, or an "
            "address such as hf://ORG/REPO/FILE; see `guide places`.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="The figure, .png, .svg or .pdf; or a folder, for one figure per image. Default: "
            "IMAGE.entropy.png in the working folder.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    family: Family = "auto",
    patch_nums: PatchNums = None,
    image_size: ImageSize = None,
    weights: Weights = None,
    rule: Annotated[
        Literal["l2", "cosine", "dot"] | None,
        typer.Option(help="Rule by which the nearest code is found; default: the family's."),
    ] = None,
    temperature: Annotated[
        Any,  # a number, "auto" or None
        typer.Option(
            metavar="T",
            parser=parse_temperature,
            help="Divisor of the squared distance or dot product, at all scales.",
        ),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option(
            "--result",
            metavar="RESULT.json",
            help="Result of estimate with this tokenizer, whose temperatures are used.",
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "bf16"] | None,
        typer.Option(help="Precision of the encoder; default: fp32 on a CPU, fp16 on a GPU."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw where in an image a tokenizer is undecided.

    Example: entropy-cli show photo.jpg --ckpt vae_ch160v4096z32.pth -o photo.png
    """
    if temperature is not None and result is not None:
        raise typer.BadParameter(
            "--result gives the temperatures already. Leave one of the two out.",
            param_hint="--temperature",
        )
    figures, folder = _figure_paths(images, output)

    from entropy_cli.commands.show.result import render
    from entropy_cli.commands.show.show import ShowConfig
    from entropy_cli.commands.show.show import show as run
    from entropy_cli.core.errors import ResultError
    from entropy_cli.core.files import check_files
    from entropy_cli.tokenizers.settings import TokenizerSettings

    if folder is not None and not folder.is_dir():
        if folder.exists() or not folder.absolute().parent.is_dir():
            reason = "not a folder" if folder.exists() else f"there is no folder {folder.parent}"
            raise ResultError(f"--output {folder}: {reason}. Give another, or create it first.")
        folder.mkdir()
    inputs = [("IMAGE", image) for image in images]
    inputs += files_read({"latents": None, "codebook": None, "ckpt": ckpt})
    written = [("--output", figure) for figure in figures]
    check_files([*inputs, ("--result", result)], written, overwrite=overwrite)
    files = list(zip(images, figures, strict=True))
    tokenizer = TokenizerSettings(image_size, patch_nums, rule, weights)
    config = ShowConfig(files, ckpt, family, tokenizer, temperature, result, device, precision)
    shown, write = run(config, tqdm_bar)
    deliver(shown.to_json() if as_json else render(shown), write)


def _figure_paths(images: Sequence[Path], output: Path | None) -> tuple[list[Path], Path | None]:
    """Return the path of each image's figure, and their folder if --output names one."""
    if output is not None and output.suffix and not output.is_dir():
        problem = ""
        if output.suffix.lower() not in FORMATS:
            problem = f"expected a file name ending in {', '.join(FORMATS)}, or a folder."
        elif len(images) > 1:
            problem = f"one file for {len(images)} images. Give a folder."
        if problem:
            raise typer.BadParameter(f"{output}: {problem}", param_hint="--output")
        return [output], None
    figures: list[Path] = []
    for image in images:
        name, number = f"{image.stem}.entropy.png", 1
        while (output or Path()) / name in figures:  # images of the same name in two folders
            number += 1
            name = f"{image.stem}-{number}.entropy.png"
        figures.append((output or Path()) / name)
    return figures, output
