"""The command line of `entropy-cli demo`."""

import logging
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from entropy_cli.options import Overwrite
from entropy_cli.terminal import deliver as show
from entropy_cli.terminal import print_result, tqdm_bar

if TYPE_CHECKING:
    from entropy_cli.results.schema import Result

logger = logging.getLogger(__name__)

TOKENIZER = Path(__file__).parents[2] / "assets" / "model.safetensors"
IMAGES, SHOWN, SEED = 1200, 8, 1  # the tokenizer was trained on images of another seed


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for its files; default: the cache folder."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Run `estimate` on synthetic images with a small tokenizer.

    Example: entropy-cli demo
    """
    from entropy_cli.commands.demo.reconstruct import reconstruct
    from entropy_cli.core.errors import EntropyCliError
    from entropy_cli.core.files import cache_folder, check_files
    from entropy_cli.core.reading import CONFIG_BYTES, parse_json, read_bytes
    from entropy_cli.results.page.report_file import check_report, write_report
    from entropy_cli.results.text import render
    from entropy_cli.runs.config import EstimateConfig
    from entropy_cli.runs.estimate import estimate

    folder = output or cache_folder() / "demo"
    data, result_file = folder / "images", folder / "result.json"
    reconstructions, page = folder / "reconstructions.png", folder / "report.html"
    if output is not None and output.is_dir():
        check_files([], [("--output", result_file), ("--output", page)], overwrite=overwrite)
    try:
        check_report(page)
        no_page = ""
    except EntropyCliError as error:  # without matplotlib, the rest of the demo still runs
        no_page = str(error)
    config = parse_json(read_bytes(TOKENIZER.with_name("config.json"), CONFIG_BYTES))
    images = _write_images(data, config["image_size"])
    psnr = reconstruct(TOKENIZER, images[:SHOWN], reconstructions)
    argv = ["entropy-cli", "estimate", "--data", str(data), "--ckpt", str(TOKENIZER)]
    files = ["-o", str(result_file), *(() if no_page else ("--report", str(page)))]
    command = shlex.join([*argv, "--temperature", "auto,1", *files])
    logger.info(
        "%d synthetic images in %s; the tokenizer was trained on others of that kind by %s",
        IMAGES,
        data,
        config["command"],
    )
    logger.info("%d of them and their reconstructions, PSNR %.1f dB: %s", SHOWN, psnr, reconstructions)
    logger.info("$ %s", command)

    def deliver(result: "Result") -> None:
        show(render(result), partial(result.write, result_file))
        if not no_page:
            write_report(page, [result], [])
        print_result(f"\nas a page with figures: {no_page or page}")

    config = EstimateConfig(data=data, checkpoint=TOKENIZER, temperatures=("auto", 1.0), command=command)
    estimate(config, tqdm_bar, deliver)


def _write_images(data: Path, size: int) -> list[Path]:
    from entropy_cli.core.errors import DatasetError
    from entropy_cli.images.synthetic import write_image_folder
    from entropy_cli.tokenizers.preprocess import resized_side

    try:
        with tqdm_bar("writing images", IMAGES, "img") as bar:
            return write_image_folder(data, IMAGES, resized_side(size), SEED, bar.update)
    except OSError as error:
        raise DatasetError(
            f"{data}: can't be written: {error.strerror}. Give another folder with --output."
        ) from error
