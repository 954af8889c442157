"""Layouts that are known and not read, so that an error can call them by their names."""

from collections.abc import Mapping
from dataclasses import dataclass

from entropy_cli.tokenizers.names import CODEBOOK

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Unsupported:
    """A kind of checkpoint that is not read.

    Attributes:
        words: its name for people.
        keys: weights that it has, all of them.
        dimensions: of its codes, None for any.
        classes: names that config.json has for it.
    """

    words: str
    keys: tuple[str, ...] = ()
    dimensions: int | None = None
    classes: tuple[str, ...] = ()

    def fits(self, shapes: Shapes) -> bool:
        """Tell whether a checkpoint has its weights."""
        codes = shapes.get(CODEBOOK, ())
        return (
            bool(self.keys)
            and all(key in shapes for key in self.keys)
            and self.dimensions in (None, codes[-1] if codes else None)
        )


GENERATOR = "an autoregressive generator, not its tokenizer"
CONTINUOUS = "a continuous autoencoder, which has no tokens"
UNSUPPORTED = (
    Unsupported(
        "FlexVAR's tokenizer",
        ("encoder.conv_blocks.0.res.0.conv1.weight", CODEBOOK),
        dimensions=32,
    ),
    Unsupported("Infinity's tokenizer", ("quantizer.lfq.mask",)),
    Unsupported(
        "MaskGIT-VQGAN",
        ("encoder.mid.0.conv1.weight", "encoder.down.0.block.0.conv1.weight"),
        classes=("MaskGitVQGAN",),
    ),
    Unsupported(
        "Show-o's MAGVIT-v2",
        ("encoder.quant_conv.weight",),
        classes=("MAGVITv2",),
    ),
    Unsupported(
        "MaskBit's or VQGAN+'s tokenizer",
        ("encoder.down.0.res_blocks.0.conv1.weight",),
    ),
    Unsupported(
        "Emu3's vision tokenizer",
        ("encoder.time_conv.0.conv.conv.weight",),
        classes=("Emu3VisionVQ", "Emu3VisionVQModel", "emu3_vqgan", "Emu3VQVAE"),
    ),
    Unsupported("open-muse's MoVQ", classes=("MOVQ",)),
    Unsupported("Paella's tokenizer", classes=("PaellaVQModel",)),
    Unsupported("DALL-E's dVAE", classes=("flava_image_codebook", "FlavaImageCodebook")),
    Unsupported(
        CONTINUOUS,
        classes=("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny", "AutoencoderKLCogVideoX"),
    ),
    Unsupported(f"VAR's transformer, {GENERATOR}", ("pos_start", "lvl_embed.weight")),
    Unsupported(f"LlamaGen's transformer, {GENERATOR}", ("tok_embeddings.weight", "output.weight")),
)


def named_by(shapes: Shapes, classes: Mapping[str, str]) -> str:
    """Name the layout that a checkpoint has or its config.json names; "" for none of these."""
    for kind in UNSUPPORTED:
        if kind.fits(shapes) or any(name in classes for name in kind.classes):
            return kind.words
    return ""
