"""The weights of a checkpoint by part: sizes from shapes alone, and a scan of all values."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from entropy_cli.commands.inspect.result import Encoder, Part
from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.autoencoder import Shapes, count
from entropy_cli.tokenizers.names import PARTS, Layout, joined_shapes, part_of
from entropy_cli.tokenizers.registry import FAMILIES

CHUNK = 2**24  # elements at once
LAYER = "encoder.transformer.{}.mlp.c_fc.weight"


def parts(checkpoint: Checkpoint) -> list[Part]:
    """Return the parts that the checkpoint has, with their sizes."""
    found = []
    for part, names in _by_part(checkpoint).items():
        numbers = {name: math.prod(checkpoint.shapes[name]) for name in names}
        size = sum(n * _itemsize(checkpoint.dtypes[name]) for name, n in numbers.items())
        found.append(Part(part, PARTS[part][1], len(names), sum(numbers.values()), size))
    return found


def scan(checkpoint: Checkpoint, counted: list[Part], bars: Bars) -> list[Part]:
    """Read all weights and return the parts with their non-finite and largest values."""
    names = _by_part(checkpoint)
    with bars("reading all weights", sum(part.bytes for part in counted), "B") as bar:
        return [_scan_part(checkpoint, part, names[part.name], bar.update) for part in counted]


def encoder_sizes(checkpoint: Checkpoint, name: str | None) -> Encoder | None:
    """Return the encoder's sizes, by the family's layout or the first in which it has levels."""
    shapes = checkpoint.shapes
    families = [FAMILIES[name]] if name else FAMILIES.values()
    for family in families:
        layout = getattr(family, "LAYOUT", None)
        found = _convolutional(shapes, layout) if layout else _transformer(shapes)
        if found:
            return found
    return None


def quantiser_names(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the quantiser's weights."""
    return _by_part(checkpoint).get("quantiser", [])


def _by_part(checkpoint: Checkpoint) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in checkpoint.shapes:
        found[part_of(name)].append(name)
    return {part: names for part, names in found.items() if names}


def _itemsize(dtype: str) -> int:
    torch_dtype = getattr(torch, dtype, None)
    return torch_dtype.itemsize if isinstance(torch_dtype, torch.dtype) else 0


def _convolutional(published: Shapes, layout: Layout) -> Encoder | None:
    try:
        shapes = joined_shapes(published, layout.sources(list(published)))
    except (ValueError, IndexError):
        return None
    levels = [f"encoder.down.{i}" for i in range(count(shapes, "encoder.down.{}.block.0.conv1.weight"))]
    widths = [shapes[f"{level}.block.0.conv1.weight"] for level in levels]
    if not levels or not all(widths):
        return None
    middle = "encoder.mid.block_{}.conv1.weight"
    return Encoder(
        kind="convolutional",
        widths=[width[0] for width in widths],
        blocks=[count(shapes, f"{level}.block.{{}}.conv1.weight") for level in levels],
        attention=[any(name.startswith(f"{level}.attn.") for name in shapes) for level in levels],
        middle_blocks=count(shapes, middle, first=1),
        middle_attention=any(name.startswith("encoder.mid.attn_") for name in shapes),
        downsampling=2 ** sum(f"{level}.downsample.conv.weight" in shapes for level in levels),
    )


def _transformer(shapes: Shapes) -> Encoder | None:
    patch, layers = shapes.get("encoder.patch_embed.weight", ()), count(shapes, LAYER)
    if len(patch) != 4 or not layers:
        return None
    return Encoder(
        kind="transformer",
        widths=[patch[0]],
        blocks=[layers],
        attention=[True],
        middle_blocks=0,
        middle_attention=False,
        downsampling=patch[2],
    )


def _scan_part(
    checkpoint: Checkpoint, part: Part, names: list[str], progress: Callable[[int], object]
) -> Part:
    nan = infinite = 0
    largest, bad, unread = 0.0, [], {}
    for name in names:
        try:
            found = _extremes(checkpoint.numbers(name))
        except CheckpointError as error:
            unread[name] = str(error)
            continue
        nan, infinite, largest = nan + found[0], infinite + found[1], max(largest, found[2])
        if found[0] or found[1]:
            bad.append(name)
        progress(math.prod(checkpoint.shapes[name]) * _itemsize(checkpoint.dtypes[name]))
    return replace(part, nan=nan, infinite=infinite, largest=largest, bad=bad, unread=unread)


def _extremes(tensor: Tensor) -> tuple[int, int, float]:
    """Return the number of NaN, the number of infinities, and the largest finite magnitude."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    nan = infinite = 0
    largest = 0.0
    for piece in torch.split(tensor.reshape(-1), CHUNK):
        low = piece.dtype.itemsize < 4 or not piece.is_floating_point()
        part = piece.to(torch.float32 if piece.is_floating_point() else torch.float64) if low else piece
        ends = torch.stack(part.aminmax()) if len(part) else part.new_zeros(1)
        if not ends.isfinite().all():  # aminmax propagates NaN
            nan, infinite = nan + int(part.isnan().sum()), infinite + int(part.isinf().sum())
            part = part[part.isfinite()]
            ends = torch.stack(part.aminmax()) if len(part) else part.new_zeros(1)
        largest = max(largest, ends.abs().max().item())
    return nan, infinite, largest
