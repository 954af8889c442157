"""What a run reads and what it reads it with: images and a checkpoint, or latents and a codebook."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entropy_cli.data.images import ImageSet, find_images
from entropy_cli.data.latents import LatentSet, ScaleLatents, find_latents
from entropy_cli.data.loader import Source
from entropy_cli.data.pictures import Pictures
from entropy_cli.errors import CheckpointError, EntropyCliError
from entropy_cli.functional.codebook import Codebook, Grid
from entropy_cli.pipeline.request import Bars, GivenLatents, Request
from entropy_cli.tokenizers import load_tokenizer
from entropy_cli.tokenizers.arrays import Arrays, open_arrays
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.latents import GivenScale, LatentsTokenizer

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
            "checkpoint_classes": list(checkpoint.classes),
            "checkpoint_notes": list(tokenizer.spec.notes),
        },
    )


def _latents(request: Request, given: GivenLatents, bars: Bars) -> Inputs:
    found = open_arrays(given.latents)
    tables = open_arrays(given.codebook) if given.codebook else None
    read, described = [], []
    for s, (name, latents_MX) in enumerate(found.tensors.items()):
        codebook = _codebook(given, tables, s, len(found.tensors))
        dims = None if codebook is None else codebook.latent_dim
        first, shape, dims = _orientation(found.path, name, latents_MX, dims)
        if codebook is None:
            assert given.rule in ("sign", "bsq")
            codebook = Grid.of_bits(dims, "sign" if given.rule == "sign" else "bsq")
        grid = " x ".join(map(str, shape)) if len(shape) == 2 else f"{torch.Size(shape).numel()} tokens"
        described.append(GivenScale(grid if len(found.tensors) == 1 else name, shape, codebook))
        read.append(ScaleLatents(name, latents_MX, first))
    with bars("listing latents", None, "img") as bar:
        images = find_latents(
            str(found.path), read, seed=request.seed, limit=request.limit, progress=bar.update
        )
    sha256 = None if tables is None else _sha256(tables.path, bars)
    words = f"none: latents {', '.join(found.tensors)} of {found.path.name}"
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


def _codebook(given: GivenLatents, tables: Arrays | None, s: int, scales: int) -> Codebook | Grid | None:
    """Of a scale; None if it is bits, as many as the latents have numbers."""
    if given.rule == "levels":
        assert given.levels is not None
        return Grid.of_levels(given.levels)
    if tables is None:
        return None
    if len(tables.tensors) not in (1, scales):
        raise CheckpointError(
            f"{tables.path}: got {len(tables.tensors)} codebooks ({', '.join(tables.tensors)}) for "
            f"{scales} scales, expected one for all or one for each. Choose them with FILE:KEY[,KEY...]."
        )
    name = list(tables.tensors)[min(s, len(tables.tensors) - 1)]
    codebook_VC: Tensor = tables.tensors[name].to(torch.float32)
    if codebook_VC.ndim != 2 or 0 in codebook_VC.shape or not codebook_VC.isfinite().all():
        raise CheckpointError(
            f"{tables.path}: {name} has shape {tuple(codebook_VC.shape)}, expected finite codes (V, C)."
        )
    return Codebook(codebook_VC, given.rule)


def _orientation(
    path: Path, name: str, latents_MX: Tensor, dims: int | None
) -> tuple[bool, tuple[int, ...], int]:
    """Whether channels come first, the shape of an image's latents without them, and their number."""
    _, *shape = latents_MX.shape
    if latents_MX.ndim in (2, 3, 4):
        usual_first = latents_MX.ndim == 4
        for first in (usual_first, not usual_first):
            channels, others = (shape[0], shape[1:]) if first else (shape[-1], shape[:-1])
            if channels == dims or (dims is None and first == usual_first):
                return first and bool(others), tuple(others), channels
    raise EntropyCliError(
        f"{path}: {name} has shape {tuple(latents_MX.shape)}, expected (images, C, h, w), "
        f"(images, l, C) or (images, C){f' with C = {dims}, the numbers of a code' if dims else ''}."
    )


def _sha256(path: Path, bars: Bars) -> str:
    digest = hashlib.sha256()
    with bars("hashing codebook", path.stat().st_size, "B") as bar, path.open("rb") as file:
        while piece := file.read(2**24):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()
