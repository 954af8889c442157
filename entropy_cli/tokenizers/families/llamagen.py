"""Family: LlamaGen's VQ tokenizers and Janus's: codes and latents are compared by direction.

Source:
    FoundationVision/LlamaGen tokenizer/tokenizer_image/vq_model.py, dataset/augmentation.py;
    deepseek-ai/Janus janus/models/vq_model.py, as Hugging Face's transformers renames it.
"""

from dataclasses import replace

from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits, absent_keys, describe_grid
from entropy_cli.tokenizers.convolutional import (
    ConvTokenizer,
    load_network,
    plan_network,
    read_finite,
    vocab_size,
)
from entropy_cli.tokenizers.families import vqgan
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.preprocess import adm_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

EMA_BY_DEFAULT = True
CLASSES: tuple[str, ...] = (
    *("janus", "janus_vqgan", "JanusVQVAE", "JanusModel", "JanusForConditionalGeneration"),
    *("multi_modality", "MultiModalityCausalLM", "VQModelHF"),
)
FLEXVAR_DIM = 32  # numbers of FlexVAR's codes, under the same names
REQUIRED = (
    "encoder.conv_blocks.0.res.0.conv1.weight",
    "encoder.mid.0.conv1.weight",
    "encoder.mid.2.conv1.weight",
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "quant_conv.weight",
    CODEBOOK,
)
IDENTIFYING_KEYS = {
    REQUIRED[0]: "LlamaGen's name for the encoder's blocks",
    REQUIRED[1]: "its name for those in the middle",
}
LAYOUT = Layout(
    renames=(
        (r"^encoder\.conv_blocks\.", "encoder.down."),
        (r"^(encoder\.down\.\d+)\.res\.", r"\1.block."),
        (r"^encoder\.mid\.0\.", "encoder.mid.block_1."),
        (r"^encoder\.mid\.1\.", "encoder.mid.attn_1."),
        (r"^encoder\.mid\.2\.", "encoder.mid.block_2."),
    ),
    unused={"quantize.codebook_used": "the codes that training chose last"},
)
TRAITS = Traits(
    family="llamagen",
    published_by="LlamaGen",
    rule="cosine",
    temperatures={"cosine": Temperature((0.01,), "compute_entropy_loss in LlamaGen's quantiser")},
    labels="hard",
    crop=adm_crop,
)
JANUS = replace(TRAITS, image_size=384)


def missing_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the required keys that a checkpoint lacks."""
    if REQUIRED[0] not in checkpoint.shapes and checkpoint.shapes.get(CODEBOOK) == vqgan.JANUS_CODES:
        return absent_keys(checkpoint.shapes, vqgan.REQUIRED)
    return absent_keys(checkpoint.shapes, REQUIRED)


def conflicting_keys(checkpoint: Checkpoint) -> list[str]:
    """Return what marks a VQGAN (its names, unless they are Janus's in transformers) or FlexVAR."""
    if checkpoint.shapes.get(CODEBOOK, ())[1:] == (FLEXVAR_DIM,):
        return [f"has codes of {FLEXVAR_DIM} dimensions, as FlexVAR's ten scales have"]
    janus = vqgan.is_janus(checkpoint) or vqgan.could_be_janus(checkpoint)
    return [] if REQUIRED[0] in checkpoint.shapes or janus else [f"no {REQUIRED[0]}, and no Janus"]


def codebooks(checkpoint: Checkpoint) -> list[str]:
    """Return the name of the codebook."""
    return [CODEBOOK]


def describe(checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
    """Describe the tokenizer from its shapes and the settings."""
    network = plan_network(checkpoint, LAYOUT, [CODEBOOK], settings.norm_groups)
    vocabulary = Vocabulary(vocab_size(checkpoint, CODEBOOK, network))
    renamed = REQUIRED[0] not in checkpoint.shapes
    if renamed or checkpoint.prefix.endswith("gen_vision_model."):
        return describe_grid(JANUS, network, settings, vocabulary, _notes(checkpoint))
    return describe_grid(TRAITS, network, settings, vocabulary)


def _notes(checkpoint: Checkpoint) -> list[str]:
    notes = [
        "Janus's tokenizer; how its images are cropped is not published, LlamaGen's way is taken, "
        f"at {JANUS.image_size} pixels by default"
    ]
    if REQUIRED[0] not in checkpoint.shapes:
        notes.append(
            "its codes are compared by direction, as Janus does; transformers' own class compares "
            "distances: for its tokens give --rule l2"
        )
    return notes


def build(checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
    """Read the weights and build the tokenizer."""
    spec = describe(checkpoint, settings)
    network = load_network(checkpoint, LAYOUT, [CODEBOOK], settings.norm_groups)
    return ConvTokenizer(spec, network, [Codebook(read_finite(checkpoint, CODEBOOK), spec.rule)])
