"""The published key layout of VAR's autoencoder, from a few sizes."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Convolution = tuple[str, int, int, int]  # name, channels out, channels in, kernel


@dataclass(frozen=True)
class VARSizes:
    """Sizes of a VAR tokenizer; the defaults are those of the published one.

    Attributes:
        width: channels at full resolution.
        width_mult: of each level, the last of which has attention.
        blocks: of each level of the encoder; the decoder has one more.
        phis: convolutions shared by the scales.
    """

    width: int = 160
    width_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    latent_dim: int = 32
    vocab_size: int = 4096
    phis: int = 4


def var_shapes(sizes: VARSizes) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each weight of the encoder and the quantiser."""
    shapes = _weights([*_encoder(sizes), *_quantiser(sizes)])
    return shapes | {"quantize.embedding.weight": (sizes.vocab_size, sizes.latent_dim)}


def decoder_shapes(sizes: VARSizes) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each weight of the decoder."""
    return _weights(_decoder(sizes))


def batch_normed(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Add running moments to every norm, which makes it a batch norm."""
    norms = [n for n, shape in shapes.items() if re.search(r"\.norm.*\.weight$", n) and len(shape) == 1]
    return shapes | {
        f"{name.removesuffix('weight')}{moment}": shapes[name]
        for name in norms
        for moment in ("running_mean", "running_var")
    }


def _weights(convolutions: Iterable[Convolution]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of convolutions, and after them those of the norms before some of them."""
    shapes: dict[str, tuple[int, ...]] = {}
    norms: dict[str, tuple[int, ...]] = {}
    before = {"conv1": "norm1", "conv2": "norm2", "qkv": "norm", "conv_out": "norm_out"}
    for name, out_channels, in_channels, kernel in convolutions:
        shapes[f"{name}.weight"] = (out_channels, in_channels, kernel, kernel)
        shapes[f"{name}.bias"] = (out_channels,)
        parent, _, leaf = name.rpartition(".")
        if leaf in before:
            norms |= dict.fromkeys(
                (f"{parent}.{before[leaf]}.weight", f"{parent}.{before[leaf]}.bias"), (in_channels,)
            )
    return shapes | norms


def _encoder(sizes: VARSizes) -> Iterator[Convolution]:
    channels, last = sizes.width, len(sizes.width_mult) - 1
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
    yield from _middle("encoder.mid", channels)
    yield "encoder.conv_out", sizes.latent_dim, channels, 3


def _quantiser(sizes: VARSizes) -> Iterator[Convolution]:
    yield "quant_conv", sizes.latent_dim, sizes.latent_dim, 3
    for k in range(sizes.phis):
        yield f"quantize.quant_resi.qresi_ls.{k}", sizes.latent_dim, sizes.latent_dim, 3


def _decoder(sizes: VARSizes) -> Iterator[Convolution]:
    last = len(sizes.width_mult) - 1
    channels = sizes.width * sizes.width_mult[last]
    yield "post_quant_conv", sizes.latent_dim, sizes.latent_dim, 3
    yield "decoder.conv_in", channels, sizes.latent_dim, 3
    yield from _middle("decoder.mid", channels)
    for i in reversed(range(last + 1)):
        level = f"decoder.up.{i}"
        for j in range(sizes.blocks + 1):
            yield from _resnet(f"{level}.block.{j}", channels, sizes.width * sizes.width_mult[i])
            channels = sizes.width * sizes.width_mult[i]
            if i == last:
                yield from _attention(f"{level}.attn.{j}", channels)
        if i:
            yield f"{level}.upsample.conv", channels, channels, 3
    yield "decoder.conv_out", 3, channels, 3


def _middle(name: str, channels: int) -> Iterator[Convolution]:
    yield from _resnet(f"{name}.block_1", channels, channels)
    yield from _attention(f"{name}.attn_1", channels)
    yield from _resnet(f"{name}.block_2", channels, channels)


def _resnet(name: str, before: int, after: int) -> Iterator[Convolution]:
    yield f"{name}.conv1", after, before, 3
    yield f"{name}.conv2", after, after, 3
    if before != after:
        yield f"{name}.nin_shortcut", after, before, 1


def _attention(name: str, channels: int) -> Iterator[Convolution]:
    yield f"{name}.qkv", 3 * channels, channels, 1
    yield f"{name}.proj_out", channels, channels, 1
