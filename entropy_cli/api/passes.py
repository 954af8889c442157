"""Open a pass over images in memory: of a loaded tokenizer, or of a Python callable."""

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch

from entropy_cli.api.arrays import Array, shown
from entropy_cli.api.batches import (
    checked_images,
    to_blocks,
)
from entropy_cli.api.callables import Codes, Encode
from entropy_cli.api.in_memory import Origin, Pass
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.files import path_argument
from entropy_cli.core.progress_bars import no_bars
from entropy_cli.core.remote.fetch import local_path
from entropy_cli.entropy.quantity import Cluster, TokenPath
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import ImageSet, find_images
from entropy_cli.images.plan import BLOCK, number_of_blocks, plan_batches
from entropy_cli.images.roots import files_to_fetch
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import (
    choose_batch_size,
    choose_device,
    choose_precision,
    choose_workers,
)
from entropy_cli.streaming.reader import Reader
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.compiled import Compile, is_worth_compiling
from entropy_cli.tokenizers.convolutional import compiled
from entropy_cli.tokenizers.precision import Precision

logger = logging.getLogger(__name__)

PrecisionChoice = Precision | Literal["auto"]

# Identity and provenance of the tokenizers that were loaded, for their results.
LOADED: WeakKeyDictionary[Tokenizer, Origin] = WeakKeyDictionary()

MOST_PROCESSES = 1024
SEED = 0  # of the order of a folder's images, and of the groups


def open_pass(  # noqa: PLR0913 - a parameter for each that the functions of the API have
    images: str | Path | Iterable[Array],
    tokenizer: Tokenizer | Encode,
    codes: Codes,
    device: str | torch.device,
    precision: PrecisionChoice,
    workers: int | None,
    compile: Compile,
    cluster: Cluster,
    path: TokenPath = "hard",
) -> Pass:
    """Open a pass over images; for the parameters see `estimate`.

    Raises:
        EntropyCliError: they don't fit each other, or there are no images.
    """
    on = choose_device(device)
    _check_choices(images, precision, workers, compile, path, cluster)
    if callable(tokenizer):
        if compile == "on":
            raise EntropyCliError("compile on: a callable compiles its own network. Leave compile out.")
        if precision not in ("auto", "fp32"):
            raise EntropyCliError(
                f"precision {precision}: is that of a loaded tokenizer's encoder, but a callable "
                "computes in its own. Leave precision out."
            )
        return _of_callable(tokenizer, codes, images, on)
    if not hasattr(tokenizer, "spec"):
        raise EntropyCliError("tokenizer: expected one from load_tokenizer, or a callable.")
    if any(value is not None for value in vars(codes).values()):
        raise EntropyCliError("codebook, rule, levels and channels: a loaded tokenizer has its own.")
    chosen = choose_precision(on, None if precision == "auto" else precision)
    if isinstance(images, (str, Path)):
        folder = local_path(path_argument("images", images), files_to_fetch, no_bars)
        found = find_images(folder, seed=SEED, cluster=cluster)
        return _of_folder(tokenizer, found, on, chosen, workers, compile)
    return _of_images(tokenizer, images, on, chosen, compile)


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
    encode: Encode, codes: Codes, images: str | Path | Iterable[Array], on: torch.device
) -> Pass:
    """Open a pass over batches of what a callable takes."""
    if isinstance(images, (str, Path)):
        raise EntropyCliError(
            "images: a folder needs a tokenizer from load_tokenizer, which knows how to crop its "
            "images. Give batches of them."
        )
    model, latents = codes.open(encode, iter(images))
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
