"""Family: Open-MAGVIT2, lookup-free quantisation: a code is the signs of a latent.

Source:
    TencentARC/SEED-Voken src/Open_MAGVIT2 (modules/diffusionmodules/improved_model.py,
    modules/vqvae/lookup_free_quantize.py, evaluation with the EMA weights).
"""

from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.family import BitFamily
from entropy_cli.tokenizers.layers.autoencoder import Conventions
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.preprocess import resize_crop


class OpenMAGVIT2(BitFamily):
    """The family, which nobody publishes with a config.json."""

    EMA_BY_DEFAULT = True
    REQUIRED = (
        "encoder.mid_block.0.conv1.weight",
        "encoder.down.0.block.0.conv1.weight",
        "encoder.down.0.downsample.weight",
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[0]: "Open-MAGVIT2's name for the blocks in the middle",
        REQUIRED[2]: "its name for the convolution between levels",
    }
    LAYOUT: ClassVar = Layout(
        renames=(
            (r"^encoder\.mid_block\.(\d+)\.", lambda match: f"encoder.mid.block_{int(match[1]) + 1}."),
            (r"\.downsample\.(?=weight|bias)", ".downsample.conv."),
        ),
        conventions=Conventions(
            pads_both_sides=True, unbiased=("conv_in", "conv1", "conv2", "nin_shortcut")
        ),
        unused=dict.fromkeys(
            ("quantize.mask", "quantize.zero", "quantize.codebook"), "constants that bits are made with"
        ),
    )
    TRAITS = Traits(
        family="open-magvit2",
        published_by="Open-MAGVIT2",
        rule="sign",
        temperatures={"sign": Temperature((0.01,), "the entropy term of Open-MAGVIT2's own training")},
        crop=partial(resize_crop, interpolation=Resampling.BILINEAR),
    )

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List weights that bits need not have."""
        return [f"has {name}" for name in ("quant_conv.weight", CODEBOOK) if name in checkpoint.shapes]
