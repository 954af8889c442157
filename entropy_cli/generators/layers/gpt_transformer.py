"""LlamaGen's transformer as a network that can be trained.

Source:
    FoundationVision/LlamaGen autoregressive/models/gpt.py (Transformer).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.generators.network import Product

NORM_EPS = 1e-5
ROPE_BASE = 10000.0


@dataclass(frozen=True)
class GPTSizes:
    """Sizes of the transformer; `side` is of the grid of tokens, 0 if that is not known."""

    width: int
    depth: int
    heads: int
    ffn: int
    vocab_size: int
    rows: int
    side: int
    norm_eps: float = NORM_EPS
    rope_base: float = ROPE_BASE


class GPTNetwork(nn.Module):
    """The transformer, under the published names."""

    def __init__(self, sizes: GPTSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_embedding = nn.ModuleDict({"embedding_table": nn.Embedding(sizes.rows, sizes.width)})
        self.tok_embeddings = nn.Embedding(sizes.vocab_size, sizes.width)
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.norm = RMSNorm(sizes)
        self.output = nn.Linear(sizes.width, sizes.vocab_size, bias=False)

    def forward(self, idx_BL: Tensor, label_B: Tensor, _inputs_BMC: Tensor | None) -> Tensor:
        """Return hidden_BLC, normalised for the last layer."""
        class_B1C = self.cls_embedding["embedding_table"](label_B)[:, None]
        h_BLC = torch.cat([class_B1C, self.tok_embeddings(idx_BL[:, :-1])], 1)
        turn_Lp2 = rotations(self.sizes, h_BLC.device)
        for layer in self.layers:
            h_BLC = layer(h_BLC, turn_Lp2)
        return self.norm(h_BLC)

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Return the logits_NV."""
        return self.output(hidden_NC)


class Block(nn.Module):
    """Attention and a gated feed-forward part, each on normalised vectors."""

    def __init__(self, sizes: GPTSizes) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(sizes), FeedForward(sizes)
        self.attention_norm, self.ffn_norm = RMSNorm(sizes), RMSNorm(sizes)

    def forward(self, h_BLC: Tensor, turn_Lp2: Tensor) -> Tensor:
        """Return the residual stream after the block."""
        h_BLC = h_BLC + self.attention(self.attention_norm(h_BLC), turn_Lp2)
        return h_BLC + self.feed_forward(self.ffn_norm(h_BLC))


class Attention(nn.Module):
    """Attention of each token to itself and all before it, with rotated queries and keys."""

    def __init__(self, sizes: GPTSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.wqkv = Product(sizes.width, 3 * sizes.width, bias=False)
        self.wo = Product(sizes.width, sizes.width, bias=False)

    def forward(self, x_BLC: Tensor, turn_Lp2: Tensor) -> Tensor:
        """Return what a block adds."""
        B, L, C = x_BLC.shape
        qkv_BLX = self.wqkv(x_BLC)
        q_BLHd, k_BLHd, v_BLHd = qkv_BLX.view(B, L, 3, self.heads, C // self.heads).unbind(2)
        q_BLHd, k_BLHd = (rotated(x, turn_Lp2).to(v_BLHd.dtype) for x in (q_BLHd, k_BLHd))
        q_BHLd, k_BHLd, v_BHLd = (x.transpose(1, 2) for x in (q_BLHd, k_BLHd, v_BLHd))
        attended_BHLd = functional.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, is_causal=True)
        return self.wo(attended_BHLd.transpose(1, 2).reshape(B, L, C))


class FeedForward(nn.Module):
    """Two layers into the inner width, one gating the other, and one back."""

    def __init__(self, sizes: GPTSizes) -> None:
        super().__init__()
        self.w1 = Product(sizes.width, sizes.ffn, bias=False)
        self.w3 = Product(sizes.width, sizes.ffn, bias=False)
        self.w2 = Product(sizes.ffn, sizes.width, bias=False)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Return what a block adds."""
        return self.w2(functional.silu(self.w1(x_BLC)) * self.w3(x_BLC))


class RMSNorm(nn.Module):
    """A norm by the root of the mean square."""

    def __init__(self, sizes: GPTSizes) -> None:
        super().__init__()
        self.eps, self.weight = sizes.norm_eps, nn.Parameter(torch.empty(sizes.width))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Return normalised vectors."""
        return functional.rms_norm(x_BLC, x_BLC.shape[-1:], self.weight, self.eps)


def rotations(sizes: GPTSizes, device: torch.device) -> Tensor:
    """Return cosine and sine (L, dims / 2, 2) by which each place turns pairs of a head's dimensions.

    They are computed on the device: the host would wait for a copy.

    The first half of the pairs turns by the row of the token that is there, the other by its column.
    The class comes first: its rotation is the published code's, all zeros, so that its query and key
    vanish. The last token of the grid is no input.
    """
    side, dims = sizes.side, sizes.width // sizes.heads
    j = torch.arange(dims // 4, dtype=torch.float64, device=device)
    frequency_j = sizes.rope_base ** (-2 * j / (dims // 2))
    place_n = torch.arange(side, dtype=torch.float64, device=device)
    angle_nj = place_n[:, None] * frequency_j
    row_nnj, column_nnj = angle_nj[:, None].expand(-1, side, -1), angle_nj.expand(side, -1, -1)
    angle_Lp = torch.cat([row_nnj, column_nnj], -1).flatten(0, 1)
    turn_Lp2 = torch.stack([angle_Lp.cos(), angle_Lp.sin()], -1)
    return torch.cat([torch.zeros_like(turn_Lp2[:1]), turn_Lp2])[:-1].float()


def rotated(x_BLHd: Tensor, turn_Lp2: Tensor) -> Tensor:
    """Turn adjacent pairs of dimensions, in float32."""
    x_BLHp2 = torch.unflatten(x_BLHd.float(), -1, (-1, 2))
    turned_BLHp = torch.view_as_complex(x_BLHp2) * torch.view_as_complex(turn_Lp2)[:, None]
    return torch.view_as_real(turned_BLHp).flatten(-2)
