"""Family: Emu3's vision tokenizer, which makes one latent of several copies of a picture.

Source:
    baaivision/Emu3 emu3/tokenizer (modeling_emu3visionvq.py, image_processing_emu3visionvq.py);
    huggingface/transformers models/emu3 (Emu3VQVAE), which has the same weights under other names.
"""

from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Traits
from entropy_cli.tokenizers.family import Family
from entropy_cli.tokenizers.layers.autoencoder import Conventions, Shapes
from entropy_cli.tokenizers.layers.temporal import FramesToOne
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.preprocess import resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

IMAGE_SIZE = 512  # the smallest that its processor makes, 1024 the largest
BLOCK, RENAMED_BLOCK = (
    f"encoder.{part}.0.block.0.conv1.weight" for part in ("down", "down_block.down")
)  # published; in transformers
HEADS = "num_attention_heads"


class Emu3Network(Network):
    """The encoder of a frame, and in place of quant_conv the convolutions over time, with it."""

    def __init__(self, shapes: Shapes, by: Conventions) -> None:
        super().__init__(shapes, by)
        frames = FramesToOne(shapes, "quant_conv")
        self.quant_conv, self.latent_dim = frames, frames.last.out_channels

    def flow(self) -> int:
        """Return the channels of the latents, without running it."""
        assert isinstance(self.quant_conv, FramesToOne)
        return self.quant_conv.flow(self.encoder.flow())


class Emu3(Family):
    """The family, under its authors' names or those of transformers."""

    CLASSES = (
        *("Emu3VisionVQ", "Emu3VisionVQModel", "emu3_vqgan", "Emu3VQVAE"),
        *("Emu3", "emu3", "Emu3Model", "Emu3ForConditionalGeneration"),
    )
    REQUIRED = (
        "encoder.time_res_stack.0.conv1.conv.weight",
        BLOCK,
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
        "quant_conv.conv.weight",
        CODEBOOK,
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[0]: "a convolution over time, of copies of the picture",
        RENAMED_BLOCK: "transformers' name for the encoder's blocks",
    }
    LAYOUT: ClassVar = Layout(
        renames=(
            (r"^encoder\.time_conv\.(\d+)\.conv\.conv\.", r"quant_conv.halving.\1."),
            (r"^encoder\.time_res_stack\.", "quant_conv.block."),
            (r"^(quant_conv\.block\.\d+)\.conv1\.conv\.", r"\1.first."),
            (r"^(quant_conv\.block\.\d+)\.conv2\.conv\.", r"\1.second."),
            (r"^quant_conv\.conv\.", "quant_conv.last."),
            (r"^encoder\.down_block\.", "encoder."),
            (r"^encoder\.middle_block\.attn_norm\.", "encoder.mid.attn_1.norm."),
            (r"^encoder\.middle_block\.", "encoder.mid."),
            (r"^(encoder\.down\.\d+)\.attn_norms\.(\d+)\.", r"\1.attn.\2.norm."),
            (r"(\.attn[._]\d+)\.([qkv])_proj\.", r"\1.\2."),
            (r"(\.attn[._]\d+)\.out_proj\.", r"\1.proj_out."),
        ),
    )
    NOTES = (
        "Emu3's images keep their shape and are of 512 x 512 to 1024 x 1024 pixels in all; here "
        "all are cropped to squares, so that each has as many tokens",
    )
    TRAITS = Traits(
        family="emu3",
        published_by="Emu3",
        rule="l2",
        crop=partial(resize_crop, interpolation=Resampling.BICUBIC),
        image_size=IMAGE_SIZE,
    )
    NETWORK = Emu3Network

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks, under either names."""
        missing = super().missing_keys(checkpoint)
        renamed = RENAMED_BLOCK in checkpoint.shapes
        return [name for name in missing if not (renamed and name == BLOCK)]

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer; several heads of attention, which nobody publishes, are refused."""
        _, heads = checkpoint.config.find(HEADS)
        if RENAMED_BLOCK in checkpoint.shapes and heads not in (None, 1):
            raise CheckpointError(
                f"{checkpoint.config.path}: {HEADS} is {heads!r}, expected 1. Make latents with "
                "transformers and give --latents."
            )
        return super().describe(checkpoint, settings)
