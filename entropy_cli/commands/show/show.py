"""From images and a checkpoint to pictures in which one sees where the tokenizer is undecided."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from entropy_cli.commands.show.check import ScaleLook, encoded, look
from entropy_cli.commands.show.code_colours import colours_of
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
    check_precision,
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
    "is fitted to many images, and here are few. Give a number with --temperature, or with --result the "
    "file of an estimate, whose temperatures are then taken"
)


@dataclass(frozen=True)
class ShowConfig:
    """What to show and with what; None where the program chooses.

    Attributes:
        pictures: for each image the file to draw.
        temperature: of all scales.
        result: of an estimate with the same tokenizer, whose temperatures are taken.
        precision: of the encoder.
    """

    pictures: Sequence[tuple[Path, Path]]
    checkpoint: Path
    family: str = "auto"
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    temperature: float | Literal["auto"] | None = None
    result: Path | None = None
    device: str = "auto"
    precision: Precision | None = None


@dataclass(frozen=True)
class _Opened:
    """The tokenizer, on the device, and what was decided about it."""

    worker: BatchProcessor
    decoder: LatentDecoder | None
    no_decoder: str
    temperatures: list[float]
    source: str
    precision: Precision

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.worker.tokenizer


@torch.inference_mode()
@matmul_precision(tf32=False)
def show(config: ShowConfig, bars: Bars) -> ShowResult:
    """Look at images, token by token, and draw a picture of each.

    Args:
        config: for what.
        bars: makes progress bars.

    Raises:
        EntropyCliError: an image, the checkpoint or the result can't be used, there is no temperature,
            or matplotlib is missing.
    """
    with styled():  # that it is there is known before the work
        result = None if config.result is None else read_result(config.result)
    for path, _ in config.pictures:
        _check_image(path)
    opened = _open(config, result, bars)
    crops = _crops(config, opened.tokenizer, bars)
    warn_if_emulated(opened.tokenizer, opened.precision, opened.worker.device, crops[0][None])
    looks = _looks(config, opened, crops, bars)
    images = [
        _described(path, picture, opened, of_image)
        for (path, picture), of_image in zip(config.pictures, looks, strict=True)
    ]
    spec = opened.tokenizer.spec
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
            "temperature_source": opened.source,
            "image_size": spec.image_size,
            "preprocess": spec.preprocess,
            "precision": opened.precision,
            "no_decoder": opened.no_decoder or None,
        },
        images,
    )
    with bars("drawing", len(crops), "picture") as bar:
        for i, (_, picture) in enumerate(config.pictures):
            panels = _panels(opened.tokenizer, looks[i])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph")  # of a name, drawn as a box
                write_figure(draw(shown, i, crops[i].permute(1, 2, 0).numpy(), panels), picture)
            bar.update(1)
    return shown


def _check_image(path: Path) -> None:
    if path.is_dir():
        raise DatasetError(
            f"{path}: is a folder, expected image files. Give some of them, such as {path}/*.jpg."
        )
    if not path.exists():
        raise DatasetError(f"{path}: no such image.")


def _open(config: ShowConfig, result: Result | None, bars: Bars) -> _Opened:
    device = choose_device(config.device)
    precision = config.precision or choose_precision(device)
    check_precision(precision, device)
    found = find_family(config.checkpoint, config.family, config.tokenizer)
    tokenizer = found.build()
    for note in (*tokenizer.spec.notes, *codebook_notes(tokenizer)):
        logger.warning("%s: %s", config.checkpoint, note)
    temperatures, source = _temperatures(config, tokenizer)
    if result is not None:
        _check_same(result, config, tokenizer, found, bars)
        temperatures = [scale.temperature for scale in result.scales]
        source = f"those of {config.result}"
    groups = found.settings.norm_groups
    decoder, why = load_decoder(found.checkpoint, found.name, tokenizer.spec.pixels, groups)
    found.checkpoint.close()
    assert tokenizer.spec.image_size is not None
    batch_size = min(BLOCK, choose_batch_size(device, tokenizer.spec.image_size))
    worker = BatchProcessor(tokenizer.to(device, precision), device, batch_size)
    decoder = None if decoder is None else decoder.to(device)
    return _Opened(worker, decoder, why, temperatures, source, precision)


def _temperatures(config: ShowConfig, tokenizer: Tokenizer) -> tuple[list[float], str]:
    """Of each scale, and where they are from; none yet if they come from a result."""
    spec = tokenizer.spec
    if config.result is not None:
        return [], ""
    if config.temperature == "auto":
        raise EntropyCliError(f"temperature auto: {ADVICE}.")
    if config.temperature is None and spec.temperature == "auto":
        raise EntropyCliError(f"{config.checkpoint}: {spec.temperature_source}, and auto {ADVICE}.")
    value = spec.temperature if config.temperature is None else config.temperature
    assert value != "auto"
    source = spec.temperature_source if config.temperature is None else "given"
    return [value] * len(spec.scales), f"{value:g}: {source}"


def _check_same(
    result: Result, config: ShowConfig, tokenizer: Tokenizer, found: Found, bars: Bars
) -> None:
    """That a result is of this tokenizer, or CheckpointError."""
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
                f"{config.result}: is of another tokenizer: its {name} is {was}, that of "
                f"{config.checkpoint} {now}. Give the result of an estimate with this checkpoint and "
                "the same options."
            )
    with bars("hashing checkpoint", found.checkpoint.size, "B") as bar:
        sha256 = found.checkpoint.sha256(bar.update)
    if sha256 != theirs.checkpoint_sha256:
        raise CheckpointError(
            f"{config.result}: is of another checkpoint: its sha256 is not that of {config.checkpoint}. "
            "Give the result of an estimate with this one."
        )


def _crops(config: ShowConfig, tokenizer: Tokenizer, bars: Bars) -> list[Tensor]:
    """All images, before the work: one that can't be read is better known at once."""
    crops = []
    with bars("decoding", len(config.pictures), "picture") as bar:
        for path, _ in config.pictures:
            crop = read_image(path, tokenizer.spec.crop.apply)
            if isinstance(crop, str):
                raise DatasetError(f"{path}: can't be read: {crop}. Give an image file.")
            crops.append(crop)
            bar.update(1)
    return crops


def _looks(
    config: ShowConfig, opened: _Opened, crops: Sequence[Tensor], bars: Bars
) -> list[list[ScaleLook]]:
    """Of each image, its scales; through the encoder images go in batches like `estimate`'s."""
    worker, looks = opened.worker, []
    names = [str(path) for path, _ in config.pictures]
    with bars("looking", len(crops) * len(opened.temperatures), "scale") as bar:
        for start in range(0, len(crops), worker.batch_size):
            part = slice(start, start + worker.batch_size)
            latent_BChw = encoded(worker, names[part], torch.stack(list(crops[part])))
            for i, name in enumerate(names[part]):
                img_3HW, one_BChw = crops[start + i], latent_BChw[i : i + 1]
                looks.append(
                    look(
                        worker, name, img_3HW, one_BChw, opened.temperatures, opened.decoder, bar.update
                    )
                )
    return looks


def _described(path: Path, picture: Path, opened: _Opened, looks: Sequence[ScaleLook]) -> ShownImage:
    spec, scales = opened.tokenizer.spec, []
    for s, (scale, seen) in enumerate(zip(spec.scales, looks, strict=True)):
        tokens = seen.entropy_l.tolist(), seen.code_lK.tolist(), seen.probability_lK.tolist()
        place = s, scale.patch_num, seen.grid
        scales.append(shown_scale(scale.name, place, opened.temperatures[s], tokens, seen.psnr_db))
    assert spec.image_size is not None
    return shown_image(str(path), str(picture), spec.image_size, scales)


def _panels(tokenizer: Tokenizer, looks: Sequence[ScaleLook]) -> list[Panel]:
    """What of the looks is drawn as pictures."""
    panels = []
    for s, seen in enumerate(looks):
        numbered = seen.code_lK.shape[1] > 0
        colours_l3 = colours_of(seen.code_lK[:, 0], tokenizer.codebook(s)).numpy() if numbered else None
        decoded = None if seen.picture_3HW is None else seen.picture_3HW.permute(1, 2, 0).numpy()
        panels.append(Panel(colours_l3, decoded))
    return panels
