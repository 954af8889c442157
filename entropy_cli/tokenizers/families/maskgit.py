"""Family: MaskGIT-VQGAN, on whose tokens RAR and TiTok's first stage are trained.

Source:
    bytedance/1d-tokenizer modeling/modules/maskgit_vqgan.py, modeling/titok.py (PretrainedTokenizer);
    huggingface/open-muse muse/modeling_maskgit_vqgan.py, training/data.py.
"""

from dataclasses import replace
from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.family import Family
from entropy_cli.tokenizers.layers.autoencoder import Conventions
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.preprocess import resize_crop

# Of the encoders that follow MaskGIT's, but for how they name their blocks.
CONVENTIONS = Conventions(
    unbiased=("conv_in", "conv1", "conv2", "nin_shortcut"), pools=True, shortcuts_last=True
)


class MaskGIT(Family):
    """The family: 1d-tokenizer's file, or open-muse's folder with a config.json."""

    CLASSES = ("MaskGitVQGAN",)
    REQUIRED = (
        "encoder.mid.0.conv1.weight",
        "encoder.down.0.block.0.conv1.weight",
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
        CODEBOOK,
    )
    IDENTIFYING_KEYS: ClassVar = {REQUIRED[0]: "MaskGIT-VQGAN's name for the blocks in the middle"}
    LAYOUT: ClassVar = Layout(
        renames=((r"^encoder\.mid\.(\d+)\.", lambda match: f"encoder.mid.block_{int(match[1]) + 1}."),),
        conventions=CONVENTIONS,
    )
    TRAITS = Traits(
        family="maskgit",
        published_by="MaskGIT-VQGAN",
        rule="l2",
        temperatures={"l2": Temperature((1.0,), "get_soft_code(temp=1.0) in open-muse's quantiser")},
        crop=partial(resize_crop, interpolation=Resampling.BICUBIC),
        pixels="[0, 1]",
    )

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List weights that it lacks."""
        return [f"has {name}" for name in ("quant_conv.weight",) if name in checkpoint.shapes]

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        if not set(self.CLASSES) & checkpoint.config.classes.keys():
            return self.TRAITS
        return replace(self.TRAITS, crop=partial(resize_crop, interpolation=Resampling.BILINEAR))
