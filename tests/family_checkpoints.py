"""Tiny checkpoints of random weights under the names that each family publishes: one row each."""

from dataclasses import dataclass, field

from entropy_cli.tokenizers.settings import TokenizerSettings
from tests import newer_layouts as newer
from tests.encoder_shapes import (
    DIFFUSERS,
    LDM,
    LLAMAGEN,
    MAGVIT2,
    VAR,
    conv_encoder,
    layer,
    random_weights,
)

__all__ = ["LDM", "layer", "random_weights"]


def with_quant_conv(encoder, made, latent_dim, kernel=1):
    return encoder | layer("quant_conv", latent_dim, made, kernel, kernel)


def vq_shapes(names=LDM, latent_dim=6, vocab_size=40, made=5, **sizes):
    """An encoder, a convolution after it and one codebook."""
    shapes = with_quant_conv(conv_encoder(names, made, **sizes), made, latent_dim)
    return shapes | {"quantize.embedding.weight": (vocab_size, latent_dim)}


def var_shapes(phis=4, latent_dim=6, vocab_size=40, **sizes):
    shapes = with_quant_conv(conv_encoder(VAR, latent_dim, **sizes), latent_dim, latent_dim, kernel=3)
    for k in range(phis):
        shapes |= layer(f"quantize.quant_resi.qresi_ls.{k}", latent_dim, latent_dim, 3, 3)
    return shapes | {"quantize.embedding.weight": (vocab_size, latent_dim)}


def gumbel_shapes(latent_dim=6, vocab_size=40, **sizes):
    shapes = with_quant_conv(conv_encoder(LDM, 5, **sizes), 5, latent_dim)
    shapes |= layer("quantize.proj", vocab_size, latent_dim, 1, 1)
    return shapes | {"quantize.embed.weight": (vocab_size, 3)}


def magvit2_shapes(bits=7, blocks=1, middles=2):
    names = MAGVIT2 | {"mid": tuple(f"encoder.mid_block.{i}" for i in range(middles))}
    return conv_encoder(names, bits, blocks=blocks, attends=False)


def rq_shapes(sizes=(40, 40, 40), latent_dim=6):
    shapes = with_quant_conv(conv_encoder(LDM, 5), 5, latent_dim)
    for i, size in enumerate(sizes):
        name = f"quantizer.codebooks.{i}"
        shapes |= {f"{name}.weight": (size + 1, latent_dim), f"{name}.cluster_size_ema": (size,)}
        shapes |= {f"{name}.embed_ema": (size, latent_dim)}
    return shapes


def titok_shapes(decoder="decoder.ffn.2.weight", latent_dim=12, vocab_size=40, tokens=5, layers=2):
    width, patch, grid = 64, 4, 4
    shapes = {
        "latent_tokens": (tokens, width),
        "encoder.class_embedding": (1, width),
        "encoder.positional_embedding": (grid**2 + 1, width),
        "encoder.latent_token_positional_embedding": (tokens, width),
        "quantize.embedding.weight": (vocab_size, latent_dim),
        decoder: (4, 3, 1, 1),
    }
    shapes |= layer("encoder.patch_embed", width, 3, patch, patch)
    shapes |= layer("encoder.ln_pre", width) | layer("encoder.ln_post", width)
    for i in range(layers):
        block = f"encoder.transformer.{i}"
        shapes |= layer(f"{block}.ln_1", width) | layer(f"{block}.ln_2", width)
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width)}
        shapes |= {f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= layer(f"{block}.attn.out_proj", width, width)
        shapes |= layer(f"{block}.mlp.c_fc", 2 * width, width)
        shapes |= layer(f"{block}.mlp.c_proj", width, 2 * width)
    return shapes | layer("encoder.conv_out", latent_dim, width, 1, 1)


@dataclass(frozen=True)
class Example:
    """A tiny checkpoint of a family, and what is known of it; its pictures are of 16 pixels."""

    shapes: dict[str, tuple[int, ...]]
    rule: str
    temperature: float | str
    crop: str
    scales: tuple[tuple[str, int, int | None], ...] = (("8 x 8", 64, 8),)
    vocab_size: int = 40
    latent_dim: int = 6
    pixels: str = "[-1, 1]"
    settings: TokenizerSettings = field(default=TokenizerSettings(image_size=16))
    family: str = "auto"  # what has to be said of it
    first_is_most: bool = False  # of bits
    codes: str = "quantize.embedding.weight"


PYRAMID = tuple((f"{n} x {n}", n * n, n) for n in (1, 2, 4, 8))
DEPTHS = tuple((f"depth {i}", 64, None) for i in range(3))
TO_16 = "shorter side to 16 ({}), centre crop 16 x 16"
OPENCV, BILINEAR = TO_16.format("INTER_LINEAR of OpenCV"), TO_16.format("BILINEAR")
BICUBIC = TO_16.format("BICUBIC")
HALVED = "halved (BOX) while the shorter side is at least 32, then " + TO_16.format("BICUBIC")

EXAMPLES = {
    "var": Example(
        var_shapes(),
        "l2",
        1.0,
        "shorter side to 18 (LANCZOS), centre crop 16 x 16",
        PYRAMID,
        settings=TokenizerSettings(16, (1, 2, 4, 8)),
    ),
    "vqgan": Example(vq_shapes(blocks=2), "l2", 1.0, OPENCV),
    "llamagen": Example(vq_shapes(LLAMAGEN), "cosine", 0.01, HALVED),
    "ibq": Example(vq_shapes(blocks=4), "dot", 0.01, OPENCV, family="ibq"),
    "open-magvit2": Example(magvit2_shapes(), "sign", 0.01, BILINEAR, vocab_size=2**7, latent_dim=7),
    "rq-vae": Example(rq_shapes(), "l2", 0.5, BILINEAR, DEPTHS),
    "diffusers": Example(vq_shapes(DIFFUSERS), "l2", 1.0, BILINEAR),
    "titok": Example(
        titok_shapes(),
        "cosine",
        "auto",
        BICUBIC,
        (("5 tokens", 5, None),),
        latent_dim=12,
        pixels="[0, 1]",
        settings=TokenizerSettings(),
    ),
    "infinity": Example(
        newer.infinity_shapes(),
        "bsq",
        0.01,
        TO_16.format("LANCZOS"),
        PYRAMID,
        vocab_size=2**7,
        latent_dim=7,
        settings=TokenizerSettings(16, (1, 2, 4, 8)),
        first_is_most=True,
    ),
    "maskgit": Example(newer.maskgit_shapes(), "l2", 1.0, BICUBIC, pixels="[0, 1]"),
    "maskbit": Example(
        *(newer.maskbit_shapes(), "sign", 0.01, BILINEAR),
        vocab_size=2**7,
        latent_dim=7,
        pixels="[0, 1]",
    ),
    "show-o": Example(
        newer.show_o_shapes(), "sign", 1.0, BICUBIC, vocab_size=2**7, latent_dim=7, first_is_most=True
    ),
    "emu3": Example(newer.emu3_shapes(), "l2", 1.0, BICUBIC),
    "flexvar": Example(
        newer.flexvar_shapes(),
        "cosine",
        0.01,
        HALVED,
        PYRAMID,
        latent_dim=32,
        settings=TokenizerSettings(16, (1, 2, 4, 8)),
    ),
    "dall-e": Example(
        *(newer.dall_e_shapes(), "logits", 1.0, TO_16.format("LANCZOS")),
        latent_dim=32,
        pixels="[0.1, 0.9]",
        codes="blocks.output.conv.w",
    ),
    "cosmos": Example(
        newer.cosmos_shapes(), "levels", 1 / 6, BICUBIC, vocab_size=8**3 * 5**3, latent_dim=6
    ),
    "vq-kd": Example(
        *(newer.vq_kd_shapes(), "l2", 1.0),
        "shorter side to 18 (BICUBIC), centre crop 16 x 16",
        (("4 x 4", 16, 4),),
        settings=TokenizerSettings(),
    ),
}

# Folders of golden values that are read exactly: their family and rule.
GOLDEN = {
    "var_l2": ("var", "l2"),
    "var_cosine": ("var", "cosine"),
    "vqgan": ("vqgan", "l2"),
    "vqgan_gumbel": ("vqgan", "logits"),
    "llamagen": ("llamagen", "cosine"),
    "ibq": ("ibq", "dot"),
    "open_magvit2": ("open-magvit2", "sign"),
    "rq_vae": ("rq-vae", "l2"),
    "movqgan_102m": ("vqgan", "l2"),
    "infinity_bsq": ("infinity", "bsq"),
    "maskgit_vqgan": ("maskgit", "l2"),
    "maskbit_lfq": ("maskbit", "sign"),
    "showo_magvitv2": ("show-o", "sign"),
    "emu3_vision_tokenizer": ("emu3", "l2"),
    "flexvar": ("flexvar", "cosine"),
}
# Those that fit a second family: which one has to be asked for.
ASKED = {"ibq": "ibq"}
# Those that are refused, by the name of their tokenizer.
REFUSED = {"generators": "autoregressive transformer"}


def golden_checkpoint(folder):
    """The checkpoint of a folder of golden values: a file or a folder."""
    (path,) = (
        path
        for path in folder.iterdir()
        if path.suffix in (".pth", ".bin", ".ckpt") or path.name in ("ckpt", "ckpt.safetensors")
    )
    return path
