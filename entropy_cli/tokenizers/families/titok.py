"""Family: TiTok and TA-TiTok, which write an image as a row of tokens without a grid.

Source:
    bytedance/1d-tokenizer modeling/titok.py, modeling/quantizer/quantizer.py, data/webdataset_reader.py.
"""

from typing import ClassVar

import torch
from PIL.Image import Resampling
from torch import Tensor, nn

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import Scale, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.convolutional import ConvTokenizer, refuse_unread
from entropy_cli.tokenizers.family import Family, choose_rule, choose_temperature
from entropy_cli.tokenizers.layers.titok_encoder import (
    FIRST_DECODER,
    LATER_DECODER,
    PREFIX,
    TiTokEncoder,
)
from entropy_cli.tokenizers.names import CODEBOOK
from entropy_cli.tokenizers.precision import DTYPES, matmul_precision
from entropy_cli.tokenizers.preprocess import resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

COSINE_DIM = 12  # the first checkpoints compare directions, and they alone have codes of 12 numbers


class TiTok(Family):
    """The family; positions are learned, so the image size is fixed."""

    CLASSES = ("TiTok",)
    REQUIRED = (
        "latent_tokens",
        "encoder.latent_token_positional_embedding",
        "encoder.patch_embed.weight",
        CODEBOOK,
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[0]: "the tokens that TiTok's transformer asks for",
        REQUIRED[1]: "their places",
    }

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """Describe the tokenizer; another image size or a grid is refused."""
        encoder = _plan(checkpoint)
        refuse_unread(checkpoint, [*_names(encoder).values(), CODEBOOK], {})
        for asked, fixed, name in (
            (settings.image_size, encoder.image_size, "--image-size"),
            (settings.patch_nums, None, "--patch-nums"),
        ):
            if asked not in (None, fixed):
                raise CheckpointError(
                    f"{checkpoint.path}: got {name} {asked}, but TiTok's images are of "
                    f"{encoder.image_size} pixels and its tokens have no grid. Leave it out."
                )
        vocab_size, latent_dim = checkpoint.shapes[CODEBOOK]
        if not vocab_size:
            raise CheckpointError(
                f"{checkpoint.path}: {CODEBOOK} holds no codes. Copy or train it again."
            )
        rule = choose_rule(settings, "cosine" if latent_dim == COSINE_DIM else "l2")
        temperature = choose_temperature(rule, {}, "TiTok")
        tokens = checkpoint.shapes["latent_tokens"][0]
        return TokenizerSpec(
            family="titok",
            latent_dim=latent_dim,
            image_size=encoder.image_size,
            scales=(Scale(f"{tokens} tokens", tokens, None, Vocabulary(vocab_size)),),
            rule=rule,
            crop=resize_crop(encoder.image_size, Resampling.BICUBIC),
            pixels="[0, 1]",
            temperatures=temperature.values,
            temperature_source=temperature.source,
            labels="hard",
        )

    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> "TiTokTokenizer":
        """Read the weights and build the tokenizer."""
        spec, encoder = self.describe(checkpoint, settings), _plan(checkpoint)
        weights = {ours: checkpoint.finite(theirs) for ours, theirs in _names(encoder).items()}
        encoder.load_state_dict(weights, assign=True)
        codebook = Codebook(checkpoint.finite(CODEBOOK), spec.rule)
        return TiTokTokenizer(spec, encoder.eval().requires_grad_(requires_grad=False), [codebook])


class TiTokTokenizer(ConvTokenizer):
    """TiTok's encoder and codebook, with latents (B, C, 1, l)."""

    @property
    def encoder(self) -> nn.Module:
        """The whole network."""
        return self.network

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Return the latents in the order of the tokens."""
        dtype = DTYPES[self.precision]
        with (
            matmul_precision(tf32=self.precision == "tf32"),
            torch.autocast(img_B3HW.device.type, dtype, enabled=dtype != torch.float32),
        ):
            z_BlC = self.encoded(img_B3HW)
        return z_BlC.float().transpose(1, 2)[:, :, None]


def _names(encoder: TiTokEncoder) -> dict[str, str]:
    """Map the encoder's names of its weights to the published ones."""
    names = {ours: PREFIX + ours for ours in encoder.state_dict()}
    return names | {"latent_tokens": "latent_tokens"}


def _plan(checkpoint: Checkpoint) -> TiTokEncoder:
    """Build the encoder on the meta device, or raise CheckpointError."""
    shapes = checkpoint.shapes
    has_decoder = FIRST_DECODER in shapes or LATER_DECODER in shapes
    scrambled = None if has_decoder else shapes[CODEBOOK][1:] == (COSINE_DIM,)
    try:
        with torch.device("meta"):
            return TiTokEncoder(shapes, scrambled=scrambled)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: not a usable TiTok: {error}.") from error
