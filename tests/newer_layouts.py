"""Tiny shapes of the families that came later, under the names that each publishes."""

import re

from tests.encoder_shapes import LDM, LLAMAGEN, conv_encoder, layer

MASKGIT = LDM | {
    "mid": ("encoder.mid.0", "encoder.mid.1"),
    "bias": False,
    "out_kernel": 1,
    "shortcut_last": True,
}
MASKBIT = MASKGIT | {
    "block": "encoder.down.{}.res_blocks.{}",
    "down": "encoder.down.{}.down_conv",
    "mid": ("encoder.mid.res_blocks.0", "encoder.mid.res_blocks.1"),
}
TRANSFORMERS = (
    (r"^encoder\.down\.", "encoder.down_block.down."),
    (r"\.attn\.(\d+)\.norm\.", r".attn_norms.\1."),
    (r"^encoder\.mid\.attn_1\.norm\.", "encoder.middle_block.attn_norm."),
    (r"^encoder\.mid\.", "encoder.middle_block."),
    (r"(attn[._]\d+)\.([qkv])\.", r"\1.\2_proj."),
    (r"(attn[._]\d+)\.proj_out\.", r"\1.out_proj."),
)


# The name of the layer inside a wrapper.
INNER = re.compile(r"\.((?:conv|norm|nin_shortcut)\w*)\.(?:conv|norm)\.(weight|bias)$")


def renamed(shapes, *renames):
    """Under other names."""
    found = {}
    for name, shape in shapes.items():
        for pattern, other in renames:
            name = re.sub(pattern, other, name)
        found[name] = shape
    return found


def without(shapes, pattern):
    return {name: shape for name, shape in shapes.items() if not re.search(pattern, name)}


def infinity_shapes(bits=7, widths=(32, 64)):
    """Its wrappers around layers have the layers' names again."""
    shapes = conv_encoder(LDM, bits, widths=widths, attends=False)
    names = r"\.((?:conv|norm|nin_shortcut)\w*)\.(weight|bias)$"
    wrapped = {
        re.sub(names, lambda m: f".{m[1]}.{'norm' if 'norm' in m[1] else 'conv'}.{m[2]}", name): shape
        for name, shape in shapes.items()
    }
    return wrapped | {"quantizer.lfq.mask": (bits,), "quantize.lfq.mask": (bits,)}


def maskgit_shapes(latent_dim=6, vocab_size=40):
    """Means of 2 x 2 between its levels have no weights."""
    shapes = without(conv_encoder(MASKGIT, latent_dim, attends=False), "downsample")
    return shapes | {"quantize.embedding.weight": (vocab_size, latent_dim)}


def maskbit_shapes(bits=7):
    shapes = conv_encoder(MASKBIT, bits, attends=False)
    return shapes | {"encoder.down.0.down_conv.bias": (32,), "quantize.bits_to_indices": (bits,)}


def vqgan_plus_shapes(latent_dim=6, vocab_size=40):
    shapes = without(conv_encoder(MASKBIT, latent_dim, attends=False), "down_conv")
    return shapes | {"quantize.embedding.weight": (vocab_size, latent_dim)}


def show_o_shapes(bits=7):
    """As many blocks as each level has, which differ."""
    shapes = without(conv_encoder(LDM, bits, blocks=2), r"down\.\d\.attn|down\.0\.block\.1")
    return shapes | layer("encoder.quant_conv", bits, bits, 1, 1) | {"quantize.power_vals": (bits,)}


def time_conv(name, out_channels, in_channels, kernel):
    return layer(f"{name}.conv", out_channels, in_channels, *kernel)


def emu3_shapes(latent_dim=6, vocab_size=40, frame=5):
    shapes = conv_encoder(LDM, frame)
    for i in range(2):
        shapes |= time_conv(f"encoder.time_conv.{i}.conv", frame, frame, (4, 3, 3))
        name = f"encoder.time_res_stack.{i}"
        for part in ("1", "2"):
            shapes |= time_conv(f"{name}.conv{part}", frame, frame, (3, 3, 3))
            shapes |= {
                f"{name}.norm{part}.{moment}": (frame,)
                for moment in ("weight", "bias", "running_mean", "running_var")
            }
    shapes |= time_conv("quant_conv", latent_dim, frame, (3, 1, 1))
    return shapes | {"quantize.embedding.weight": (vocab_size, latent_dim)}


def flexvar_shapes(vocab_size=40):
    shapes = conv_encoder(LLAMAGEN, 5) | layer("quant_conv", 32, 5, 1, 1)
    return shapes | {"quantize.embedding.weight": (vocab_size, 32)}


def dall_e_shapes(vocab_size=40, width=16):
    """Two resolutions: the sizes tell how many there are."""
    shapes = {}

    def conv(name, out_channels, in_channels, kernel):
        shapes[f"{name}.w"] = (out_channels, in_channels, kernel, kernel)
        shapes[f"{name}.b"] = (out_channels,)

    conv("blocks.input", width, 3, 7)
    before = width
    for group, after in ((1, width), (2, 2 * width)):
        for block in (1, 2):
            name = f"blocks.group_{group}.block_{block}"
            if before != after:
                conv(f"{name}.id_path", after, before, 1)
            for k, (o, i, kernel) in enumerate(
                ((after // 4, before, 3), (after // 4, after // 4, 3), (after // 4, after // 4, 3)), 1
            ):
                conv(f"{name}.res_path.conv_{k}", o, i, kernel)
            conv(f"{name}.res_path.conv_4", after, after // 4, 1)
            before = after
    conv("blocks.output.conv", vocab_size, before, 1)
    return shapes


FLAVA = (
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
    (r"(group_\d)\.", r"\1.group."),
    (r"\.res_path\.", ".res_path.path."),
)


def cosmos_shapes(levels=6, patch=2):
    """A state dict, which does not tell the levels; the last level but one does not halve the image."""
    shapes = without(conv_encoder(LDM, 5, widths=(32, 64)), "downsample")
    shapes |= {"encoder.conv_in.weight": (32, 3 * patch**2, 3, 3)}
    return shapes | layer("quant_conv", levels, 5, 1, 1)


APERTUS = (
    (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.stages.\1.layers.\2.resnet."),
    (r"^encoder\.down\.(\d+)\.attn\.(\d+)\.", r"encoder.stages.\1.layers.\2.attention."),
    (r"^encoder\.down\.", "encoder.stages."),
)


def vq_kd_shapes(latent_dim=6, vocab_size=40, width=128, patch=4, side=4):
    shapes = {
        "encoder.cls_token": (1, 1, width),
        "encoder.pos_embed": (1, side**2 + 1, width),
        "quantize.embedding.weight": (vocab_size, latent_dim),
    }
    shapes |= layer("encoder.patch_embed.proj", width, 3, patch, patch) | layer("encoder.fc_norm", width)
    for i in range(2):
        block = f"encoder.blocks.{i}"
        shapes |= layer(f"{block}.norm1", width) | layer(f"{block}.norm2", width)
        shapes |= {f"{block}.attn.{part}_bias": (width,) for part in ("q", "v")}
        shapes |= layer(f"{block}.attn.qkv", 3 * width, width, bias=False)
        shapes |= layer(f"{block}.attn.proj", width, width)
        shapes |= layer(f"{block}.mlp.fc1", 2 * width, width) | layer(
            f"{block}.mlp.fc2", width, 2 * width
        )
    shapes |= layer("encode_task_layer.0", width, width)
    return shapes | layer("encode_task_layer.2", latent_dim, width)
