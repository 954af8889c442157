"""The estimator as a function, for tokenizers that are Python callables."""

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch

from entropy_cli.api.arrays import Array, shown
from entropy_cli.api.batches import (
    checked_images,
    checked_temperatures,
    to_blocks,
    whole_numbers,
)
from entropy_cli.api.callables import CallableTokenizer, Encode
from entropy_cli.api.in_memory import Origin, Pass
from entropy_cli.api.python_words import naming_parameters
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.files import path_argument
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.quantity import Cluster, TemperatureChoice, TokenPath
from entropy_cli.entropy.vocabulary import MOST_LEVELS, VECTOR_RULES
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import ImageSet, find_images
from entropy_cli.images.plan import BLOCK, number_of_blocks, plan_batches
from entropy_cli.results.schema import Result
from entropy_cli.runs.inputs import identify
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import (
    choose_batch_size,
    choose_device,
    choose_precision,
    choose_workers,
)
from entropy_cli.streaming.reader import Reader
from entropy_cli.tokenizers import registry as tokenizers
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.compiled import Compile, is_worth_compiling
from entropy_cli.tokenizers.convolutional import compiled
from entropy_cli.tokenizers.latents import Channels
from entropy_cli.tokenizers.limits import MOST_PIXELS, MOST_SIDE
from entropy_cli.tokenizers.precision import Precision, matmul_precision
from entropy_cli.tokenizers.settings import TokenizerSettings, Weights

logger = logging.getLogger(__name__)

PrecisionChoice = Precision | Literal["auto"]

# Identity and provenance of the tokenizers that were loaded, for their results.
LOADED: WeakKeyDictionary[Tokenizer, Origin] = WeakKeyDictionary()

MOST_PROCESSES = 1024
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
    scales = whole_numbers("patch_nums", patch_nums, MOST_SIDE)
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
        whole_numbers("image_size", [image_size], MOST_PIXELS)
    loaded = tokenizers.load_tokenizer(path_argument("path", path), family, settings)
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
    path: TokenPath = "hard",
    device: str | torch.device = "auto",
    precision: PrecisionChoice = "auto",
    workers: int | None = None,
    compile: Compile = "auto",
    cluster: Cluster = "image",
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
        path: tokens of which the next scale's residual is left, "hard" for the nearest codes, "drawn"
            for codes drawn at the headline's temperature.
        device: "auto", "cpu", "cuda" or "cuda:0" ..., or a `torch.device`.
        precision: of a loaded tokenizer's encoder, "fp32", "tf32", "fp16" or "bf16"; "auto" is fp32 on a
            CPU and fp16 on a GPU. What others than fp32 change is measured on the first 64 images.
        workers: processes that decode a folder's images, 0 decodes in this one; None chooses on Linux.
            Elsewhere it is 0: processes that start would run a script that has no main guard.
        compile: whether to compile a loaded tokenizer's encoder, "on" or "off"; "auto" does for folders
            of half a million images or more on a GPU.
        cluster: what intervals are about: "image", other images of these folders; "folder", other
            folders, where a folder's are scenes or a sample of classes.

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
    _check_choices(images, precision, workers, compile, path, cluster)
    if callable(tokenizer):
        if compile == "on":
            raise EntropyCliError("compile on: a callable compiles its own network. Leave compile out.")
        if precision not in ("auto", "fp32"):
            raise EntropyCliError(
                f"precision {precision}: is that of a loaded tokenizer's encoder, but a callable "
                "computes in its own. Leave precision out."
            )
        numbers = whole_numbers("levels", levels, MOST_LEVELS, 2)
        wrapped = CallableTokenizer(tokenizer, codebook, rule or "l2", numbers, channels)
        return _of_callable(wrapped, images, on).estimate(temperatures, path)
    if not hasattr(tokenizer, "spec"):
        raise EntropyCliError("tokenizer: expected one from load_tokenizer, or a callable.")
    if any(value is not None for value in (codebook, rule, levels, channels)):
        raise EntropyCliError("codebook, rule, levels and channels: a loaded tokenizer has its own.")
    chosen = choose_precision(on, None if precision == "auto" else precision)
    if isinstance(images, (str, Path)):
        folder = path_argument("images", images)
        found = find_images(folder, seed=SEED, cluster=cluster)
        return _of_folder(tokenizer, found, on, chosen, workers, compile).estimate(temperatures, path)
    return _of_images(tokenizer, images, on, chosen, compile).estimate(temperatures, path)


def _check_choices(
    images: str | Path | Iterable[Array],
    precision: PrecisionChoice,
    workers: int | None,
    compile: Compile,
    path: TokenPath,
    cluster: Cluster,
) -> None:
    """Raise EntropyCliError for what no tokenizer takes."""
    if isinstance(images, Array) or not isinstance(images, (str, Path, Iterable)):
        raise EntropyCliError("images: expected batches one after the other, say a list of tensors.")
    if precision not in ("auto", *get_args(Precision)):
        expected = ", ".join(("auto", *get_args(Precision)))
        raise EntropyCliError(f"precision {precision}: expected {expected}.")
    for name, value, kind in (
        ("compile", compile, Compile),
        ("path", path, TokenPath),
        ("cluster", cluster, Cluster),
    ):
        if value not in get_args(kind):
            raise EntropyCliError(f"{name} {shown(value)}: expected {', '.join(get_args(kind))}.")
    if cluster != "image" and not isinstance(images, (str, Path)):
        raise EntropyCliError(f"cluster {cluster}: read a folder, but batches come from you.")
    if workers is not None and (type(workers) is not int or not 0 <= workers <= MOST_PROCESSES):
        raise EntropyCliError(
            f"workers {shown(workers)}: expected a whole number from 0 to {MOST_PROCESSES}."
        )
    if workers is not None and not isinstance(images, (str, Path)):
        raise EntropyCliError(f"workers {workers}: read a folder, but batches come from you.")


def _of_callable(
    tokenizer: CallableTokenizer, images: str | Path | Iterable[Array], on: torch.device
) -> Pass:
    """Open a pass over batches of what a callable takes."""
    if isinstance(images, (str, Path)):
        raise EntropyCliError(
            "images: a folder needs a tokenizer from load_tokenizer, which knows how to crop its "
            "images. Give batches of them."
        )
    model, latents = tokenizer.open(iter(images))
    processor = BatchProcessor(model.to(on, "fp32"), on, BLOCK)
    return Pass(model, processor, "fp32", to_blocks(latents, SEED), _origin(model), SEED)


def _of_images(
    tokenizer: Tokenizer,
    images: Iterable[Array],
    on: torch.device,
    precision: Precision,
    compile: Compile,
) -> Pass:
    """Open a pass over batches of images of a loaded tokenizer's size."""
    size = tokenizer.spec.image_size
    blocks = to_blocks((checked_images(batch, size) for batch in images), SEED)
    model = tokenizer.to(on, precision)
    if compile == "on":
        model = compiled(model, BLOCK, required=True)
    processor = BatchProcessor(model, on, BLOCK)
    return Pass(tokenizer, processor, precision, blocks, _origin(tokenizer), SEED)


def _of_folder(
    tokenizer: Tokenizer,
    found: ImageSet,
    on: torch.device,
    precision: Precision,
    workers: int | None,
    compile: Compile,
) -> Pass:
    """Open a pass over a folder, whose images the tokenizer crops, in the command's batches."""
    if found.note:
        logger.warning("%s", found.note)
    blocks, spec = number_of_blocks(len(found)), tokenizer.spec
    assert spec.image_size is not None
    size = min(choose_batch_size(on, spec.image_size), BLOCK * blocks)
    plans = plan_batches(len(found), size, range(blocks))
    if workers is None:
        workers = min(choose_workers(on), len(plans)) if sys.platform == "linux" else 0
    model = tokenizer.to(on, precision)
    if is_worth_compiling(compile, on, len(found) * spec.image_size**2):
        model = compiled(model, size, required=compile == "on")
    processor = BatchProcessor(model, on, size)
    source = CroppedImages(found, spec.crop.apply)
    batches = Reader(source, processor, precision, workers).read(plans)
    return Pass(tokenizer, processor, precision, batches, _origin(tokenizer), SEED, found, workers)


def _origin(tokenizer: Tokenizer) -> Origin:
    """Return identity and provenance of a tokenizer, which only those of a checkpoint have."""
    notes = {"checkpoint_notes": [], "codebook_notes": codebook_notes(tokenizer)}
    return LOADED.get(tokenizer) or ({"checkpoint_sha256": None}, {"checkpoint": None, **notes})
