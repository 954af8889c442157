"""Which of the tokenizers with the names of latent diffusion's encoder a checkpoint is."""

import re

from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.autoencoder import count
from entropy_cli.tokenizers.names import CODEBOOK

MOVQ = re.compile(r"decoder\..*\.conv_y\.weight")  # MoVQ's norms, which only its decoder has
CHAMELEON_CLASSES = (
    *("chameleon", "chameleon_vqgan", "ChameleonVQVAE", "ChameleonModel"),
    *("ChameleonForConditionalGeneration", "ChameleonXLLMXForConditionalGeneration"),
)
FIRST_UP = "decoder.up.0.upsample.conv.weight"
JANUS_CLASSES = (
    *("janus", "janus_vqgan", "JanusVQVAE", "JanusModel", "JanusForConditionalGeneration"),
    *("multi_modality", "MultiModalityCausalLM"),
)
FOURTH_BLOCK = "encoder.down.0.block.3.conv1.weight"
CHAMELEON_CODES, JANUS_CODES = (8192, 256), (16384, 8)


def is_janus(checkpoint: Checkpoint) -> bool:
    """Return whether it is Janus in transformers' layout: LlamaGen's tokenizer with these names.

    By config.json, by prefix and sizes, or by the decoder, whose levels LlamaGen counts from the last.
    """
    inside = checkpoint.prefix.endswith("vqmodel.") and checkpoint.shapes.get(CODEBOOK) == JANUS_CODES
    named = any(name in checkpoint.config.classes for name in JANUS_CLASSES)
    return inside or named or FIRST_UP in checkpoint.shapes


def could_be_janus(checkpoint: Checkpoint) -> bool:
    """Return whether it may be Janus with these names, saved without the rest of the model.

    Latent diffusion's f16 has as many and as long codes; its own training leaves its loss in the file.
    """
    trained_here = any(name.startswith("loss.") for name in checkpoint.shapes)
    return checkpoint.shapes.get(CODEBOOK) == JANUS_CODES and not trained_here


def is_movq(checkpoint: Checkpoint) -> bool:
    """Return whether the decoder is that of a MoVQGAN."""
    return any(MOVQ.fullmatch(name) for name in checkpoint.shapes)


def multi_scale(checkpoint: Checkpoint) -> list[str]:
    """Return one of VAR's convolutions between scales, if the checkpoint has any."""
    return [name for name in checkpoint.shapes if name.startswith("quantize.quant_resi.")][:1]


def is_chameleon(checkpoint: Checkpoint) -> bool:
    """Return whether it is Chameleon's, by config.json, by its prefix or by where it has attention."""
    shapes = checkpoint.shapes
    if any(name in checkpoint.config.classes for name in CHAMELEON_CLASSES):
        return True
    if shapes.get(CODEBOOK) != CHAMELEON_CODES:
        return False
    attends = any(".attn." in name for name in shapes if name.startswith("encoder.down."))
    in_middle = "encoder.mid.attn_1.q.weight" in shapes
    levels = count(shapes, "encoder.down.{}.block.0.conv1.weight")
    return checkpoint.prefix.endswith("vqmodel.") or (in_middle and not attends and levels == 5)


def idle_attention(checkpoint: Checkpoint) -> dict[str, str]:
    """List what open-muse's forward pass leaves out: the attention after the only block of a level."""
    shapes, block = checkpoint.shapes, "encoder.down.{}.block.{}.conv1.weight"
    lone = (i for i in range(count(shapes, block.format("{}", 0))) if block.format(i, 1) not in shapes)
    return {f"encoder.down.{i}.attn.": "attention that never runs" for i in lone}
