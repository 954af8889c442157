"""Family: LlamaGen's VQ tokenizers and Janus's: codes and latents are compared by direction.

Source:
    FoundationVision/LlamaGen tokenizer/tokenizer_image/vq_model.py, dataset/augmentation.py;
    deepseek-ai/Janus janus/models/vq_model.py, as Hugging Face's transformers renames it.
"""

from entropy_cli.functional.codebook import Codebook, Rule
from entropy_cli.functional.vocabulary import Vocabulary
from entropy_cli.tokenizers import vqgan
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import (
    Temperature,
    absent,
    choose_image_size,
    choose_rule,
    choose_temperature,
    grid_scale,
)
from entropy_cli.tokenizers.convolutional import (
    ConvTokenizer,
    finite,
    load_network,
    plan_network,
    vocab_size,
)
from entropy_cli.tokenizers.names import Layout
from entropy_cli.tokenizers.preprocess import adm_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

EMA_BY_DEFAULT = True
IMAGE_SIZE, JANUS_IMAGE_SIZE = 256, 384
CODEBOOK = "quantize.embedding.weight"
REQUIRED = (
    "encoder.conv_blocks.0.res.0.conv1.weight",
    "encoder.mid.0.conv1.weight",
    "encoder.mid.2.conv1.weight",
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "quant_conv.weight",
    CODEBOOK,
)
TELLING = {
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
    unused=("quantize.codebook_used",),
)
PUBLISHED: dict[Rule, Temperature] = {
    "cosine": Temperature(0.01, "compute_entropy_loss in LlamaGen's quantiser")
}


def lacks(checkpoint: Checkpoint) -> list[str]:
    """The keys that a checkpoint lacks to be of this family."""
    if is_renamed_janus(checkpoint):
        return absent(checkpoint.shapes, vqgan.REQUIRED)
    return absent(checkpoint.shapes, REQUIRED)


def unlike(checkpoint: Checkpoint) -> list[str]:
    """Nothing: its names are its own."""
    return []


def is_renamed_janus(checkpoint: Checkpoint) -> bool:
    """Whether it is Janus as transformers stores it, whose names are those of a VQGAN."""
    return checkpoint.prefix.endswith("vqmodel.") and checkpoint.shapes.get(CODEBOOK) == (16384, 8)


def codebooks(checkpoint: Checkpoint) -> list[str]:
    """One."""
    return [CODEBOOK]


def describe(checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
    """What its shapes and the settings make of it."""
    network = plan_network(checkpoint, LAYOUT, [CODEBOOK])
    is_janus = is_renamed_janus(checkpoint) or checkpoint.prefix.endswith("gen_vision_model.")
    default = JANUS_IMAGE_SIZE if is_janus else IMAGE_SIZE
    image_size, side = choose_image_size(settings, default, network.encoder.downsampling)
    vocabulary = Vocabulary(vocab_size(checkpoint, CODEBOOK, network))
    rule = choose_rule(settings, "cosine")
    temperature = choose_temperature(rule, PUBLISHED, "LlamaGen")
    return TokenizerSpec(
        family="llamagen",
        latent_dim=network.latent_dim,
        image_size=image_size,
        scales=grid_scale(side, vocabulary, settings),
        rule=rule,
        crop=adm_crop(image_size),
        pixels="[-1, 1]",
        temperature=temperature.value,
        temperature_source=temperature.source,
        notes=tuple(_notes(checkpoint)) if is_janus else (),
    )


def _notes(checkpoint: Checkpoint) -> list[str]:
    notes = [
        "Janus's tokenizer; how its pictures are cropped is not published, LlamaGen's way is taken at "
        f"{JANUS_IMAGE_SIZE} pixels"
    ]
    if is_renamed_janus(checkpoint):
        notes.append(
            "its codes are compared by direction, as Janus does; transformers' own class compares "
            "distances: for its tokens give --rule l2"
        )
    return notes


def build(checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
    """Read the weights."""
    spec = describe(checkpoint, settings)
    network = load_network(checkpoint, LAYOUT, [CODEBOOK])
    return ConvTokenizer(spec, network, [Codebook(finite(checkpoint, CODEBOOK), spec.rule)])
