"""Family: Show-o's MAGVIT-v2, which MMaDA uses too: a code is the signs of a latent, read as a number.

Source:
    showlab/Show-o models/modeling_magvitv2.py, training/utils.py (image_transform).
"""

from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.family import BitFamily
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER, Layout
from entropy_cli.tokenizers.preprocess import resize_crop

INNER_CONV = "encoder.quant_conv.weight"
CONSTANTS = ("quantize.embedding", "quantize.power_vals")  # every combination of bits; their values


class ShowO(BitFamily):
    """The family; its first bit is the most significant, unlike that of Open-MAGVIT2."""

    CLASSES = ("MAGVITv2",)
    FIRST_IS_MOST = True
    REQUIRED = (INNER_CONV, *(name for name in ENCODER if name.startswith("encoder.")))
    IDENTIFYING_KEYS: ClassVar = {
        INNER_CONV: "the last convolution, which Show-o has inside the encoder",
        CONSTANTS[1]: "the values of its bits",
    }
    LAYOUT: ClassVar = Layout(renames=((r"^encoder\.quant_conv\.", "quant_conv."),))
    TRAITS = Traits(
        family="show-o",
        published_by="Show-o",
        rule="sign",
        temperatures={"sign": Temperature((1.0,), "the entropy term of Show-o's own quantiser")},
        crop=partial(resize_crop, interpolation=Resampling.BICUBIC),
    )

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List weights that bits need not have."""
        return [f"has {name}" for name in (CODEBOOK,) if name in checkpoint.shapes]

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        return list(CONSTANTS)
