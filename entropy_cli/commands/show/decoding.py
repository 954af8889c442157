"""Decoders that checkpoints hold: from a reconstructed latent to an image.

Source:
    FoundationVision/VAR models/vqvae.py (fhat_to_img);
    CompVis/taming-transformers taming/models/vqgan.py (decode);
    kakaobrain/rq-vae-transformer rqvae/models/rqvae/rqvae.py (decode);
    FoundationVision/LlamaGen tokenizer/tokenizer_image/vq_model.py (Decoder, whose levels count from the
    smallest grid, and whose codes are decoded at unit length).
"""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.tokenizers.base import PixelRange
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.families import llamagen, var, vqgan
from entropy_cli.tokenizers.layers.autoencoder import Conventions, conv_like, count
from entropy_cli.tokenizers.layers.decoder import Decoder
from entropy_cli.tokenizers.names import Layout, joined_shapes

# Families whose decoder is the encoder's mirror image, and the layouts of their names.
LAYOUTS = {
    "var": var.LAYOUT,
    "vqgan": vqgan.LAYOUT,
    "ibq": vqgan.LAYOUT,
    "rq-vae": Layout(),
    "llamagen": llamagen.LAYOUT,
}
NEEDED = ("decoder.", "post_quant_conv.")
LLAMAGEN_LEVEL = "decoder.conv_blocks.{}.res.0.conv1.weight"


class LatentDecoder(nn.Module):
    """The convolution before a decoder, and the decoder, of the sizes that the shapes imply."""

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        conventions: Conventions,
        pixels: PixelRange,
        *,
        unit_length: bool,
    ) -> None:
        super().__init__()
        self.post_quant_conv = (
            conv_like(shapes, "post_quant_conv", conventions)
            if "post_quant_conv.weight" in shapes
            else nn.Identity()
        )
        self.decoder = Decoder(shapes, conventions)
        self.pixels, self.unit_length = pixels, unit_length

    def forward(self, f_hat_BChw: Tensor) -> Tensor:
        """Decode reconstructed latents to images around [-1, 1], (B, 3, H, W)."""
        if self.unit_length:
            f_hat_BChw = functional.normalize(f_hat_BChw, dim=1)
        out_B3HW: Tensor = self.decoder(self.post_quant_conv(f_hat_BChw))
        return out_B3HW if self.pixels == "[-1, 1]" else 2 * out_B3HW - 1


def load_decoder(
    checkpoint: Checkpoint, family: str, pixels: PixelRange = "[-1, 1]", groups: int | None = None
) -> tuple[LatentDecoder | None, str]:
    """Build the decoder of a checkpoint, for inference.

    Args:
        checkpoint: an open checkpoint.
        family: its family.
        pixels: range of the encoder's input and the decoder's output.
        groups: number of groups of the norms; None for the layout's.

    Returns:
        The decoder and "", or None and the reason why there is none.

    Raises:
        CheckpointError: its weights are not finite.
    """
    shapes = checkpoint.shapes
    if not any(name.startswith("decoder.") for name in shapes):
        return None, "the checkpoint holds no decoder"
    decodes_codes = vqgan.PROJECTION not in shapes and var.PHI_SINGLE not in shapes
    if family not in LAYOUTS or not decodes_codes:
        return None, f"this kind of {family} decoder is not supported"
    layout = _decoder_layout(checkpoint, LAYOUTS[family])
    try:
        sources = layout.sources(name for name in shapes if name.startswith(NEEDED))
        joined = joined_shapes(shapes, sources)
        with torch.device("meta"):
            model = LatentDecoder(
                joined, layout.conventions_with(groups), pixels, unit_length=family == "llamagen"
            )
        expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
        if expected != joined:
            raise ValueError("shapes contradict each other")
    except (ValueError, KeyError, IndexError, RuntimeError):
        return None, "its decoder does not have the family's published layout"
    weights = {
        ours: torch.cat([checkpoint.finite(name) for name in theirs]).view(expected[ours])
        for ours, theirs in sources.items()
    }
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(requires_grad=False), ""


def _decoder_layout(checkpoint: Checkpoint, layout: Layout) -> Layout:
    """Return the layout of the decoder's names: the encoder's, except for LlamaGen's order of levels."""
    levels = count(checkpoint.shapes, LLAMAGEN_LEVEL)

    def level(match: re.Match[str]) -> str:
        return f"decoder.up.{levels - 1 - int(match[1])}."

    renames = (
        (r"^decoder\.conv_blocks\.(\d+)\.", level),
        (r"^(decoder\.up\.\d+)\.res\.", r"\1.block."),
        (r"^decoder\.mid\.0\.", "decoder.mid.block_1."),
        (r"^decoder\.mid\.1\.", "decoder.mid.attn_1."),
        (r"^decoder\.mid\.2\.", "decoder.mid.block_2."),
    )
    return Layout(renames if levels else (), layout.conventions)
