"""The estimator as a function, for tokenizers that are Python callables."""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from entropy_cli.commands.estimate.arrays import Array
from entropy_cli.commands.estimate.batches import (
    checked_images,
    checked_temperatures,
    read_folder,
    to_blocks,
    whole_numbers,
)
from entropy_cli.commands.estimate.build_result import build_result
from entropy_cli.commands.estimate.callables import CallableTokenizer, Encode
from entropy_cli.commands.estimate.inputs import identify
from entropy_cli.commands.estimate.python_words import naming_parameters
from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.quantity import TemperatureChoice
from entropy_cli.entropy.stopping import history_point
from entropy_cli.entropy.vocabulary import VECTOR_RULES
from entropy_cli.images.image_set import GROUPS, ImageSet, find_images
from entropy_cli.images.loader import Batch
from entropy_cli.images.plan import BLOCK
from entropy_cli.results.schema import Result
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import choose_device, device_name, versions
from entropy_cli.streaming.pilot import PILOT_BLOCKS, fit_temperatures, with_fitted
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.run_settings import RunSettings
from entropy_cli.streaming.state import RunMetadata, RunState
from entropy_cli.tokenizers import registry as tokenizers
from entropy_cli.tokenizers.base import Tokenizer, sums_layout
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.latents import Channels
from entropy_cli.tokenizers.precision import matmul_precision
from entropy_cli.tokenizers.settings import TokenizerSettings, Weights

logger = logging.getLogger(__name__)

Temperatures = Sequence[TemperatureChoice] | None

# Identity and provenance of the tokenizers that were loaded, for their results.
LOADED: WeakKeyDictionary[Tokenizer, tuple[dict[str, Any], dict[str, Any]]] = WeakKeyDictionary()

NO_IMAGES = "there are no images that could be read."
SEED = 0  # of the order of a folder's images, and of the groups


@naming_parameters()
def load_tokenizer(
    path: str | Path,
    *,
    family: str = "auto",
    image_size: int | None = None,
    patch_nums: Sequence[int] | None = None,
    rule: Rule | None = None,
    weights: Weights | None = None,
) -> Tokenizer:
    """Load the tokenizer of a published checkpoint; None lets the checkpoint or its family decide.

    Args:
        path: file or folder.
        family: name of a family; "auto" goes by the checkpoint's keys.
        image_size: side of the images in pixels.
        patch_nums: side of each scale's grid.
        rule: "l2", "cosine" or "dot".
        weights: "raw" or "ema".

    Raises:
        CheckpointError: the checkpoint can't be used.
        EntropyCliError: an argument is not one of those listed.
    """
    scales = whole_numbers("patch_nums", patch_nums)
    settings = TokenizerSettings(image_size, scales, rule, weights)
    for name, value, possible in (
        ("family", family, ("auto", *tokenizers.FAMILIES)),
        ("weights", weights, (None, "raw", "ema")),
        ("rule", rule, (None, *VECTOR_RULES)),
    ):
        if value not in possible:
            expected = ", ".join(choice for choice in possible if choice)
            raise EntropyCliError(f"{name} {value}: expected {expected}.")
    if image_size is not None:
        whole_numbers("image_size", [image_size])
    loaded = tokenizers.load_tokenizer(_path("path", path), family, settings)
    LOADED[loaded.tokenizer] = identify(loaded, loaded.checkpoint.sha256())
    return loaded.tokenizer


@naming_parameters()
@torch.inference_mode()
@matmul_precision(tf32=False)
def estimate(  # noqa: PLR0913 - a parameter for each option
    images: str | Path | Iterable[Array],
    tokenizer: Tokenizer | Encode,
    *,
    codebook: Array | Sequence[Array] | None = None,
    rule: Rule | None = None,
    levels: Sequence[int] | None = None,
    channels: Channels | None = None,
    temperature: TemperatureChoice | Sequence[TemperatureChoice] | None = None,
    device: str = "auto",
) -> Result:
    """Estimate a tokenizer's entropies on images, in one pass and in memory.

    Tensors may be numpy arrays. Neither a loaded tokenizer nor a network of yours is moved or changed.

    Args:
        images: batches of what the tokenizer takes, each image once; for a tokenizer from
            `load_tokenizer` uint8 (B, 3, H, W) of its size, or a folder, whose images it crops itself.
        tokenizer: from `load_tokenizer`; or a callable that returns the latents of a batch,
            (B, C, h, w), (B, C, l) or (B, C), or a sequence of such: what is left to be assigned at
            each scale. `codebook`, `rule`, `levels` and `channels` are for callables.
        codebook: codes (V, C), a sequence of such, one for each scale, or (Q, V, C) for Q scales.
            None for bits and levels.
        rule: "l2" by default, "cosine", "dot"; "sign" or "bsq" for bits, "levels" for FSQ.
        levels: number of levels of each dimension, for "levels"; latents are bounded to them, but not
            rounded.
        channels: "first" or "last", as in (B, l, C) and (B, h, w, C); None finds the axis that fits the
            codes' dimensions. If both do a row is refused, and a grid read as (B, C, h, w).
        temperature: one or several, the first is the headline; "auto" among them fits one to each
            scale, on the first 1024 images; None takes the family's or the rule's.
        device: "auto", "cpu", "cuda" or "cuda:0" ...

    Returns:
        What `entropy-cli estimate` writes: `result.average.token_weighted.assignment_entropy` has value,
        se and ci95 in nats per token; `result.write(path)` saves it.

    Raises:
        EntropyCliError: batches, latents and codes don't fit each other, an argument is invalid, or
            there are no images.

    >>> estimate([], len, codebook=torch.eye(2))
    Traceback (most recent call last):
    entropy_cli.core.errors.DatasetError: there are no images.
    """
    on, temperatures = choose_device(device), checked_temperatures(temperature)
    if isinstance(images, Array) or not isinstance(images, (str, Path, Iterable)):
        raise EntropyCliError("images: expected batches one after the other, say a list of tensors.")
    if callable(tokenizer):
        numbers = whole_numbers("levels", levels)
        wrapped = CallableTokenizer(tokenizer, codebook, rule or "l2", numbers, channels)
        return _estimate_callable(wrapped, images, on, temperatures)
    if not hasattr(tokenizer, "spec"):
        raise EntropyCliError("tokenizer: expected one from load_tokenizer, or a callable.")
    if any(value is not None for value in (codebook, rule, levels, channels)):
        raise EntropyCliError("codebook, rule, levels and channels: a loaded tokenizer has its own.")
    return _estimate_loaded(tokenizer, images, on, temperatures)


def _estimate_callable(
    tokenizer: CallableTokenizer,
    images: str | Path | Iterable[Array],
    on: torch.device,
    temperatures: Temperatures,
) -> Result:
    """Estimate on batches of what a callable takes."""
    if isinstance(images, (str, Path)):
        raise EntropyCliError(
            "images: a folder needs a tokenizer from load_tokenizer, which knows how to crop its "
            "images. Give batches of them."
        )
    model, latents = tokenizer.open(iter(images))
    notes = codebook_notes(model)
    processor = BatchProcessor(model.to(on, "fp32"), on, BLOCK)
    return _estimate(processor, to_blocks(latents, SEED), temperatures, notes=notes)


def _estimate_loaded(
    tokenizer: Tokenizer,
    images: str | Path | Iterable[Array],
    on: torch.device,
    temperatures: Temperatures,
) -> Result:
    """Estimate on a folder, or on batches of images of the tokenizer's size."""
    origin = LOADED.get(tokenizer)
    processor = BatchProcessor(tokenizer.to(on, "fp32"), on, BLOCK)
    if isinstance(images, (str, Path)):
        found = find_images(_path("images", images), seed=SEED)
        if found.note:
            logger.warning("%s", found.note)
        return _estimate(processor, read_folder(found, tokenizer), temperatures, origin, found)
    size = tokenizer.spec.image_size
    blocks = to_blocks((checked_images(batch, size) for batch in images), SEED)
    return _estimate(processor, blocks, temperatures, origin)


def _path(name: str, path: str | Path) -> Path:
    """Return a path; refuse empty text, which would be the working folder."""
    if not str(path).strip():
        raise EntropyCliError(f"{name} {path!r}: is empty, expected a path.")
    return Path(path)


def _estimate(
    processor: BatchProcessor,
    batches: Iterator[Batch],
    temperatures: Temperatures,
    origin: tuple[dict[str, Any], dict[str, Any]] | None = None,
    found: ImageSet | None = None,
    notes: Sequence[str] = (),
) -> Result:
    tokenizer, start = processor.tokenizer, time.monotonic()
    identity, checkpoint = origin or (
        {"checkpoint_sha256": None},
        {"checkpoint": None, "checkpoint_notes": [], "codebook_notes": list(notes)},
    )
    settings = RunSettings.of(
        tokenizer,
        temperatures,
        identity,
        seed=SEED,
        images_fingerprint="",
        images=0,
        precision="fp32",
    )
    progress, digest = _accumulate(processor, batches, settings.temperature)
    images = progress.images + len(progress.failed)
    fingerprint = found.fingerprint() if found else digest
    settings = replace(settings, images_fingerprint=fingerprint, images=images)
    metadata = RunMetadata.of(
        tokenizer,
        split=found.split if found else "given",
        images_found=images,
        temperature_given=temperatures is not None,
        provenance={"data": found.location if found else "given from Python", **checkpoint},
    )
    seconds = time.monotonic() - start
    provenance = {
        "command": "entropy_cli.estimate",
        "device": device_name(processor.device),
        "processes": 1,
        "seconds": round(seconds, 3),
        "images_per_s": round(progress.images / seconds, 3),
        "images_resumed": 0,
        **versions(),
    }
    state = RunState(progress, settings, metadata, None)
    return build_result(state, target_reached=None, provenance=provenance)


def _accumulate(
    processor: BatchProcessor, batches: Iterator[Batch], temperatures: Sequence[TemperatureChoice]
) -> tuple[Progress, str]:
    """Sum over all batches; return a digest of their latents beside the sums."""
    progress, encoded, digest = Progress.start(1), processor.encode(batches), hashlib.sha256()
    spec = processor.tokenizer.spec
    fitted_S: Sequence[float | None] = [None] * len(spec.scales)
    if "auto" in temperatures:
        pilot = list(islice(encoded, PILOT_BLOCKS))
        if not pilot:
            raise DatasetError(NO_IMAGES)
        fitted_S, progress.pilot, _ = fit_temperatures(processor, pilot, Ranks(), lambda _: None)
        encoded = chain(pilot, encoded)
    progress.temperatures = with_fitted(temperatures, fitted_S)
    layout = sums_layout(spec.scales, GROUPS, len(progress.temperatures[0]))
    progress.allocate(layout, processor.device)
    for batch in encoded:
        digest.update(batch.input_B.cpu().contiguous().numpy().tobytes())
        processor.add(batch, progress)
    processor.check_finite()
    if not progress.images:
        raise DatasetError(NO_IMAGES)
    tally = progress.tally
    assert tally is not None
    progress.history.append(
        history_point(tally.entropy_GST[..., 0].cpu(), tally.images_G.cpu(), tally.tokens_S.cpu())
    )
    return progress, digest.hexdigest()
