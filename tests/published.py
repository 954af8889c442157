"""Names and shapes of VAR's published autoencoder, written down from its classes."""

import torch


def published_shapes(ch=160, ch_mult=(1, 1, 2, 2, 4), num_res_blocks=2, z=32, V=4096, scales=10):
    """Of every tensor of its state dict."""
    shapes = {"quantize.embedding.weight": (V, z), "quantize.ema_vocab_hit_SV": (scales, V)}
    for name in (
        "quant_conv",
        "post_quant_conv",
        *(f"quantize.quant_resi.qresi_ls.{k}" for k in range(4)),
    ):
        shapes |= _conv(name, z, z, 3)
    widths, last = [ch * mult for mult in ch_mult], len(ch_mult) - 1
    shapes |= _conv("encoder.conv_in", ch, 3, 3) | _conv("decoder.conv_in", widths[last], z, 3)
    before = ch
    for i, width in enumerate(widths):
        shapes |= _blocks(f"encoder.down.{i}", before, width, num_res_blocks, attended=i == last)
        if i < last:
            shapes |= _conv(f"encoder.down.{i}.downsample.conv", width, width, 3)
        before = width
    for side in ("encoder", "decoder"):
        shapes |= _resnet_block(f"{side}.mid.block_1", before, before)
        shapes |= _attn_block(f"{side}.mid.attn_1", before)
        shapes |= _resnet_block(f"{side}.mid.block_2", before, before)
    shapes |= _norm("encoder.norm_out", before) | _conv("encoder.conv_out", z, before, 3)
    for i, width in reversed(list(enumerate(widths))):
        shapes |= _blocks(f"decoder.up.{i}", before, width, num_res_blocks + 1, attended=i == last)
        if i:
            shapes |= _conv(f"decoder.up.{i}.upsample.conv", width, width, 3)
        before = width
    return shapes | _norm("decoder.norm_out", before) | _conv("decoder.conv_out", 3, before, 3)


def decoder_weights(*sizes):
    """Zeros for the part that a published file has and tokens don't need; for the sizes see above."""
    shapes = published_shapes(*sizes)
    return {name: torch.zeros(shapes[name]) for name in shapes if name.startswith(("decoder", "post_"))}


def _conv(name, o, i, k):
    return {f"{name}.weight": (o, i, k, k), f"{name}.bias": (o,)}


def _norm(name, c):
    return {f"{name}.weight": (c,), f"{name}.bias": (c,)}


def _resnet_block(name, i, o):
    shortcut = _conv(f"{name}.nin_shortcut", o, i, 1) if i != o else {}
    convs = _conv(f"{name}.conv1", o, i, 3) | _conv(f"{name}.conv2", o, o, 3)
    return _norm(f"{name}.norm1", i) | _norm(f"{name}.norm2", o) | convs | shortcut


def _attn_block(name, c):
    return (
        _norm(f"{name}.norm", c) | _conv(f"{name}.qkv", 3 * c, c, 1) | _conv(f"{name}.proj_out", c, c, 1)
    )


def _blocks(name, before, width, blocks, *, attended):
    shapes = {}
    for j in range(blocks):
        shapes |= _resnet_block(f"{name}.block.{j}", before if j == 0 else width, width)
        shapes |= _attn_block(f"{name}.attn.{j}", width) if attended else {}
    return shapes
