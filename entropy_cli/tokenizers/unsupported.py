"""Layouts that are recognised but not supported, so that an error can name them."""

from collections.abc import Mapping
from dataclasses import dataclass

from entropy_cli.tokenizers.layers.autoencoder import Shapes
from entropy_cli.tokenizers.names import CODEBOOK


@dataclass(frozen=True)
class Unsupported:
    """A kind of checkpoint that is not supported: its name, and what the user can do instead.

    It has all the keys and codes of these dimensions (None for any), or a class's name in config.json.
    """

    words: str
    keys: tuple[str, ...] = ()
    dimensions: int | None = None
    classes: tuple[str, ...] = ()
    advice: str = "make latents with its own code and give --latents"

    def fits(self, shapes: Shapes, classes: Mapping[str, str]) -> bool:
        """Return whether a checkpoint has this kind's weights, or its config.json one of its names."""
        has_keys = bool(self.keys) and all(key in shapes for key in self.keys)
        sizes = (None, *shapes.get(CODEBOOK, ())[-1:])
        return (has_keys and self.dimensions in sizes) or any(name in classes for name in self.classes)


VAR_TOKENIZER = "give the checkpoint of its tokenizer, vae_ch160v4096z32.pth where it is VAR's own"
LLAMAGEN_TOKENIZER = "give the checkpoint of its tokenizer, such as vq_ds16_c2i.pt"
UNSUPPORTED = (
    Unsupported(
        "FlexVAR's tokenizer", ("encoder.conv_blocks.0.res.0.conv1.weight", CODEBOOK), dimensions=32
    ),
    Unsupported("Infinity's tokenizer", ("quantizer.lfq.mask",)),
    Unsupported(
        "MaskGIT-VQGAN",
        ("encoder.mid.0.conv1.weight", "encoder.down.0.block.0.conv1.weight"),
        classes=("MaskGitVQGAN",),
    ),
    Unsupported("Show-o's MAGVIT-v2", ("encoder.quant_conv.weight",), classes=("MAGVITv2",)),
    Unsupported("MaskBit's or VQGAN+'s tokenizer", ("encoder.down.0.res_blocks.0.conv1.weight",)),
    Unsupported(
        "Emu3's vision tokenizer",
        ("encoder.time_conv.0.conv.conv.weight",),
        classes=("Emu3VisionVQ", "Emu3VisionVQModel", "emu3_vqgan", "Emu3VQVAE"),
    ),
    Unsupported("open-muse's MoVQ", classes=("MOVQ",)),
    Unsupported("Paella's tokenizer", classes=("PaellaVQModel",)),
    Unsupported("DALL-E's dVAE", classes=("flava_image_codebook", "FlavaImageCodebook")),
    Unsupported(
        "a continuous autoencoder, which has no tokens",
        classes=("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny", "AutoencoderKLCogVideoX"),
        advice="give a tokenizer with codes",
    ),
    Unsupported(
        "VAR's autoregressive transformer", ("pos_start", "lvl_embed.weight"), advice=VAR_TOKENIZER
    ),
    Unsupported(
        "LlamaGen's autoregressive transformer",
        ("tok_embeddings.weight", "output.weight"),
        advice=LLAMAGEN_TOKENIZER,
    ),
)


def recognise(shapes: Shapes, classes: Mapping[str, str]) -> Unsupported | None:
    """Return the unsupported kind that a checkpoint's weights or config.json show, if any."""
    return next((kind for kind in UNSUPPORTED if kind.fits(shapes, classes)), None)
