"""From images and a checkpoint to figures of each token's assignment entropy."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from entropy_cli.commands.show.assignments import assign_image, encode_images
from entropy_cli.commands.show.code_colours import code_colours
from entropy_cli.commands.show.decoding import LatentDecoder, load_decoder
from entropy_cli.commands.show.figure import draw
from entropy_cli.commands.show.result import ShownImage, ShownScale, ShowResult
from entropy_cli.core.errors import CheckpointError, DatasetError, EntropyCliError
from entropy_cli.core.figures import styled, write_figure
from entropy_cli.core.progress_bars import Bars
from entropy_cli.images.decode import read_image
from entropy_cli.images.plan import BLOCK
from entropy_cli.results.schema import Result, read_result
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import choose_batch_size, choose_device, choose_precision
from entropy_cli.streaming.emulation import warn_if_emulated
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.precision import Precision, matmul_precision
from entropy_cli.tokenizers.registry import Found, find_family
from entropy_cli.tokenizers.settings import TokenizerSettings

logger = logging.getLogger(__name__)
ADVICE = (
    "needs more images than `show` is given. Give a number with --temperature, or the result of an "
    "estimate with --result, to use its temperatures"
)


@dataclass(frozen=True)
class ShowConfig:
    """Images, tokenizer and settings; None where the program chooses.

    Attributes:
        files: each image and the path of its figure.
        temperature: of all scales.
        result: of an estimate with the same tokenizer, whose temperatures are used.
        precision: of the encoder.
    """

    files: Sequence[tuple[Path, Path]]
    checkpoint: Path
    family: str = "auto"
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    temperature: float | Literal["auto"] | None = None
    result: Path | None = None
    device: str = "auto"
    precision: Precision | None = None


@torch.inference_mode()
@matmul_precision(tf32=False)
def show(config: ShowConfig, bars: Bars) -> tuple[ShowResult, Callable[[], object]]:
    """Assign the tokens of images.

    Args:
        config: images, tokenizer and settings.
        bars: makes progress bars.

    Returns:
        The assignments, and a function that draws and writes the figure of each image.

    Raises:
        EntropyCliError: an image, the checkpoint or the result can't be used, there is no temperature,
            or matplotlib is missing.
    """
    with styled():  # fails before the work if matplotlib is missing
        result = None if config.result is None else read_result(config.result)
    for path, _ in config.files:
        _check_image(path)
    device = choose_device(config.device)
    precision = choose_precision(device, config.precision)
    found = find_family(config.checkpoint, config.family, config.tokenizer)
    tokenizer = found.build()
    spec = tokenizer.spec
    assert spec.image_size is not None
    for note in (*spec.notes, *codebook_notes(tokenizer)):
        logger.warning("%s: %s", config.checkpoint, note)
    temperatures, source = _temperatures(config, spec, result)
    if result is not None:
        _check_result(result, config, spec, found, bars)
    groups = found.settings.norm_groups
    decoder, no_decoder = load_decoder(found.checkpoint, found.name, spec.pixels, groups)
    found.checkpoint.close()
    batch_size = min(BLOCK, choose_batch_size(device, spec.image_size))
    processor = BatchProcessor(tokenizer.to(device, precision), device, batch_size)
    crops = _load_crops(config, spec, bars)
    warn_if_emulated(processor.tokenizer, precision, device, crops[0][None])
    decoder = None if decoder is None else decoder.to(device)
    assigned = _assign_images(config, processor, decoder, temperatures, crops, bars)
    names = "family", "vocab_size", "latent_dim", "patch_nums", "rule"
    shown = ShowResult(
        {name: getattr(spec, name) for name in names} | {"checkpoint": str(config.checkpoint)},
        {
            "temperature_source": source,
            "image_size": spec.image_size,
            "preprocess": spec.preprocess,
            "precision": precision,
            "no_decoder": no_decoder or None,
        },
        [
            ShownImage(str(path), str(figure), scales, spec.image_size)
            for (path, figure), (scales, _) in zip(config.files, assigned, strict=True)
        ],
    )

    def write() -> None:
        with bars("drawing", len(crops), "figure") as bar:
            for i, (scales, recons) in enumerate(assigned):
                colours = [_colours(scale, processor.tokenizer) for scale in scales]
                crop_HW3 = crops[i].permute(1, 2, 0).numpy()
                figure = draw(shown, i, crop_HW3, colours, [recon_HW3.numpy() for recon_HW3 in recons])
                write_figure(figure, config.files[i][1])
                bar.update(1)

    return shown, write


def _check_image(path: Path) -> None:
    if path.is_dir():
        raise DatasetError(
            f"{path}: a folder, expected an image file. Give files, such as {path}/*.jpg."
        )
    if not path.exists():
        raise DatasetError(f"{path}: no such image.")


def _temperatures(
    config: ShowConfig, spec: TokenizerSpec, result: Result | None
) -> tuple[list[float], str]:
    """Return each scale's temperature and their source."""
    if result is not None:
        return [scale.temperature for scale in result.scales], f"from {config.result}"
    if config.temperature == "auto":
        raise EntropyCliError(f"temperature auto: {ADVICE}.")
    if config.temperature is not None:
        value, source = config.temperature, "set by --temperature"
    elif spec.temperature != "auto":
        value, source = spec.temperature, spec.temperature_source
    else:
        raise EntropyCliError(f"{config.checkpoint}: {spec.temperature_source}, and auto {ADVICE}.")
    return [value] * len(spec.scales), f"{value:g}: {source}"


def _check_result(
    result: Result, config: ShowConfig, spec: TokenizerSpec, found: Found, bars: Bars
) -> None:
    """Raise CheckpointError if a result is of another tokenizer."""
    theirs = result.tokenizer
    for name, was, now in (
        ("family", theirs.family, spec.family),
        ("rule", theirs.rule, spec.rule),
        ("image size", result.settings.image_size, spec.image_size),
        ("patch_nums", theirs.patch_nums, spec.patch_nums),
        ("vocab_size", theirs.vocab_size, spec.vocab_size),
    ):
        if was != now:
            raise CheckpointError(
                f"{config.result}: its {name} is {was}, but that of {config.checkpoint} is {now}. Give "
                "the result of an estimate with this checkpoint and the same options."
            )
    with bars("hashing checkpoint", found.checkpoint.size, "B") as bar:
        sha256 = found.checkpoint.sha256(bar.update)
    if sha256 != theirs.checkpoint_sha256:
        raise CheckpointError(
            f"{config.result}: is of another checkpoint: its sha256 is not that of {config.checkpoint}. "
            "Give the result of an estimate with this checkpoint."
        )


def _load_crops(config: ShowConfig, spec: TokenizerSpec, bars: Bars) -> list[Tensor]:
    """Read and crop all images first, so that an unreadable one fails before the work."""
    crops = []
    with bars("decoding", len(config.files), "image") as bar:
        for path, _ in config.files:
            crop = read_image(path, spec.crop.apply)
            if isinstance(crop, str):
                raise DatasetError(f"{path}: can't be read: {crop}. Give an image file.")
            crops.append(crop)
            bar.update(1)
    return crops


def _assign_images(
    config: ShowConfig,
    processor: BatchProcessor,
    decoder: LatentDecoder | None,
    temperatures: Sequence[float],
    crops: Sequence[Tensor],
    bars: Bars,
) -> list[tuple[list[ShownScale], list[Tensor]]]:
    """Assign the tokens of each image, scale by scale; the encoder runs in batches as in `estimate`."""
    names, assigned = [str(path) for path, _ in config.files], []
    with bars("assigning tokens", len(crops) * len(temperatures), "scale") as bar:
        for start in range(0, len(crops), processor.batch_size):
            part = slice(start, start + processor.batch_size)
            f_BChw = encode_images(processor, names[part], torch.stack(list(crops[part])))
            for image in zip(names[part], crops[part], torch.split(f_BChw, 1), strict=True):
                assigned.append(assign_image(processor, *image, temperatures, decoder, bar.update))
    return assigned


def _colours(scale: ShownScale, tokenizer: Tokenizer) -> np.ndarray | None:
    """Return the colour of each token's most probable code, if codes have an index."""
    if not scale.codes[0]:
        return None
    idx_l = torch.tensor([codes[0] for codes in scale.codes])
    return code_colours(idx_l, tokenizer.codebook(scale.scale)).numpy()
