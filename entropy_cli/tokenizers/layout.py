"""The published key layout of VAR's encoder and quantiser, from a few sizes."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class VARSizes:
    """Sizes of a VAR tokenizer; the defaults are those of the published one."""

    width: int = 160
    width_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    latent_dim: int = 32
    vocab_size: int = 4096
    phis: int = 4


def var_shapes(sizes: VARSizes) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight but the decoder's, with attention at the lowest resolution."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, out_channels, in_channels, kernel in _convolutions(sizes):
        shapes[f"{name}.weight"] = (out_channels, in_channels, kernel, kernel)
        shapes[f"{name}.bias"] = (out_channels,)
    for name, channels in _norms(shapes):
        shapes |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    shapes["quantize.embedding.weight"] = (sizes.vocab_size, sizes.latent_dim)
    return shapes


def _convolutions(sizes: VARSizes) -> Iterator[tuple[str, int, int, int]]:
    """Name, channels out, channels in, kernel."""
    channels = sizes.width
    last = len(sizes.width_mult) - 1
    yield "encoder.conv_in", channels, 3, 3
    for i, mult in enumerate(sizes.width_mult):
        level = f"encoder.down.{i}"
        for j in range(sizes.blocks):
            yield from _resnet(f"{level}.block.{j}", channels, sizes.width * mult)
            channels = sizes.width * mult
            if i == last:
                yield from _attention(f"{level}.attn.{j}", channels)
        if i != last:
            yield f"{level}.downsample.conv", channels, channels, 3
    yield from _resnet("encoder.mid.block_1", channels, channels)
    yield from _attention("encoder.mid.attn_1", channels)
    yield from _resnet("encoder.mid.block_2", channels, channels)
    yield "encoder.conv_out", sizes.latent_dim, channels, 3
    yield "quant_conv", sizes.latent_dim, sizes.latent_dim, 3
    for k in range(sizes.phis):
        yield f"quantize.quant_resi.qresi_ls.{k}", sizes.latent_dim, sizes.latent_dim, 3


def _resnet(name: str, before: int, after: int) -> Iterator[tuple[str, int, int, int]]:
    yield f"{name}.conv1", after, before, 3
    yield f"{name}.conv2", after, after, 3
    if before != after:
        yield f"{name}.nin_shortcut", after, before, 1


def _attention(name: str, channels: int) -> Iterator[tuple[str, int, int, int]]:
    yield f"{name}.qkv", 3 * channels, channels, 1
    yield f"{name}.proj_out", channels, channels, 1


def _norms(shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    """The norm before each convolution that has one, with the channels it normalises."""
    before = {"conv1": "norm1", "conv2": "norm2", "qkv": "norm", "conv_out": "norm_out"}
    found = []
    for name, shape in shapes.items():
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        if name.endswith(".weight") and leaf in before:
            found.append((f"{parent}.{before[leaf]}", shape[1]))
    return found
