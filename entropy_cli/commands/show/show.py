"""From images and a checkpoint to figures of each token's assignment entropy."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from entropy_cli.commands.show.assignments import ScaleTokens, assign_image, encode_images
from entropy_cli.commands.show.code_colours import code_colours
from entropy_cli.commands.show.decoding import LatentDecoder, load_decoder
from entropy_cli.commands.show.figure import Panel, draw
from entropy_cli.commands.show.result import ShownImage, ShowResult, shown_image, shown_scale
from entropy_cli.core.errors import CheckpointError, DatasetError, EntropyCliError
from entropy_cli.core.figures import styled, write_figure
from entropy_cli.core.progress_bars import Bars
from entropy_cli.images.decode import read_image
from entropy_cli.images.plan import BLOCK
from entropy_cli.results.schema import Result, read_result
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import (
    choose_batch_size,
    choose_device,
    choose_precision,
)
from entropy_cli.streaming.emulation import warn_if_emulated
from entropy_cli.tokenizers.base import Tokenizer
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


@dataclass(frozen=True)
class _Loaded:
    """The tokenizer on the device, and the settings that were chosen for it."""

    processor: BatchProcessor
    decoder: LatentDecoder | None
    no_decoder: str
    temperatures: list[float]
    temperature_source: str
    precision: Precision

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.processor.tokenizer


@torch.inference_mode()
@matmul_precision(tf32=False)
def show(config: ShowConfig, bars: Bars) -> ShowResult:
    """Assign the tokens of images and draw a figure of each image.

    Args:
        config: images, tokenizer and settings.
        bars: makes progress bars.

    Raises:
        EntropyCliError: an image, the checkpoint or the result can't be used, there is no temperature,
            or matplotlib is missing.
    """
    with styled():  # fails before the work if matplotlib is missing
        result = None if config.result is None else read_result(config.result)
    for path, _ in config.files:
        _check_image(path)
    loaded = _load(config, result, bars)
    crops = _load_crops(config, loaded.tokenizer, bars)
    warn_if_emulated(loaded.tokenizer, loaded.precision, loaded.processor.device, crops[0][None])
    assigned = _assign_images(config, loaded, crops, bars)
    images = [
        _summarize(path, figure, loaded, scales)
        for (path, figure), scales in zip(config.files, assigned, strict=True)
    ]
    spec = loaded.tokenizer.spec
    shown = ShowResult(
        {
            "family": spec.family,
            "vocab_size": spec.vocab_size,
            "latent_dim": spec.latent_dim,
            "patch_nums": spec.patch_nums,
            "rule": spec.rule,
            "checkpoint": str(config.checkpoint),
        },
        {
            "temperature_source": loaded.temperature_source,
            "image_size": spec.image_size,
            "preprocess": spec.preprocess,
            "precision": loaded.precision,
            "no_decoder": loaded.no_decoder or None,
        },
        images,
    )
    with bars("drawing", len(crops), "figure") as bar:
        for i, (_, figure) in enumerate(config.files):
            panels = _panels(loaded.tokenizer, assigned[i])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph")  # missing from the font, drawn as a box
                write_figure(draw(shown, i, crops[i].permute(1, 2, 0).numpy(), panels), figure)
            bar.update(1)
    return shown


def _check_image(path: Path) -> None:
    if path.is_dir():
        raise DatasetError(
            f"{path}: a folder, expected an image file. Give files, such as {path}/*.jpg."
        )
    if not path.exists():
        raise DatasetError(f"{path}: no such image.")


def _load(config: ShowConfig, result: Result | None, bars: Bars) -> _Loaded:
    device = choose_device(config.device)
    precision = choose_precision(device, config.precision)
    found = find_family(config.checkpoint, config.family, config.tokenizer)
    tokenizer = found.build()
    for note in (*tokenizer.spec.notes, *codebook_notes(tokenizer)):
        logger.warning("%s: %s", config.checkpoint, note)
    temperatures, source = _temperatures(config, tokenizer)
    if result is not None:
        _check_result(result, config, tokenizer, found, bars)
        temperatures = [scale.temperature for scale in result.scales]
        source = f"from {config.result}"
    groups = found.settings.norm_groups
    decoder, why = load_decoder(found.checkpoint, found.name, tokenizer.spec.pixels, groups)
    found.checkpoint.close()
    assert tokenizer.spec.image_size is not None
    batch_size = min(BLOCK, choose_batch_size(device, tokenizer.spec.image_size))
    processor = BatchProcessor(tokenizer.to(device, precision), device, batch_size)
    decoder = None if decoder is None else decoder.to(device)
    return _Loaded(processor, decoder, why, temperatures, source, precision)


def _temperatures(config: ShowConfig, tokenizer: Tokenizer) -> tuple[list[float], str]:
    """Return each scale's temperature and their source; nothing if a result gives them."""
    spec = tokenizer.spec
    if config.result is not None:
        return [], ""
    if config.temperature == "auto":
        raise EntropyCliError(f"temperature auto: {ADVICE}.")
    if config.temperature is None and spec.temperature == "auto":
        raise EntropyCliError(f"{config.checkpoint}: {spec.temperature_source}, and auto {ADVICE}.")
    value = spec.temperature if config.temperature is None else config.temperature
    assert value != "auto"
    source = spec.temperature_source if config.temperature is None else "set by --temperature"
    return [value] * len(spec.scales), f"{value:g}: {source}"


def _check_result(
    result: Result, config: ShowConfig, tokenizer: Tokenizer, found: Found, bars: Bars
) -> None:
    """Raise CheckpointError if a result is of another tokenizer."""
    spec, theirs = tokenizer.spec, result.tokenizer
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


def _load_crops(config: ShowConfig, tokenizer: Tokenizer, bars: Bars) -> list[Tensor]:
    """Read and crop all images first, so that an unreadable one fails before the work."""
    crops = []
    with bars("decoding", len(config.files), "image") as bar:
        for path, _ in config.files:
            crop = read_image(path, tokenizer.spec.crop.apply)
            if isinstance(crop, str):
                raise DatasetError(f"{path}: can't be read: {crop}. Give an image file.")
            crops.append(crop)
            bar.update(1)
    return crops


def _assign_images(
    config: ShowConfig, loaded: _Loaded, crops: Sequence[Tensor], bars: Bars
) -> list[list[ScaleTokens]]:
    """Assign the tokens of each image, scale by scale; the encoder runs in batches as in `estimate`."""
    processor, assigned = loaded.processor, []
    names = [str(path) for path, _ in config.files]
    with bars("assigning tokens", len(crops) * len(loaded.temperatures), "scale") as bar:
        for start in range(0, len(crops), processor.batch_size):
            part = slice(start, start + processor.batch_size)
            f_BChw = encode_images(processor, names[part], torch.stack(list(crops[part])))
            for i, name in enumerate(names[part]):
                image = name, crops[start + i], f_BChw[i : i + 1]
                assigned.append(
                    assign_image(processor, *image, loaded.temperatures, loaded.decoder, bar.update)
                )
    return assigned


def _summarize(path: Path, figure: Path, loaded: _Loaded, scales: Sequence[ScaleTokens]) -> ShownImage:
    spec, shown = loaded.tokenizer.spec, []
    for s, (scale, found) in enumerate(zip(spec.scales, scales, strict=True)):
        tokens = found.entropy_l.tolist(), found.code_lK.tolist(), found.probability_lK.tolist()
        place = s, scale.patch_num, found.grid
        shown.append(shown_scale(scale.name, place, loaded.temperatures[s], tokens, found.psnr_db))
    assert spec.image_size is not None
    return shown_image(str(path), str(figure), spec.image_size, shown)


def _panels(tokenizer: Tokenizer, scales: Sequence[ScaleTokens]) -> list[Panel]:
    """Return the colours and the decoded image of each scale, for drawing."""
    panels = []
    for s, scale in enumerate(scales):
        numbered = scale.code_lK.shape[1] > 0
        colours_l3 = (
            code_colours(scale.code_lK[:, 0], tokenizer.codebook(s)).numpy() if numbered else None
        )
        recon_HW3 = None if scale.recon_3HW is None else scale.recon_3HW.permute(1, 2, 0).numpy()
        panels.append(Panel(colours_l3, recon_HW3))
    return panels
