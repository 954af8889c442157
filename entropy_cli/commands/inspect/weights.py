"""The weights of a checkpoint by part: sizes from shapes alone, and a scan of all values."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from entropy_cli.commands.inspect.result import Encoder, Part
from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import Bars, no_bars
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.autoencoder import Shapes, count
from entropy_cli.tokenizers.names import PARTS, Layout, joined_shapes, part_of
from entropy_cli.tokenizers.registry import FAMILIES

CHUNK = 2**24  # elements at once


def names_by_part(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return the names of the weights of each part that the checkpoint has."""
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in checkpoint.shapes:
        found[part_of(name)].append(name)
    return {part: names for part, names in found.items() if names}


def parts(checkpoint: Checkpoint, bars: Bars | None) -> list[Part]:
    """Return the parts with their sizes; with progress bars, also read and check all numbers."""
    numbers = {name: math.prod(shape) for name, shape in checkpoint.shapes.items()}
    size = {name: n * _itemsize(checkpoint.dtypes[name]) for name, n in numbers.items()}
    with (bars or no_bars)("reading all weights", sum(size.values()), "B") as bar:
        return [
            Part(
                name=part,
                makes_tokens=PARTS[part][1],
                tensors=len(names),
                numbers=sum(numbers[name] for name in names),
                bytes=sum(size[name] for name in names),
                **(_scan(checkpoint, names, lambda name: bar.update(size[name])) if bars else {}),
            )
            for part, names in names_by_part(checkpoint).items()
        ]


def _itemsize(dtype: str) -> int:
    torch_dtype = getattr(torch, dtype, None)
    return torch_dtype.itemsize if isinstance(torch_dtype, torch.dtype) else 0


def _scan(
    checkpoint: Checkpoint, names: Sequence[str], progress: Callable[[str], object]
) -> dict[str, Any]:
    """Read weights; return the fields of `Part` on their values."""
    nan = infinite = 0
    largest, bad, unread = 0.0, [], {}
    for name in names:
        try:
            found = _extremes(checkpoint.numbers(name))
        except CheckpointError as error:
            unread[name] = str(error)
            continue
        nan, infinite, largest = nan + found[0], infinite + found[1], max(largest, found[2])
        bad += [name] if found[0] or found[1] else []
        progress(name)
    return {"nan": nan, "infinite": infinite, "largest": largest, "bad": bad, "unread": unread}


def _extremes(tensor: Tensor) -> tuple[int, int, float]:
    """Return the number of NaN, the number of infinities, and the largest finite magnitude."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    nan = infinite = 0
    largest = 0.0
    for piece in torch.split(tensor.reshape(-1), CHUNK):
        if not piece.is_floating_point():
            piece = piece.double()
        elif piece.dtype.itemsize < 4:
            piece = piece.float()
        nan, infinite = nan + int(piece.isnan().sum()), infinite + int(piece.isinf().sum())
        finite = piece.nan_to_num(0.0, 0.0, 0.0).abs()
        largest = max(largest, finite.amax().item() if len(finite) else 0.0)
    return nan, infinite, largest


def encoder_sizes(
    checkpoint: Checkpoint, name: str | None, spec: TokenizerSpec | None
) -> Encoder | None:
    """Return the encoder's sizes, by the family's layout or the first in which it has levels.

    How many pixels a latent covers is what the description of the tokenizer says, if there is one.
    """
    families = [FAMILIES[key] for key in ([name] if name else FAMILIES)]
    found = (
        _convolutional(checkpoint.shapes, family.layout(checkpoint)) or _transformer(checkpoint.shapes)
        for family in families
    )
    encoder, side = next(filter(None, found), None), spec.scales[-1].patch_num if spec else None
    if encoder and spec and spec.image_size and side:
        return replace(encoder, downsampling=spec.image_size // side)
    return encoder


def _convolutional(published: Shapes, layout: Layout) -> Encoder | None:
    names = [name for name in published if name.startswith("encoder.")]
    try:
        shapes = joined_shapes(published, layout.sources(names))
    except (ValueError, IndexError, KeyError):
        return None
    levels = [f"encoder.down.{i}" for i in range(count(shapes, "encoder.down.{}.block.0.conv1.weight"))]
    widths = [shapes[f"{level}.block.0.conv1.weight"] for level in levels]
    if not levels or not all(widths):
        return None
    return Encoder(
        kind="convolutional",
        widths=[width[0] for width in widths],
        blocks=[count(shapes, f"{level}.block.{{}}.conv1.weight") for level in levels],
        attention=[any(name.startswith(f"{level}.attn.") for name in shapes) for level in levels],
        middle_blocks=count(shapes, "encoder.mid.block_{}.conv1.weight", first=1),
        middle_attention=any(name.startswith("encoder.mid.attn_") for name in shapes),
        downsampling=2 ** sum(f"{level}.downsample.conv.weight" in shapes for level in levels),
    )


def _transformer(shapes: Shapes) -> Encoder | None:
    patch = shapes.get("encoder.patch_embed.weight", ())
    layers = count(shapes, "encoder.transformer.{}.mlp.c_fc.weight")
    if len(patch) != 4 or not layers:
        return None
    return Encoder("transformer", [patch[0]], [layers], [True], 0, False, patch[2])  # noqa: FBT003
