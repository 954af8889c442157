"""Family: IBQ, index backpropagation quantisation: the nearest code is that of the largest dot product.

Source:
    TencentARC/SEED-Voken src/IBQ (quantize.py, main evaluation with the EMA weights, configs:
    entropy_temperature 0.01).
"""

from typing import ClassVar

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.families import vqgan
from entropy_cli.tokenizers.family import ConvFamily, Temperature, Traits
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER
from entropy_cli.tokenizers.preprocess import opencv_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

MOVQ = "its decoder has the norms of a MoVQGAN (conv_y), which compares distances"


class IBQ(ConvFamily):
    """The family; with four blocks a level a checkpoint may be of a VQGAN too."""

    EMA_BY_DEFAULT = True
    CLASSES = ("IBQ",)
    REQUIRED = (*ENCODER, CODEBOOK)
    IDENTIFYING_KEYS: ClassVar = {
        vqgan.FOURTH_BLOCK: "a fourth block on a level, where a VQGAN has two or three"
    }
    TRAITS = Traits(
        family="ibq",
        published_by="IBQ",
        rule="dot",
        temperatures={"dot": Temperature((0.01,), "entropy_temperature in all of IBQ's configurations")},
        labels="hard",
        crop=opencv_crop,
    )

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks a VQGAN: fewer than four blocks a level, several scales, MoVQ's norms."""
        found = [] if vqgan.FOURTH_BLOCK in checkpoint.shapes else [f"no {vqgan.FOURTH_BLOCK}"]
        found += [f"has {name}" for name in vqgan.multi_scale(checkpoint)]
        return found + ([MOVQ] if vqgan.is_movq(checkpoint) else [])

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer; a MoVQGAN is refused."""
        if vqgan.is_movq(checkpoint):
            raise CheckpointError(f"{checkpoint.path}: not of family ibq: {MOVQ}. Give --family vqgan.")
        return super().describe(checkpoint, settings)
