"""Family: the VQModel of Hugging Face's diffusers, from its folder or its file.

Source:
    huggingface/diffusers models/autoencoders/vq_model.py, vae.py (Encoder, VectorQuantizer);
    pipelines of aMUSEd, whose images stay in [0, 1].
"""

from dataclasses import replace
from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Traits
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.preprocess import resize_crop

# Names of attention, now and in older files.
ATTENTION = {"q": "to_q|query", "k": "to_k|key", "v": "to_v|value", "proj_out": r"to_out\.0|proj_attn"}
# aMUSEd's: channels of its levels, numbers of its latents, codes.
AMUSED = ((128, 256, 256, 512, 768), 64, 8192)


class DiffusersVQ(Family):
    """The family."""

    CLASSES = ("VQModel",)
    REQUIRED = (
        "encoder.down_blocks.0.resnets.0.conv1.weight",
        "encoder.mid_block.resnets.0.conv1.weight",
        "encoder.mid_block.resnets.1.conv1.weight",
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
        "quant_conv.weight",
        CODEBOOK,
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[0]: "diffusers' name for the encoder's blocks",
        REQUIRED[1]: "its name for those in the middle",
    }
    LAYOUT: ClassVar = Layout(
        renames=(
            (r"^encoder\.down_blocks\.", "encoder.down."),
            (r"^(encoder\.down\.\d+)\.resnets\.", r"\1.block."),
            (r"^(encoder\.down\.\d+)\.attentions\.", r"\1.attn."),
            (r"\.downsamplers\.0\.", ".downsample."),
            (r"\.conv_shortcut\.", ".nin_shortcut."),
            (r"^encoder\.mid_block\.resnets\.0\.", "encoder.mid.block_1."),
            (r"^encoder\.mid_block\.resnets\.1\.", "encoder.mid.block_2."),
            (r"^encoder\.mid_block\.attentions\.0\.", "encoder.mid.attn_1."),
            (r"^encoder\.conv_norm_out\.", "encoder.norm_out."),
            (r"(\.attn[._]\d+)\.group_norm\.", r"\1.norm."),
            *((rf"(\.attn[._]\d+)\.(?:{old})\.", rf"\1.{ours}.") for ours, old in ATTENTION.items()),
        ),
    )
    TRAITS = Traits(
        family="diffusers",
        published_by="diffusers",
        rule="l2",
        labels="unknown",
        crop=partial(resize_crop, interpolation=Resampling.BILINEAR),
    )

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        is_amused = _is_amused(checkpoint, network)
        return replace(self.TRAITS, pixels="[0, 1]") if is_amused else self.TRAITS

    def _notes(self, plan: Plan) -> list[str]:
        note = "aMUSEd's, by its sizes: its images stay in [0, 1]"
        return [note] if _is_amused(plan.checkpoint, plan.network) else []


def _is_amused(checkpoint: Checkpoint, network: Network) -> bool:
    sizes = network.encoder.widths, network.latent_dim, checkpoint.shapes[CODEBOOK][0]
    return sizes == AMUSED
