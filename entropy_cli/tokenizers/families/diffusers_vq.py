"""Family: the VQModel of Hugging Face's diffusers, from its folder or its file.

Source:
    huggingface/diffusers models/autoencoders/vq_model.py, vae.py (Encoder, VectorQuantizer);
    pipelines of aMUSEd, whose images stay in [0, 1].
"""

from dataclasses import replace
from functools import partial

from torchvision.transforms import InterpolationMode

from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Traits, absent_keys, describe_grid
from entropy_cli.tokenizers.convolutional import (
    ConvTokenizer,
    load_network,
    plan_network,
    read_finite,
    vocab_size,
)
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.preprocess import resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

EMA_BY_DEFAULT = False
CLASSES: tuple[str, ...] = ("VQModel",)
REQUIRED = (
    "encoder.down_blocks.0.resnets.0.conv1.weight",
    "encoder.mid_block.resnets.0.conv1.weight",
    "encoder.mid_block.resnets.1.conv1.weight",
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "quant_conv.weight",
    CODEBOOK,
)
IDENTIFYING_KEYS = {
    REQUIRED[0]: "diffusers' name for the encoder's blocks",
    REQUIRED[1]: "its name for those in the middle",
}
# Names of attention, now and in older files.
ATTENTION = {"q": "to_q|query", "k": "to_k|key", "v": "to_v|value", "proj_out": r"to_out\.0|proj_attn"}
LAYOUT = Layout(
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
# aMUSEd's: channels of its levels, numbers of its latents, codes.
AMUSED = ((128, 256, 256, 512, 768), 64, 8192)
TRAITS = Traits(
    family="diffusers",
    published_by="diffusers",
    rule="l2",
    temperatures={},
    labels="unknown",
    crop=partial(resize_crop, interpolation=InterpolationMode.BILINEAR),
)
AMUSED_NOTE = "aMUSEd's, by its sizes: its images stay in [0, 1]"


def missing_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the required keys that a checkpoint lacks."""
    return absent_keys(checkpoint.shapes, REQUIRED)


def conflicting_keys(checkpoint: Checkpoint) -> list[str]:
    """Return no keys: the family's names are unique."""
    return []


def codebooks(checkpoint: Checkpoint) -> list[str]:
    """Return the name of the codebook."""
    return [CODEBOOK]


def describe(checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
    """Describe the tokenizer from its shapes and the settings."""
    network = plan_network(checkpoint, LAYOUT, [CODEBOOK], settings.norm_groups)
    vocabulary = Vocabulary(vocab_size(checkpoint, CODEBOOK, network))
    if (network.encoder.widths, network.latent_dim, vocabulary.size) == AMUSED:
        amused = replace(TRAITS, pixels="[0, 1]")
        return describe_grid(amused, network, settings, vocabulary, [AMUSED_NOTE])
    return describe_grid(TRAITS, network, settings, vocabulary)


def build(checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
    """Read the weights and build the tokenizer."""
    spec = describe(checkpoint, settings)
    network = load_network(checkpoint, LAYOUT, [CODEBOOK], settings.norm_groups)
    return ConvTokenizer(spec, network, [Codebook(read_finite(checkpoint, CODEBOOK), spec.rule)])
