"""Family: Open-MAGVIT2, lookup-free quantisation: a code is the signs of a latent.

Source:
    TencentARC/SEED-Voken src/Open_MAGVIT2 (modules/diffusionmodules/improved_model.py,
    modules/vqvae/lookup_free_quantize.py, evaluation with the EMA weights).
"""

from functools import partial

from torchvision.transforms import InterpolationMode

from entropy_cli.entropy.codebook import Grid
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits, absent_keys, describe_grid
from entropy_cli.tokenizers.convolutional import ConvTokenizer, load_network, plan_network
from entropy_cli.tokenizers.layers.autoencoder import Conventions
from entropy_cli.tokenizers.names import Layout
from entropy_cli.tokenizers.preprocess import resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

EMA_BY_DEFAULT = True
CLASSES: tuple[str, ...] = ()  # nobody publishes it with a config.json
REQUIRED = (
    "encoder.mid_block.0.conv1.weight",
    "encoder.down.0.block.0.conv1.weight",
    "encoder.down.0.downsample.weight",
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
)
IDENTIFYING_KEYS = {
    REQUIRED[0]: "Open-MAGVIT2's name for the blocks in the middle",
    REQUIRED[2]: "its name for the convolution between levels",
}
LAYOUT = Layout(
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
    labels="hard",
    crop=partial(resize_crop, interpolation=InterpolationMode.BILINEAR),
)


def missing_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the required keys that a checkpoint lacks."""
    return absent_keys(checkpoint.shapes, REQUIRED)


def conflicting_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the keys of a checkpoint that conflict with this family."""
    names = ("quant_conv.weight", "quantize.embedding.weight")
    return [f"has {name}" for name in names if name in checkpoint.shapes]


def codebooks(checkpoint: Checkpoint) -> list[str]:
    """Return no names: the codes are the corners of a cube."""
    return []


def describe(checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
    """Describe the tokenizer from its shapes and the settings."""
    network = plan_network(checkpoint, LAYOUT, [], settings.norm_groups)
    vocabulary = Vocabulary.product((2,) * network.latent_dim)
    return describe_grid(TRAITS, network, settings, vocabulary)


def build(checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
    """Read the weights and build the tokenizer."""
    spec = describe(checkpoint, settings)
    network = load_network(checkpoint, LAYOUT, [], settings.norm_groups)
    return ConvTokenizer(spec, network, [Grid.of_bits(spec.latent_dim, "sign")])
