"""Family: Cosmos's discrete image tokenizers, whose codes are levels (FSQ), of wavelets of an image.

Source:
    NVIDIA/Cosmos-Tokenizer cosmos_tokenizer/networks/discrete_image.py, modules/layers2d.py,
    modules/patching.py (Haar), modules/quantizers.py (FSQuantizer), networks/configs.py (levels).
"""

from functools import partial
from typing import ClassVar

from PIL.Image import Resampling
from torch import Tensor

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Grid
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Traits
from entropy_cli.tokenizers.convolutional import ConvTokenizer
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.latents import DEFAULTS
from entropy_cli.tokenizers.layers.wavelets import WaveletEncoder
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.preprocess import resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

PUBLISHED_LEVELS = (8, 8, 8, 5, 5, 5)
LEVELS = "quantizer._levels"  # which TorchScript keeps, a state dict does not
WAVELETS = "encoder.patcher.wavelets"
CONSTANTS = (
    *(LEVELS, "quantizer._basis", "quantizer.implicit_codebook"),
    *(WAVELETS, "encoder.patcher._arange"),
)
BEYOND = 1e-3  # by which the bound lies outside the levels, as a share


class CosmosNetwork(Network):
    """The encoder of wavelets, and the convolution after it."""

    ENCODER = WaveletEncoder


class CosmosTokenizer(ConvTokenizer):
    """Cosmos's encoder, and the bound on its latents."""

    def after_encoder(self, latent_BChw: Tensor) -> Tensor:
        """Return the latents bounded to the levels."""
        z_BChw = super().after_encoder(latent_BChw)
        level_C = z_BChw.new_tensor(_levels_of(self.spec))
        half_C = (level_C - 1) * (1 + BEYOND) / 2
        offset_C = (level_C % 2 == 0) * 0.5
        half_C11, offset_C11 = half_C[:, None, None], offset_C[:, None, None]
        return (z_BChw + (offset_C11 / half_C11).atanh()).tanh() * half_C11 - offset_C11


class Cosmos(Family):
    """The family: TorchScript (of the encoder or the autoencoder), or a state dict."""

    TAKES_LEVELS = True
    CLASSES = ("CosmosTokenizer",)
    REQUIRED = ENCODER
    IDENTIFYING_KEYS: ClassVar = {
        ENCODER[0]: "which takes wavelets, of more than 3 channels",
        LEVELS: "the levels of its dimensions",
    }
    TRAITS = Traits(
        family="cosmos",
        published_by="Cosmos",
        rule="levels",
        temperatures=DEFAULTS,
        crop=partial(resize_crop, interpolation=Resampling.BICUBIC),
    )
    NETWORK = CosmosNetwork
    TOKENIZER = CosmosTokenizer

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List what marks others: images as they are, a codebook, latents without levels."""
        found = [f"has {CODEBOOK}"] if CODEBOOK in checkpoint.shapes else []
        if checkpoint.shapes.get(ENCODER[0], ())[1:2] == (3,):
            found.append("takes images, not wavelets")
        dims = checkpoint.shapes.get("quant_conv.weight", ())[:1]
        if LEVELS not in checkpoint.shapes and dims not in ((), (len(PUBLISHED_LEVELS),)):
            found.append(f"has latents of {dims[0]} numbers and no levels, as continuous ones are")
        return found

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List no names: the codes are whole numbers."""
        return []

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        return list(CONSTANTS)

    def _vocabulary(self, plan: Plan) -> Vocabulary:
        return Grid.of_levels(_levels(plan.checkpoint, plan.settings)).vocabulary

    def _notes(self, plan: Plan) -> list[str]:
        notes = ["how Cosmos resizes images is not published: here all are cropped to squares"]
        if LEVELS not in plan.checkpoint.shapes:
            levels = ",".join(map(str, PUBLISHED_LEVELS))
            notes.append(
                f"the file does not tell its levels: {levels} as published, unless --levels is given"
            )
        return notes

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> list[Grid]:
        wavelets = checkpoint.finite(WAVELETS) if WAVELETS in checkpoint.shapes else None
        if wavelets is not None and not wavelets.is_meta and wavelets.min() == 1:
            raise CheckpointError(
                f"{checkpoint.path}: its patches are rearranged pixels, not Haar wavelets. Make latents "
                "with its own code and give --latents."
            )
        return [Grid.of_levels(_levels_of(spec))]


def _levels_of(spec: TokenizerSpec) -> tuple[int, ...]:
    """Return the levels in the order of the dimensions, the least significant first."""
    levels = spec.scales[0].vocabulary.levels
    assert levels is not None
    return levels[::-1]


def _levels(checkpoint: Checkpoint, settings: TokenizerSettings) -> tuple[int, ...]:
    """Return the levels that the user gives, else the file's, else the published ones."""
    dims = checkpoint.shapes["quant_conv.weight"][0]
    stored = tuple(checkpoint.integers(LEVELS).tolist()) if LEVELS in checkpoint.shapes else None
    if stored and settings.levels not in (None, stored):
        raise CheckpointError(
            f"{checkpoint.path}: has levels {','.join(map(str, stored))}. Leave out --levels."
        )
    levels = stored or settings.levels or PUBLISHED_LEVELS
    if len(levels) != dims or min(levels) < 2:
        raise CheckpointError(
            f"{checkpoint.path}: levels {','.join(map(str, levels))}, but latents have {dims} "
            f"dimensions. Give --levels with {dims} numbers."
        )
    return levels
