"""`entropy-cli demo`."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from entropy_cli.cli.options import print_result, tqdm_bar

if TYPE_CHECKING:
    from entropy_cli.results.schema import Result

IMAGES, IMAGE_SIZE, PATCH_NUMS, SEED = 400, 64, (1, 2, 3, 4, 6, 8), 0


def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where its files go; default: the cache folder."),
    ] = None,
) -> None:
    """Run `estimate` on pictures and a tokenizer made on the spot.

    Example: entropy-cli demo
    """
    from entropy_cli.files import cache_folder
    from entropy_cli.pipeline.estimate import estimate
    from entropy_cli.pipeline.request import Request
    from entropy_cli.results.tables import render

    folder = out or cache_folder() / "demo"
    data, ckpt, output = folder / "images", folder / "tokenizer.safetensors", folder / "result.json"
    _make(data, ckpt)
    command = shlex.join(
        ["entropy-cli", "estimate", "--data", str(data), "--ckpt", str(ckpt), "-o", str(output)]
    )
    typer.echo(
        f"Made {IMAGES} procedural pictures and an UNTRAINED tokenizer: a random encoder of VAR's\n"
        "layout with some of its own residuals as codes. The numbers show how the program works,\n"
        f"not what a tokenizer can do.\n\n$ {command}\n"
    )

    def deliver(result: "Result") -> None:
        result.write(output)
        print_result(render(result))

    estimate(Request(data=data, checkpoint=ckpt, command=command), tqdm_bar, deliver)


def _make(data: Path, ckpt: Path) -> None:
    """Write the pictures, the checkpoint and its config.json."""
    import torch
    from safetensors.torch import save_file

    from entropy_cli.data.pictures import read_picture
    from entropy_cli.data.synthetic import write_image_folder
    from entropy_cli.engine.untrained import untrained_weights
    from entropy_cli.errors import DatasetError
    from entropy_cli.files import write_atomically
    from entropy_cli.tokenizers.layout import VARSizes
    from entropy_cli.tokenizers.preprocess import var_crop
    from entropy_cli.tokenizers.settings import TokenizerSettings

    try:
        with tqdm_bar("making pictures", IMAGES, "img") as bar:
            paths = write_image_folder(data, IMAGES, IMAGE_SIZE * 3 // 2, SEED, bar.update)
    except OSError as error:
        raise DatasetError(f"{data}: can't be written: {error.strerror}. Use --out.") from error
    crop = var_crop(IMAGE_SIZE).apply
    img_B3HW = torch.stack(
        [p for p in (read_picture(path, crop) for path in paths[:64]) if not isinstance(p, str)]
    )
    sizes = VARSizes(width=32, width_mult=(1, 1, 2, 2), latent_dim=8, vocab_size=256)
    weights = untrained_weights(img_B3HW, sizes, TokenizerSettings(IMAGE_SIZE, PATCH_NUMS), SEED)
    write_atomically(ckpt, lambda path: save_file(weights, path))
    config = json.dumps({"image_size": IMAGE_SIZE, "patch_nums": PATCH_NUMS})
    write_atomically(ckpt.with_name("config.json"), lambda path: path.write_text(config + "\n"))
