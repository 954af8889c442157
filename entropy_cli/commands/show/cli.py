"""`entropy-cli show`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from entropy_cli.input_options import files_read
from entropy_cli.options import (
    AsJson,
    Device,
    Family,
    ImageSize,
    PatchNums,
    Weights,
    check_family,
    parse_device,
    parse_patch_nums,
    parse_temperatures,
    print_result,
    tqdm_bar,
)

FORMATS = (".png", ".svg", ".pdf")


def show(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files of images.")],
    ckpt: Annotated[
        Path,
        typer.Option(
            "--ckpt",
            metavar="FILE",
            help="The tokenizer: .pth, .pt, .ckpt, .bin or .safetensors, their index, or a folder.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="The picture, .png, .svg or .pdf; or a folder for one of each image. Default: "
            "IMAGE.entropy.png, in the working folder.",
        ),
    ] = None,
    family: Family = "auto",
    patch_nums: PatchNums = None,
    image_size: ImageSize = None,
    weights: Weights = None,
    rule: Annotated[
        Literal["l2", "cosine", "dot"] | None,
        typer.Option(help="How the nearest code is found; default the family's."),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(metavar="T", help="Divisor of the squared distance or dot product, of all scales."),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option(
            "--result",
            metavar="RESULT.json",
            help="Of an estimate with this tokenizer: take its temperatures, scale by scale.",
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "bf16"] | None,
        typer.Option(help="Of the encoder; default fp32 on a CPU, fp16 on a GPU."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw where a tokenizer is undecided on images: entropies, codes and what they keep, by scale.

    Example: entropy-cli show photo.jpg --ckpt vae_ch160v4096z32.pth -o photo.png
    """
    value = _temperature(temperature, result)
    grids = None if patch_nums is None else parse_patch_nums(patch_nums, "--patch-nums")
    on = parse_device(device, "--device")
    pictures, folder = _pictures(images, output)

    from entropy_cli.commands.show.result import render
    from entropy_cli.commands.show.show import ShowConfig
    from entropy_cli.commands.show.show import show as run
    from entropy_cli.core.errors import ResultError
    from entropy_cli.core.files import check_files
    from entropy_cli.tokenizers.settings import TokenizerSettings

    check_family(family, "--family")
    if folder is not None and not folder.is_dir():
        if folder.exists() or not folder.resolve().parent.is_dir():
            reason = "is no folder" if folder.exists() else f"there is no folder {folder.parent}"
            raise ResultError(f"--output {folder}: {reason}. Give another, or make it first.")
        folder.mkdir()
    given = files_read({"latents": None, "codebook": None, "ckpt": ckpt})
    read = [*(("IMAGE", image) for image in images), *given]
    read += [] if result is None else [("--result", result)]
    check_files(read, [("--output", picture) for picture in pictures])
    shown = run(
        ShowConfig(
            pictures=list(zip(images, pictures, strict=True)),
            checkpoint=ckpt,
            family=family,
            tokenizer=TokenizerSettings(image_size, grids, rule, weights),
            temperature=value,
            result=result,
            device=on,
            precision=precision,
        ),
        tqdm_bar,
    )
    print_result(shown.to_json() if as_json else render(shown))


def _temperature(text: str | None, result: Path | None) -> float | Literal["auto"] | None:
    if text is None:
        return None
    values = parse_temperatures(text, "--temperature")
    if result is not None:
        raise typer.BadParameter(
            "the temperatures are those of --result. Leave one of them out.", param_hint="--temperature"
        )
    if values == "auto":
        return values
    if len(values) > 1:
        raise typer.BadParameter(f"{text}: expected one number.", param_hint="--temperature")
    return values[0]


def _pictures(images: Sequence[Path], output: Path | None) -> tuple[list[Path], Path | None]:
    """A file to draw for each image, and the folder that they are to be in if one was named."""
    if output is not None and output.suffix.lower() in FORMATS and not output.is_dir():
        if len(images) > 1:
            raise typer.BadParameter(
                f"{output}: is one file, but there are {len(images)} images. Give a folder.",
                param_hint="--output",
            )
        return [output], None
    if output is not None and output.suffix and not output.is_dir():
        raise typer.BadParameter(
            f"{output}: expected a name that ends in {', '.join(FORMATS)}, or a folder.",
            param_hint="--output",
        )
    pictures: list[Path] = []
    for image in images:
        name, number = f"{image.stem}.entropy.png", 1
        while (output or Path()) / name in pictures:  # of another folder
            number += 1
            name = f"{image.stem}-{number}.entropy.png"
        pictures.append((output or Path()) / name)
    return pictures, output
