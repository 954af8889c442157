"""Family: TiTok and TA-TiTok, which write an image as a row of tokens without a grid.

Source:
    bytedance/1d-tokenizer modeling/titok.py, modeling/quantizer/quantizer.py, data/webdataset_reader.py.
"""

from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from PIL.Image import Resampling
from torch import Tensor

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.base import Scale
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Traits
from entropy_cli.tokenizers.convolutional import ConvTokenizer
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.layers.titok_encoder import (
    FIRST_DECODER,
    LATER_DECODER,
    TiTokEncoder,
)
from entropy_cli.tokenizers.names import CODEBOOK
from entropy_cli.tokenizers.network import EncoderNetwork, Network, Sources, refuse_unread
from entropy_cli.tokenizers.precision import DTYPES, matmul_precision
from entropy_cli.tokenizers.preprocess import resize_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

COSINE_DIM = 12  # the first checkpoints compare directions, and they alone have codes of 12 numbers
TOKENS = "latent_tokens"


class TiTokTokenizer(ConvTokenizer):
    """A transformer and its codebook, with latents (B, C, 1, l)."""

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Return the latents in the order of the tokens."""
        dtype = DTYPES[self.precision]
        with (
            matmul_precision(tf32=self.precision == "tf32"),
            torch.autocast(img_B3HW.device.type, dtype, enabled=dtype != torch.float32),
        ):
            z_BlC = self.encoded(img_B3HW)
        return z_BlC.float().transpose(1, 2)[:, :, None]


class TiTok(Family):
    """The family; positions are learned, so the image size is fixed."""

    CLASSES = ("TiTok",)
    REQUIRED = (
        TOKENS,
        "encoder.latent_token_positional_embedding",
        "encoder.patch_embed.weight",
        CODEBOOK,
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[0]: "the tokens that TiTok's transformer asks for",
        REQUIRED[1]: "their places",
    }
    TRAITS = Traits(
        family="titok",
        published_by="TiTok",
        rule="l2",
        crop=partial(resize_crop, interpolation=Resampling.BICUBIC),
        pixels="[0, 1]",
    )
    TOKENIZER = TiTokTokenizer

    def _network(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> tuple[Network, Sources]:
        shapes = checkpoint.shapes
        has_decoder = FIRST_DECODER in shapes or LATER_DECODER in shapes
        scrambled = None if has_decoder else shapes[CODEBOOK][1:] == (COSINE_DIM,)
        try:
            with torch.device("meta"):
                network = EncoderNetwork(TiTokEncoder(shapes, scrambled=scrambled))
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.path}: not a usable TiTok: {error}.") from error
        sources = {name: (name,) for name in network.state_dict()} | {f"encoder.{TOKENS}": (TOKENS,)}
        refuse_unread(checkpoint, [CODEBOOK, *(name for (name,) in sources.values())], {})
        return network, sources

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        return replace(self.TRAITS, rule="cosine") if network.latent_dim == COSINE_DIM else self.TRAITS

    def _scales(self, plan: Plan) -> tuple[Scale, ...]:
        if plan.settings.patch_nums:
            raise CheckpointError(
                f"{plan.checkpoint.path}: got --patch-nums, but TiTok's tokens have no grid. Leave "
                "it out."
            )
        tokens = plan.checkpoint.shapes[TOKENS][0]
        return (Scale(f"{tokens} tokens", tokens, None, self._vocabulary(plan)),)
