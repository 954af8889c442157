"""Shapes of the convolutional encoder's weights under the names that each family publishes."""

import math

import torch

# Names of the parts of a convolutional encoder.
LDM = {
    "block": "encoder.down.{}.block.{}",
    "attn": "encoder.down.{}.attn.{}",
    "down": "encoder.down.{}.downsample.conv",
    "mid": ("encoder.mid.block_1", "encoder.mid.block_2"),
    "mid_attn": "encoder.mid.attn_1",
    "norm_out": "encoder.norm_out",
    "conv_out": "encoder.conv_out",
    "shortcut": "nin_shortcut",
    "norm": "norm",
    "qkv": ("q", "k", "v"),
    "proj": "proj_out",
    "kernel": (1, 1),  # of attention
    "bias": True,
    "out_kernel": 3,
}
VAR = LDM | {"qkv": ("qkv",)}
LLAMAGEN = LDM | {
    "block": "encoder.conv_blocks.{}.res.{}",
    "attn": "encoder.conv_blocks.{}.attn.{}",
    "down": "encoder.conv_blocks.{}.downsample.conv",
    "mid": ("encoder.mid.0", "encoder.mid.2"),
    "mid_attn": "encoder.mid.1",
}
MAGVIT2 = LDM | {
    "down": "encoder.down.{}.downsample",
    "mid": ("encoder.mid_block.0", "encoder.mid_block.1"),
    "bias": False,
    "out_kernel": 1,
}
DIFFUSERS = LDM | {
    "block": "encoder.down_blocks.{}.resnets.{}",
    "attn": "encoder.down_blocks.{}.attentions.{}",
    "down": "encoder.down_blocks.{}.downsamplers.0.conv",
    "mid": ("encoder.mid_block.resnets.0", "encoder.mid_block.resnets.1"),
    "mid_attn": "encoder.mid_block.attentions.0",
    "norm_out": "encoder.conv_norm_out",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "qkv": ("to_q", "to_k", "to_v"),
    "proj": "to_out.0",
    "kernel": (),
}


def random_weights(shapes, seed=0):
    """Of such sizes that latents and codes are about as long as each other, and biases matter."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            weight = 0.3 * weight + (name.endswith("weight") and ("norm" in name or ".ln_" in name))
            weight = 1 + weight.abs() if name.endswith("running_var") else weight
        elif not name.startswith("quantize"):
            weight = weight / math.sqrt(math.prod(shape[1:]))
        weights[name] = weight
    return weights


def layer(name, *shape, bias=True):
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def resnet(name, before, after, names):
    bias = names["bias"]
    shapes = layer(f"{name}.norm1", before) | layer(f"{name}.norm2", after)
    shapes |= layer(f"{name}.conv1", after, before, 3, 3, bias=bias)
    shapes |= layer(f"{name}.conv2", after, after, 3, 3, bias=bias)
    if before != after:
        given = after if names.get("shortcut_last") else before
        shapes |= layer(f"{name}.{names['shortcut']}", after, given, 1, 1, bias=bias)
    return shapes


def attention(name, width, names):
    kernel = names["kernel"]
    shapes = layer(f"{name}.{names['norm']}", width)
    for part in names["qkv"]:
        shapes |= layer(f"{name}.{part}", 3 * width // len(names["qkv"]), width, *kernel)
    return shapes | layer(f"{name}.{names['proj']}", width, width, *kernel)


def conv_encoder(names, made, widths=(32, 64), blocks=1, *, attends=True):
    """Shapes of an encoder, of which the last level and the middle attend if any do."""
    shapes = layer("encoder.conv_in", widths[0], 3, 3, 3, bias=names["bias"])
    before, last = widths[0], len(widths) - 1
    for i, width in enumerate(widths):
        for j in range(blocks):
            shapes |= resnet(names["block"].format(i, j), before, width, names)
            before = width
            if i == last and attends:
                shapes |= attention(names["attn"].format(i, j), width, names)
        if i < last:
            shapes |= layer(names["down"].format(i), width, width, 3, 3)
    for name in names["mid"]:
        shapes |= resnet(name, before, before, names)
    if attends:
        shapes |= attention(names["mid_attn"], before, names)
    shapes |= layer(names["norm_out"], before)
    kernel = names["out_kernel"]
    return shapes | layer(names["conv_out"], made, before, kernel, kernel)
