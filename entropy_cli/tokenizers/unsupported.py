"""Layouts that are recognised but not supported, so that an error can name them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from entropy_cli.tokenizers.layers.autoencoder import Shapes


@dataclass(frozen=True)
class Unsupported:
    """A kind of checkpoint that is no tokenizer or not supported: its name, why, and what to do instead.

    It has all the keys, patterns of whole names, no key that it `lacks`, and passes the check if there
    is one; or config.json has a class's name, patterns too. A `broad` one is named where no family is
    near: it could also be a family's damaged file.
    """

    words: str
    keys: tuple[str, ...] = ()
    lacks: str | None = None
    classes: tuple[str, ...] = ()
    check: Callable[[Shapes], bool] | None = None
    broad: bool = False
    trouble: str = "which is not supported"
    advice: str = "make latents with its own code and give --latents"

    def fits(self, shapes: Shapes, outside: Collection[str], classes: Mapping[str, str]) -> bool:
        """Return whether a file has this kind's weights, or its config.json one of its names."""
        has_keys = all(_has(key, shapes) or _has(key, outside) for key in self.keys)
        has_keys &= bool(self.keys or self.check)
        has_keys &= self.lacks is None or not _has(self.lacks, shapes)
        has_keys &= self.check is None or self.check(shapes)
        return has_keys or any(_has(name, classes) for name in self.classes)


def gives_variances(shapes: Shapes) -> bool:
    """Return whether the encoder gives a mean and a variance for each number that the decoder takes."""
    given = shapes.get("encoder.conv_out.weight", ())[:1]
    titok = shapes.get("decoder.decoder_embed.weight", ())
    taken = shapes.get("decoder.conv_in.weight", titok)[1:2]
    return bool(given and taken) and given[0] == 2 * taken[0]


def convolves(axes: int) -> Callable[[Shapes], bool]:
    """Return a check for an encoder with convolutions whose weights have so many axes."""
    named = re.compile(r"(.*\.)?(encoder|feature_extractor)\..*(conv|weight_v).*")
    return lambda shapes: any(
        len(shape) == axes and min(shape[1:]) > 0 and named.fullmatch(name)
        for name, shape in shapes.items()
    )


VAR_TOKENIZER = "give the checkpoint of its tokenizer, vae_ch160v4096z32.pth where it is VAR's own"
LLAMAGEN_TOKENIZER = "give the checkpoint of its tokenizer, such as vq_ds16_c2i.pt"
GENERATOR = "a generator for `evaluate --model`, not a tokenizer"
OTHER = "give the checkpoint of a tokenizer of images"
CODES = "give a tokenizer with codes"
HAS_CODES = r".*(quantiz|codebook).*"
CONTINUOUS = "a continuous autoencoder, as xAR, NextStep and diffusion models have"
NO_TOKENS = "which has no tokens"
UNSUPPORTED = (
    Unsupported("open-muse's MoVQ", classes=("MOVQ",)),
    Unsupported("Paella's tokenizer", classes=("PaellaVQModel",)),
    Unsupported("UniTok", (r"quantizer\.codebooks\.\d+\.codebook\.weight",)),
    Unsupported(
        "VAR's autoregressive transformer",
        (r"pos_start", r"lvl_embed\.weight"),
        trouble=GENERATOR,
        advice=VAR_TOKENIZER,
    ),
    Unsupported(
        "LlamaGen's autoregressive transformer",
        (r"tok_embeddings\.weight", r"output\.weight", r"cls_embedding\..*"),
        trouble=GENERATOR,
        advice=LLAMAGEN_TOKENIZER,
    ),
    Unsupported(
        "an adapter (LoRA)",
        (r".*\.lora_(A|B|down|up)\..*",),
        advice=OTHER,
    ),
    Unsupported(
        "a diffusion model",
        (
            r"(.*\.)?diffusion_model\..*|.*\btime_embedding\.linear_1\.weight|double_blocks\.0\..*"
            r"|.*\btime(step)?_embedder\.linear_1\.weight|(.*\.)?(t_embedder\.mlp|time_embed)\.0\.weight",
        ),
        classes=(r"\w*(UNet|UVit|Transformer)\w*[23]D\w*Model",),
        advice=OTHER,
    ),
    Unsupported(
        "CLIP",
        (r"(visual|text)_projection.*|visual\.proj|logit_scale",),
        classes=("CLIPModel",),
        advice=OTHER,
    ),
    Unsupported(
        "a language model",
        (r"(.*\.)?(embed_tokens|tok_embeddings|wte|word_embeddings|embed_in|shared)\.weight",),
        advice=OTHER,
    ),
    Unsupported(
        "a network that classifies images",
        (r"(conv1|patch_embed\.proj|features\.0(\.0)?)\.weight", r"(fc|head|classifier(\..*)?)\.weight"),
        advice=OTHER,
    ),
    Unsupported(
        "a continuous tokenizer of Cosmos's",
        (r"encoder\.patcher\w*\.wavelets",),
        lacks=r"quantizer\..*",
        trouble=NO_TOKENS,
        advice=CODES,
    ),
    Unsupported(
        CONTINUOUS,
        (r"(post_)?quant_conv\.weight", r"decoder\..*"),
        lacks=r".*(quantize|codebook|embedding).*",
        classes=(r"\w*Autoencoder(KL|DC|Tiny|RAE|Oobleck)\w*",),
        trouble=NO_TOKENS,
        advice=CODES,
    ),
    Unsupported(
        CONTINUOUS,
        (r"encoder\.conv_out\.weight",),
        check=gives_variances,
        trouble=NO_TOKENS,
        advice=CODES,
    ),
    Unsupported("a model of sound", check=convolves(3), broad=True, advice=OTHER),
    Unsupported("a tokenizer or an autoencoder of videos", check=convolves(5), broad=True),
    Unsupported(
        "a vision transformer without codes",
        (r"(.*\.)?(patch_embed(ding)?s?(\.proj(ection)?)?|conv_proj)\.weight",),
        lacks=HAS_CODES,
        broad=True,
        advice=OTHER,
    ),
    Unsupported(
        CONTINUOUS,
        (r"encoder\..*", r"decoder\..*"),
        lacks=HAS_CODES,
        broad=True,
        trouble=NO_TOKENS,
        advice=CODES,
    ),
    Unsupported("a tokenizer of another family", (HAS_CODES,), broad=True),
)


def recognise(
    shapes: Shapes,
    outside: Collection[str],
    classes: Mapping[str, str],
    kinds: Iterable[Unsupported] = UNSUPPORTED,
    *,
    narrowly: bool = False,
) -> Unsupported | None:
    """Return the unsupported kind that weights, those outside them, or config.json show, if any.

    Where a family may be near, `narrowly` leaves out broad kinds.
    """
    kinds = (kind for kind in kinds if not (narrowly and kind.broad))
    return next((kind for kind in kinds if kind.fits(shapes, outside, classes)), None)


def _has(pattern: str, names: Collection[str]) -> bool:
    return any(map(re.compile(pattern).fullmatch, names))
