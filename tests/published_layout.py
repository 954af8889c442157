"""Names and shapes of the published VAR autoencoder, written down after its classes.

Source:
    FoundationVision/VAR models/vqvae.py, models/basic_vae.py, models/quant.py.
"""

import itertools


def published(width, mult, blocks, C, V, scales):
    """Of every entry of the state dict."""
    return {
        **_outside(width, width * mult[0], width * mult[-1], C),
        **_encoder([width * m for m in (1, *mult)], blocks),
        **_decoder([width * m for m in mult], blocks),
        "quantize.embedding.weight": (V, C),
        "quantize.ema_vocab_hit_SV": (scales, V),
    }


def _outside(width, last, top, C):
    """All but the levels."""
    found = {}
    for k in range(4):
        found |= _layer(f"quantize.quant_resi.qresi_ls.{k}", C, C, 3, 3)
    found |= _layer("quant_conv", C, C, 3, 3) | _layer("post_quant_conv", C, C, 3, 3)
    found |= _layer("encoder.conv_in", width, 3, 3, 3) | _layer("encoder.conv_out", C, top, 3, 3)
    found |= _layer("decoder.conv_in", top, C, 3, 3) | _layer("decoder.conv_out", 3, last, 3, 3)
    found |= _layer("encoder.norm_out", top) | _layer("decoder.norm_out", last)
    for half in ("encoder", "decoder"):
        found |= _block(f"{half}.mid.block_1", top, top) | _attention(f"{half}.mid.attn_1", top)
        found |= _block(f"{half}.mid.block_2", top, top)
    return found


def _encoder(widths, blocks):
    """Levels from the pictures' resolution down; widths begin with conv_in's."""
    found, last = {}, len(widths) - 2
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        level = f"encoder.down.{i}"
        for j in range(blocks):
            found |= _block(f"{level}.block.{j}", after if j else before, after)
            found |= _attention(f"{level}.attn.{j}", after) if i == last else {}
        found |= _layer(f"{level}.downsample.conv", after, after, 3, 3) if i < last else {}
    return found


def _decoder(widths, blocks):
    """The same numbers, but gone through upwards."""
    found, last = {}, len(widths) - 1
    for i, (after, before) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
        level = f"decoder.up.{i}"
        for j in range(blocks + 1):
            found |= _block(f"{level}.block.{j}", after if j else before, after)
            found |= _attention(f"{level}.attn.{j}", after) if i == last else {}
        found |= _layer(f"{level}.upsample.conv", after, after, 3, 3) if i else {}
    return found


def _block(name, before, after):
    return {
        **_layer(f"{name}.norm1", before),
        **_layer(f"{name}.conv1", after, before, 3, 3),
        **_layer(f"{name}.norm2", after),
        **_layer(f"{name}.conv2", after, after, 3, 3),
        **(_layer(f"{name}.nin_shortcut", after, before, 1, 1) if before != after else {}),
    }


def _attention(name, n):
    return {
        **_layer(f"{name}.norm", n),
        **_layer(f"{name}.qkv", 3 * n, n, 1, 1),
        **_layer(f"{name}.proj_out", n, n, 1, 1),
    }


def _layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
