"""Family: IBQ, index backpropagation quantisation: the nearest code is that of the largest dot product.

Source:
    TencentARC/SEED-Voken src/IBQ (quantize.py, main evaluation with the EMA weights, configs:
    entropy_temperature 0.01).
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
from entropy_cli.tokenizers.preprocess import opencv_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

EMA_BY_DEFAULT = True
IMAGE_SIZE = 256
TELLING = {vqgan.FOURTH_BLOCK: "a fourth block on a level, where a VQGAN has two or three"}
LAYOUT = Layout()
PUBLISHED: dict[Rule, Temperature] = {
    "dot": Temperature(0.01, "entropy_temperature in all of IBQ's configurations")
}


def lacks(checkpoint: Checkpoint) -> list[str]:
    """The keys that a checkpoint lacks to be of this family."""
    return absent(checkpoint.shapes, vqgan.REQUIRED)


def unlike(checkpoint: Checkpoint) -> list[str]:
    """What tells it from a VQGAN, of which only the number of blocks shows."""
    fourth = vqgan.FOURTH_BLOCK
    found = [] if fourth in checkpoint.shapes else [f"no {fourth}"]
    return found + [f"has {name}" for name in vqgan.multi_scale(checkpoint)]


def codebooks(checkpoint: Checkpoint) -> list[str]:
    """One."""
    return [vqgan.CODEBOOK]


def describe(checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
    """What its shapes and the settings make of it."""
    network = plan_network(checkpoint, LAYOUT, [vqgan.CODEBOOK])
    image_size, side = choose_image_size(settings, IMAGE_SIZE, network.encoder.downsampling)
    vocabulary = Vocabulary(vocab_size(checkpoint, vqgan.CODEBOOK, network))
    rule = choose_rule(settings, "dot")
    temperature = choose_temperature(rule, PUBLISHED, "IBQ")
    return TokenizerSpec(
        family="ibq",
        latent_dim=network.latent_dim,
        image_size=image_size,
        scales=grid_scale(side, vocabulary, settings),
        rule=rule,
        crop=opencv_crop(image_size),
        pixels="[-1, 1]",
        temperature=temperature.value,
        temperature_source=temperature.source,
        notes=(
            "IBQ and a VQGAN of four blocks a level look alike; they differ in the rule, dot product or "
            "distance. If this is a VQGAN, give --family vqgan",
        ),
    )


def build(checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
    """Read the weights."""
    spec = describe(checkpoint, settings)
    network = load_network(checkpoint, LAYOUT, [vqgan.CODEBOOK])
    codebook = Codebook(finite(checkpoint, vqgan.CODEBOOK), spec.rule)
    return ConvTokenizer(spec, network, [codebook])
