"""Family: RQ-VAE, residual quantisation in several depths, which are the scales here.

Source:
    kakaobrain/rq-vae-transformer rqvae/models/rqvae/quantizations.py (RQBottleneck, VQEmbedding whose
    last row is padding), configs of stage 2: soft labels at a temperature of 0.5.
"""

from functools import partial

from torchvision.transforms import InterpolationMode

from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import Scale, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits, absent_keys, describe_scales, grid_scale
from entropy_cli.tokenizers.convolutional import (
    ConvTokenizer,
    load_network,
    plan_network,
    read_finite,
    vocab_size,
)
from entropy_cli.tokenizers.layers.autoencoder import count
from entropy_cli.tokenizers.names import Layout
from entropy_cli.tokenizers.preprocess import resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

EMA_BY_DEFAULT = True
CLASSES: tuple[str, ...] = ("RQVAE",)
CODEBOOKS = "quantizer.codebooks.{}.weight"
# How often training chose each code, and what the codes are averages of.
AVERAGES = ("cluster_size_ema", "embed_ema")
REQUIRED = (
    CODEBOOKS.format(0),
    "encoder.conv_in.weight",
    "encoder.down.0.block.0.conv1.weight",
    "encoder.mid.block_1.conv1.weight",
    "quant_conv.weight",
)
IDENTIFYING_KEYS = {CODEBOOKS.format(0): "RQ-VAE's codebooks, one for each depth"}
LAYOUT = Layout()
TRAITS = Traits(
    family="rq-vae",
    published_by="RQ-VAE",
    rule="l2",
    temperatures={"l2": Temperature((0.5,), "the soft labels of RQ-VAE's second-stage configurations")},
    labels="soft",
    crop=partial(resize_crop, interpolation=InterpolationMode.BILINEAR),
    possible=("l2",),
)


def missing_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the required keys that a checkpoint lacks."""
    return absent_keys(checkpoint.shapes, REQUIRED)


def conflicting_keys(checkpoint: Checkpoint) -> list[str]:
    """Return no keys: the names of its codebooks are unique."""
    return []


def codebooks(checkpoint: Checkpoint) -> list[str]:
    """Return the name of each depth's codebook."""
    return [CODEBOOKS.format(i) for i in range(count(checkpoint.shapes, CODEBOOKS))]


def describe(checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
    """Describe the tokenizer from its shapes and the settings."""
    network = plan_network(checkpoint, LAYOUT, _others(checkpoint), settings.norm_groups)
    sizes = [vocab_size(checkpoint, name, network, padding=1) for name in codebooks(checkpoint)]

    def depths(_: int, side: int) -> tuple[Scale, ...]:
        (grid,) = grid_scale(side, Vocabulary(sizes[0]), settings)
        return tuple(
            Scale(f"depth {i}", grid.tokens, None, Vocabulary(size)) for i, size in enumerate(sizes)
        )

    return describe_scales(TRAITS, network, settings, depths)


def build(checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
    """Read the weights and build the tokenizer."""
    spec = describe(checkpoint, settings)
    network = load_network(checkpoint, LAYOUT, _others(checkpoint), settings.norm_groups)
    tables = [read_finite(checkpoint, name)[:-1] for name in codebooks(checkpoint)]
    return ConvTokenizer(spec, network, [Codebook(table_VC, spec.rule) for table_VC in tables])


def _others(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the codebooks and of the averages that training keeps beside them."""
    names = codebooks(checkpoint)
    return names + [f"{name.removesuffix('weight')}{average}" for name in names for average in AVERAGES]
