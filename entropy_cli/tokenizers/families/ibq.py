"""Family: IBQ, index backpropagation quantisation: the nearest code is that of the largest dot product.

Source:
    TencentARC/SEED-Voken src/IBQ (quantize.py, main evaluation with the EMA weights, configs:
    entropy_temperature 0.01).
"""

from entropy_cli.core.errors import CheckpointError
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
from entropy_cli.tokenizers.preprocess import opencv_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

EMA_BY_DEFAULT = True
CLASSES: tuple[str, ...] = ("IBQ",)
IDENTIFYING_KEYS = {vqgan.FOURTH_BLOCK: "a fourth block on a level, where a VQGAN has two or three"}
TRAITS = Traits(
    family="ibq",
    published_by="IBQ",
    rule="dot",
    temperatures={"dot": Temperature((0.01,), "entropy_temperature in all of IBQ's configurations")},
    labels="hard",
    crop=opencv_crop,
)
LAYOUT = Layout()
MOVQ = "its decoder has the norms of a MoVQGAN (conv_y), which compares distances"


def missing_keys(checkpoint: Checkpoint) -> list[str]:
    """Return the required keys that a checkpoint lacks."""
    return absent_keys(checkpoint.shapes, vqgan.REQUIRED)


def conflicting_keys(checkpoint: Checkpoint) -> list[str]:
    """Return what marks a VQGAN: fewer than four blocks per level; with four it may be either."""
    found = [] if vqgan.FOURTH_BLOCK in checkpoint.shapes else [f"no {vqgan.FOURTH_BLOCK}"]
    found += [f"has {name}" for name in vqgan.multi_scale(checkpoint)]
    return found + ([MOVQ] if vqgan.is_movq(checkpoint) else [])


def codebooks(checkpoint: Checkpoint) -> list[str]:
    """Return the name of the codebook."""
    return [CODEBOOK]


def describe(checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
    """Describe the tokenizer from its shapes and the settings.

    Raises:
        CheckpointError: it is a MoVQGAN, or the settings don't fit.
    """
    if vqgan.is_movq(checkpoint):
        raise CheckpointError(f"{checkpoint.path}: not of family ibq: {MOVQ}. Give --family vqgan.")
    network = plan_network(checkpoint, LAYOUT, [CODEBOOK], settings.norm_groups)
    vocabulary = Vocabulary(vocab_size(checkpoint, CODEBOOK, network))
    return describe_grid(TRAITS, network, settings, vocabulary)


def build(checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
    """Read the weights and build the tokenizer."""
    spec = describe(checkpoint, settings)
    network = load_network(checkpoint, LAYOUT, [CODEBOOK], settings.norm_groups)
    codebook = Codebook(read_finite(checkpoint, CODEBOOK), spec.rule)
    return ConvTokenizer(spec, network, [codebook])
