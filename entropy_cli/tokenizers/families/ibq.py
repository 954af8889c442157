"""Family: IBQ, index backpropagation quantisation: the nearest code is that of the largest dot product.

Source:
    TencentARC/SEED-Voken src/IBQ (quantize.py, main evaluation with the EMA weights, configs:
    entropy_temperature 0.01); baaivision/Emu3.5 src/vision_tokenizer (another training of it);
    huggingface/transformers models/apertus1p5, which has that one under other names.
"""

from dataclasses import replace
from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers import relatives
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER, Layout
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.preprocess import opencv_crop, resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

BLOCK = "encoder.down.0.block.0.conv1.weight"
APERTUS_BLOCK = "encoder.stages.0.layers.0.resnet.conv1.weight"
APERTUS_SIZE = 512  # pixels
MOVQ = "its decoder has the norms of a MoVQGAN (conv_y), which compares distances"


class IBQ(Family):
    """The family; with four blocks a level it may be a VQGAN too, unless it has Apertus's names."""

    EMA_BY_DEFAULT = True
    CLASSES = (
        *("IBQ", "apertus1p5_vision_tokenizer", "Apertus1p5VisionTokenizerModel"),
        *("apertus1p5", "Apertus1p5Model", "Apertus1p5ForConditionalGeneration"),
    )
    REQUIRED = (*ENCODER, CODEBOOK)
    IDENTIFYING_KEYS: ClassVar = {
        APERTUS_BLOCK: "Apertus's name for the encoder's blocks",
        relatives.FOURTH_BLOCK: "a fourth block on a level, where a VQGAN has two or three",
    }
    LAYOUT: ClassVar = Layout(
        renames=(
            (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.resnet\.", r"encoder.down.\1.block.\2."),
            (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.attention\.", r"encoder.down.\1.attn.\2."),
            (r"^encoder\.stages\.(\d+)\.downsample\.", r"encoder.down.\1.downsample."),
        )
    )
    TRAITS = Traits(
        family="ibq",
        published_by="IBQ",
        rule="dot",
        temperatures={"dot": Temperature((0.01,), "entropy_temperature in all of IBQ's configurations")},
        crop=opencv_crop,
    )

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks, under either names."""
        renamed = BLOCK if APERTUS_BLOCK in checkpoint.shapes else None
        return [name for name in super().missing_keys(checkpoint) if name != renamed]

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks a VQGAN: fewer than four blocks a level, several scales, MoVQ's norms."""
        if APERTUS_BLOCK in checkpoint.shapes:
            return []
        found = [] if relatives.FOURTH_BLOCK in checkpoint.shapes else [f"no {relatives.FOURTH_BLOCK}"]
        found += [f"has {name}" for name in relatives.multi_scale(checkpoint)]
        return found + ([MOVQ] if relatives.is_movq(checkpoint) else [])

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer; a MoVQGAN is refused."""
        if relatives.is_movq(checkpoint):
            raise CheckpointError(f"{checkpoint.path}: not of family ibq: {MOVQ}. Give --family vqgan.")
        return super().describe(checkpoint, settings)

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        if APERTUS_BLOCK not in checkpoint.shapes:
            return self.TRAITS
        crop = partial(resize_crop, interpolation=Resampling.BICUBIC)
        return replace(self.TRAITS, image_size=APERTUS_SIZE, crop=crop)

    def _notes(self, plan: Plan) -> list[str]:
        note = "Apertus's images keep their shape; here all are cropped to squares of one size"
        return [note] if APERTUS_BLOCK in plan.checkpoint.shapes else []
