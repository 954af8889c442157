"""The ViT encoder of TiTok: from images to a row of latents that have no place on a grid.

Module names are those of the published checkpoints without their "encoder.", and every size is read off
the shapes of the weights, so that a state dict loads strictly or not at all. Inference only.

Source:
    bytedance/1d-tokenizer at 60d4745: modeling/modules/blocks.py (TiTokEncoder, ResidualAttentionBlock),
    modeling/titok.py, configs/infer (is_legacy).
"""

from collections import OrderedDict
from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.tokenizers.names import CODEBOOK

Shapes = Mapping[str, tuple[int, ...]]

# Not visible in the weights: the same in every published checkpoint.
HEAD_DIM = 64
NORM_EPS = 1e-5

PREFIX = "encoder."
# Each of the two decoders has a weight that the other lacks. The first was trained on scrambled latents.
FIRST_DECODER, LATER_DECODER = "decoder.ffn.2.weight", "decoder.conv_out.weight"


class Attention(nn.Module):
    """Self-attention over all positions, with the weights of torch's MultiheadAttention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BnC: Tensor) -> Tensor:
        """Return the attention output at each position."""
        B, n, width = x_BnC.shape
        qkv_BnC = functional.linear(x_BnC, self.in_proj_weight, self.in_proj_bias)
        qkv_Bn3hc = qkv_BnC.view(B, n, 3, width // HEAD_DIM, HEAD_DIM)
        q_Bhnc, k_Bhnc, v_Bhnc = qkv_Bn3hc.permute(2, 0, 3, 1, 4)
        h_Bhnc = functional.scaled_dot_product_attention(q_Bhnc, k_Bhnc, v_Bhnc)
        return self.out_proj(h_Bhnc.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then an MLP of one hidden layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, NORM_EPS), nn.LayerNorm(width, NORM_EPS)
        self.attn = Attention(width)
        fc, proj = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=fc, gelu=nn.GELU(), c_proj=proj))

    def forward(self, x_BnC: Tensor) -> Tensor:
        """Return the hidden state of each position."""
        x_BnC = x_BnC + self.attn(self.ln_1(x_BnC))
        return x_BnC + self.mlp(self.ln_2(x_BnC))


class TiTokEncoder(nn.Module):
    """The encoder from images in [0, 1] to the latents of the tokens, before any normalisation.

    The first checkpoints were trained with the numbers of an image, place after place, read as if they
    lay channel after channel: number j became channel j // l of token j % l. Such latents are scrambled.

    Args:
        shapes: of a published checkpoint's weights, the decoder and the codebook among them.
        scrambled: whether latents are scrambled; None to follow the decoder.

    Raises:
        ValueError: shapes are missing, left over or contradict each other, or there is no codebook.
    """

    def __init__(self, shapes: Shapes, *, scrambled: bool | None = None) -> None:
        super().__init__()
        tokens, width = _sizes(shapes, "latent_tokens", 2)
        positions = _sizes(shapes, f"{PREFIX}positional_embedding", 2)[0]
        patch = _sizes(shapes, f"{PREFIX}patch_embed.weight", 4)[2]
        latent_dim = _sizes(shapes, f"{PREFIX}conv_out.weight", 4)[0]
        grid = isqrt(max(positions - 1, 0))
        if not grid or grid**2 + 1 != positions:
            raise ValueError(f"{positions} positions are not the patches of a square and one more")
        if not tokens or not width or width % HEAD_DIM:
            raise ValueError(f"{tokens} tokens of width {width}, expected a multiple of {HEAD_DIM}")

        self.latent_dim, self.downsampling, self.image_size = latent_dim, patch, patch * grid
        self.scrambled = _tells_scrambled(shapes) if scrambled is None else scrambled
        self.latent_tokens = nn.Parameter(torch.empty(tokens, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.class_embedding = nn.Parameter(torch.empty(1, width))
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.ln_pre, self.ln_post = nn.LayerNorm(width, NORM_EPS), nn.LayerNorm(width, NORM_EPS)
        self.transformer = nn.ModuleList()
        while (name := f"{PREFIX}transformer.{len(self.transformer)}.mlp.c_fc.weight") in shapes:
            self.transformer.append(Block(width, _sizes(shapes, name, 2)[0]))
        self.conv_out = nn.Conv2d(width, latent_dim, 1)
        self._check(shapes)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return the latents z_BlC in the order of the tokens, in float32."""
        x_BCgg = self.patch_embed(x_B3HW.to(self.patch_embed.weight.dtype))
        x_BnC = x_BCgg.flatten(2).transpose(1, 2).to(self.class_embedding.dtype)
        x_BnC = torch.cat([self.class_embedding.expand(len(x_BnC), 1, -1), x_BnC], dim=1)
        asked_lC = self.latent_tokens + self.latent_token_positional_embedding
        asked_BlC = asked_lC.expand(len(x_BnC), -1, -1)
        x_BnC = self.ln_pre(torch.cat([x_BnC + self.positional_embedding, asked_BlC], dim=1))
        for block in self.transformer:
            x_BnC = block(x_BnC)
        said_BlC = self.ln_post(x_BnC[:, -len(asked_lC) :]).to(self.conv_out.weight.dtype)
        B, tokens, width = said_BlC.shape
        said_BCl = said_BlC.reshape(B, width, tokens) if self.scrambled else said_BlC.transpose(1, 2)
        return self.conv_out(said_BCl[..., None])[..., 0].transpose(1, 2).float()

    def _check(self, shapes: Shapes) -> None:
        """Check that the checkpoint has exactly these weights and shapes, and codes that fit."""
        ours = {
            name if name == "latent_tokens" else PREFIX + name: tuple(weight.shape)
            for name, weight in self.state_dict().items()
        }
        theirs = {name for name in shapes if name.startswith(PREFIX)}
        for name in sorted(theirs - ours.keys()):
            raise ValueError(f"got {name}, which is no part of this encoder")
        for name, shape in ours.items():
            if _sizes(shapes, name, len(shape)) != shape:
                raise ValueError(f"{name} is {shapes[name]}, but other weights ask for {shape}")
        if CODEBOOK not in shapes:
            raise ValueError(f"{CODEBOOK} is missing: latents without a codebook are no tokens")
        if (code_dim := _sizes(shapes, CODEBOOK, 2)[1]) != self.conv_out.out_channels:
            raise ValueError(f"a code has {code_dim} dimensions, a latent {self.conv_out.out_channels}")


def _sizes(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    """Return the shape of a required weight; raise unless it has `axes` axes."""
    if name not in shapes or len(shapes[name]) != axes:
        raise ValueError(f"{name} is {shapes.get(name, 'missing')}, expected {axes} axes")
    return tuple(shapes[name])


def _tells_scrambled(shapes: Shapes) -> bool:
    """Return whether the decoder is that of the first version."""
    if (FIRST_DECODER in shapes) == (LATER_DECODER in shapes):
        raise ValueError(
            f"expected {FIRST_DECODER} or {LATER_DECODER}, which tell if latents are scrambled"
        )
    return FIRST_DECODER in shapes
