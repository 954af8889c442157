"""The command line of `entropy-cli demo`."""

import logging
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from entropy_cli.options import Overwrite
from entropy_cli.terminal import deliver as show
from entropy_cli.terminal import print_result, tqdm_bar

if TYPE_CHECKING:
    from entropy_cli.results.evaluation import Evaluation
    from entropy_cli.results.schema import Result

logger = logging.getLogger(__name__)

TOKENIZER = Path(__file__).parents[2] / "assets" / "model.safetensors"
GENERATOR = TOKENIZER.with_name("generator.safetensors")
FILES = {  # of each command: its result, and its page
    "estimate": ("result.json", "report.html"),
    "evaluate": ("evaluation.json", "evaluation.html"),
}
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
    """Run `estimate` and `evaluate` on images that it makes itself.

    The tokenizer and the generator are small ones that come with the program.

    Example: entropy-cli demo
    """
    from entropy_cli.commands.demo.reconstruct import reconstruct
    from entropy_cli.core.files import cache_folder, check_files
    from entropy_cli.core.reading import CONFIG_BYTES, parse_json, read_bytes

    folder = output or cache_folder() / "demo"
    data, reconstructions = folder / "images", folder / "reconstructions.png"
    if output is not None and output.is_dir():
        written = [("--output", folder / name) for names in FILES.values() for name in names]
        check_files([], written, overwrite=overwrite)
    config = parse_json(read_bytes(TOKENIZER.with_name("config.json"), CONFIG_BYTES))
    images = _write_images(data, config["image_size"])
    psnr = reconstruct(TOKENIZER, images[:SHOWN], reconstructions)
    logger.info(
        "%d synthetic images in %s; the tokenizer was trained on others of that kind by %s",
        IMAGES,
        data,
        config["command"],
    )
    logger.info("%d of them and their reconstructions, PSNR %.1f dB: %s", SHOWN, psnr, reconstructions)
    _run(data, folder, "estimate", ())
    print_result("")
    _run(data, folder, "evaluate", ("--model", str(GENERATOR), "--ladder"))


def _run(data: Path, folder: Path, name: str, more: Sequence[str]) -> None:
    """Run a command on the images, print its result, and write it with a page of figures."""
    from entropy_cli.core.errors import EntropyCliError
    from entropy_cli.results.page.report_file import check_report, write_report
    from entropy_cli.results.text import render
    from entropy_cli.runs.config import EstimateConfig, ModelChoice
    from entropy_cli.runs.estimate import estimate

    file, page = (folder / written for written in FILES[name])
    try:
        check_report(page)
        no_page = ""
    except EntropyCliError as error:  # without matplotlib, the rest of the demo still runs
        no_page = str(error)
    inputs = ["--data", str(data), "--ckpt", str(TOKENIZER), *more, "--temperature", "auto,1"]
    outputs = ["-o", str(file), *(() if no_page else ("--report", str(page)))]
    command = shlex.join(["entropy-cli", name, *inputs, *outputs])
    logger.info("$ %s", command)

    def deliver(result: "Result | Evaluation") -> None:
        show(render(result), partial(result.write, file))
        if not no_page:
            write_report(page, [result], [])
        print_result(f"\nas a page with figures: {no_page or page}")

    config = EstimateConfig(
        data=data,
        checkpoint=TOKENIZER,
        temperatures=("auto", 1.0),
        model=ModelChoice(GENERATOR) if more else None,
        ladder=bool(more),
        command=command,
    )
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
