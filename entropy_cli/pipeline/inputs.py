"""What a run reads and what it reads it with: images and a checkpoint, or latents and a codebook."""

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from entropy_cli.data.images import ImageSet, find_images
from entropy_cli.data.latents import LatentSet, ScaleLatents, find_latents
from entropy_cli.data.loader import Source
from entropy_cli.data.pictures import Pictures
from entropy_cli.errors import CheckpointError
from entropy_cli.pipeline.request import Bars, GivenLatents, Request
from entropy_cli.tokenizers import load_tokenizer
from entropy_cli.tokenizers.arrays import Arrays, open_arrays
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.latents import LatentsTokenizer, describe_latents

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Everything opened and listed.

    Attributes:
        images: which images, or latents of images.
        source: where they are read from.
        identity: what of the tokenizer changes the number and is not in its spec.
        provenance: where things are, for the record.
    """

    tokenizer: Tokenizer
    images: ImageSet | LatentSet
    source: Source
    identity: dict[str, Any]
    provenance: dict[str, Any]


def open_inputs(request: Request, bars: Bars) -> Inputs:
    """Open what the request names.

    Raises:
        EntropyCliError: any of it can't be used.
    """
    return _latents(request, request.latents, bars) if request.latents else _pictures(request, bars)


def _pictures(request: Request, bars: Bars) -> Inputs:
    assert request.data is not None and request.checkpoint is not None
    loaded = load_tokenizer(request.checkpoint, request.family, request.tokenizer)
    tokenizer, checkpoint = loaded.tokenizer, loaded.checkpoint
    if checkpoint.classes:
        logger.info(
            "%s: of what its pickle names, %d classes stayed names: %s",
            checkpoint.path,
            len(checkpoint.classes),
            ", ".join(checkpoint.classes[:4]) + (", ..." if len(checkpoint.classes) > 4 else ""),
        )
    with bars("listing images", None, "img") as bar:
        images = find_images(
            request.data, request.split, seed=request.seed, limit=request.limit, progress=bar.update
        )
    with bars("hashing checkpoint", checkpoint.size, "B") as bar:
        sha256 = checkpoint.sha256(bar.update)
    return Inputs(
        tokenizer,
        images,
        Pictures(images, tokenizer.spec.crop.apply),
        {"checkpoint_sha256": sha256, "checkpoint_weights": checkpoint.weights},
        {
            "data": images.location,
            "checkpoint": str(request.checkpoint.resolve()),
            "checkpoint_wrapper": checkpoint.wrapper,
            "checkpoint_prefix": checkpoint.prefix,
            "checkpoint_weights": checkpoint.weights,
            "checkpoint_copies": checkpoint.copies,
            "checkpoint_classes": list(checkpoint.classes),
            "checkpoint_notes": list(tokenizer.spec.notes),
        },
    )


def _latents(request: Request, given: GivenLatents, bars: Bars) -> Inputs:
    found = open_arrays(given.latents)
    tables = None if given.codebook is None else open_arrays(given.codebook)
    read, described = [], []
    for s, (name, latents_MX) in enumerate(found.tensors.items()):
        table_VC = _table(given, tables, s, len(found.tensors))
        first, scale = describe_latents(
            name, tuple(latents_MX.shape), given.rule, table_VC, given.levels
        )
        described.append(scale if len(found.tensors) > 1 else replace(scale, name=scale.grid))
        read.append(ScaleLatents(name, latents_MX, first))
    with bars("listing latents", None, "img") as bar:
        images = find_latents(
            str(found.path), read, seed=request.seed, limit=request.limit, progress=bar.update
        )
    sha256 = None if tables is None else _sha256(tables.path, bars)
    words = "none: given latents" + (f" {', '.join(found.tensors)}" if len(found.tensors) > 1 else "")
    return Inputs(
        LatentsTokenizer(described, given.rule, words),
        images,
        images,
        {"checkpoint_sha256": sha256, "codebooks": list(tables.tensors) if tables else given.levels},
        {
            "data": str(found.path.resolve()),
            "checkpoint": str(tables.path.resolve()) if tables else None,
            "checkpoint_notes": [],
        },
    )


def _table(given: GivenLatents, tables: Arrays | None, s: int, scales: int) -> Tensor | None:
    """The codes of a scale, if it has any."""
    if tables is None:
        return None
    if len(tables.tensors) not in (1, scales):
        raise CheckpointError(
            f"{tables.path}: got {len(tables.tensors)} codebooks ({', '.join(tables.tensors)}) for "
            f"{scales} scales, expected one for all or one for each. Choose them with FILE:KEY[,KEY...]."
        )
    return list(tables.tensors.values())[min(s, len(tables.tensors) - 1)]


def _sha256(path: Path, bars: Bars) -> str:
    digest = hashlib.sha256()
    with bars("hashing codebook", path.stat().st_size, "B") as bar, path.open("rb") as file:
        while piece := file.read(2**24):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()
