"""VAR's transformer as a network that can be trained.

Source:
    FoundationVision/VAR models/var.py (VAR.forward), models/basic_var.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.generators.network import Product

NORM_EPS = 1e-6
MOST_SCALE_MUL = 100  # of the learned factor of queries of unit length
PLAIN_FACTOR = 0.25  # of 1 / sqrt(d), without unit lengths
FEW_TOKENS = 64  # of scales whose queries go together, with a mask


@dataclass(frozen=True)
class VARSizes:
    """Sizes of the transformer, and what its attention and its modulation are like."""

    width: int
    depth: int
    heads: int
    ffn: int
    latent_dim: int
    vocab_size: int
    classes: int
    tokens_S: tuple[int, ...]
    l2_norm: bool = True
    shared_ada: bool = False
    norm_eps: float = NORM_EPS


class VARNetwork(nn.Module):
    """The transformer, under the published names; it can be trained."""

    def __init__(self, sizes: VARSizes) -> None:
        super().__init__()
        C, tokens_S = sizes.width, sizes.tokens_S
        self.sizes = sizes
        self.word_embed = nn.Linear(sizes.latent_dim, C)
        self.class_emb = nn.Embedding(sizes.classes + 1, C)
        self.pos_start = nn.Parameter(torch.empty(1, tokens_S[0], C))
        self.pos_1LC = nn.Parameter(torch.empty(1, sum(tokens_S), C))
        self.lvl_embed = nn.Embedding(len(tokens_S), C)
        if sizes.shared_ada:
            self.shared_ada_lin = _ada_lin(C, 6)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.head_nm = HeadNorm(sizes)
        self.head = nn.Linear(C, sizes.vocab_size)

    def forward(self, _idx_BL: Tensor | None, label_B: Tensor, inputs_BMC: Tensor) -> Tensor:
        """Return hidden_BLC for teacher-forcing inputs, normalised and modulated for the head."""
        class_BC = self.class_emb(label_B)
        first_BLC = class_BC[:, None] + self.pos_start
        level_L = levels(self.sizes.tokens_S, label_B.device)
        place_1LC = self.lvl_embed(level_L) + self.pos_1LC
        h_BLC = torch.cat([first_BLC, self.word_embed(inputs_BMC)], 1) + place_1LC
        shared_B16C = None
        if self.sizes.shared_ada:
            shared_B16C = self.shared_ada_lin(class_BC).view(-1, 1, 6, self.sizes.width)
        groups = self.groups(label_B.device)
        for block in self.blocks:
            h_BLC = block(h_BLC, class_BC, shared_B16C, groups)
        return self.head_nm(h_BLC, class_BC)

    def groups(self, device: torch.device) -> list["Group"]:
        """Return which queries attend together."""
        return scale_groups(self.sizes.tokens_S, device)

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Return the logits_NV."""
        return self.head(hidden_NC)


class Block(nn.Module):
    """Attention and a feed-forward part, each on modulated vectors and gated."""

    def __init__(self, sizes: VARSizes) -> None:
        super().__init__()
        self.eps = sizes.norm_eps
        if sizes.shared_ada:
            self.ada_gss = nn.Parameter(torch.empty(1, 1, 6, sizes.width))
        else:
            self.ada_lin = _ada_lin(sizes.width, 6)
        self.attn = Attention(sizes)
        self.ffn = FeedForward(sizes)

    def forward(
        self,
        h_BLC: Tensor,
        class_BC: Tensor,
        shared_B16C: Tensor | None,
        groups: Sequence["Group"],
    ) -> Tensor:
        """Return the residual stream after the block."""
        if shared_B16C is None:
            six_B16C = self.ada_lin(class_BC).view(-1, 1, 6, h_BLC.shape[-1])
        else:
            six_B16C = self.ada_gss + shared_B16C
        gate1, gate2, scale1, scale2, shift1, shift2 = six_B16C.unbind(2)
        h_BLC = h_BLC + gate1 * self.attn(_modulated(h_BLC, scale1, shift1, self.eps), groups)
        return h_BLC + gate2 * self.ffn(_modulated(h_BLC, scale2, shift2, self.eps))


class Attention(nn.Module):
    """Attention of each scale to itself and to all before it."""

    def __init__(self, sizes: VARSizes) -> None:
        super().__init__()
        C, self.heads = sizes.width, sizes.heads
        self.l2_norm = sizes.l2_norm
        if sizes.l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.empty(1, sizes.heads, 1, 1))
        self.q_bias, self.v_bias = nn.Parameter(torch.empty(C)), nn.Parameter(torch.empty(C))
        self.mat_qkv = Product(C, 3 * C, bias=False)
        self.proj = Product(C, C)

    def forward(self, x_BLC: Tensor, groups: Sequence["Group"]) -> Tensor:
        """Return what a block adds, before its gate."""
        B, L, C = x_BLC.shape
        weight = self.mat_qkv.weight
        bias_C = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv_BLX = functional.linear(x_BLC.to(weight.dtype), weight, bias_C.to(weight.dtype))
        q_BLHd, k_BLHd, v_BLHd = qkv_BLX.view(B, L, 3, self.heads, C // self.heads).unbind(2)
        factor = PLAIN_FACTOR / math.sqrt(C // self.heads)
        if self.l2_norm:
            # The bound's logarithm is float32's, as in the published code.
            most = torch.tensor(float(MOST_SCALE_MUL)).log().item()
            scale_H1 = self.scale_mul_1H11.clamp_max(most).exp().view(self.heads, 1)
            q_BLHd = (functional.normalize(q_BLHd.float(), dim=-1) * scale_H1).to(weight.dtype)
            k_BLHd = functional.normalize(k_BLHd.float(), dim=-1).to(weight.dtype)
            factor = 1.0
        q_BHLd, k_BHLd, v_BHLd = (x.transpose(1, 2) for x in (q_BLHd, k_BLHd, v_BLHd))
        attended = [
            functional.scaled_dot_product_attention(
                q_BHLd[:, :, group.start : group.stop],
                k_BHLd[:, :, : group.stop],
                v_BHLd[:, :, : group.stop],
                attn_mask=group.mask_qk,
                scale=factor,
            ).transpose(1, 2)
            for group in groups
        ]
        return self.proj(torch.cat(attended, 1).reshape(B, L, C))


class FeedForward(nn.Module):
    """Two layers with the tanh approximation of GELU between them."""

    def __init__(self, sizes: VARSizes) -> None:
        super().__init__()
        self.fc1, self.fc2 = Product(sizes.width, sizes.ffn), Product(sizes.ffn, sizes.width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Return what a block adds, before its gate."""
        return self.fc2(functional.gelu(self.fc1(x_BLC), approximate="tanh"))


class HeadNorm(nn.Module):
    """The norm before the head, modulated by the class."""

    def __init__(self, sizes: VARSizes) -> None:
        super().__init__()
        self.eps, self.ada_lin = sizes.norm_eps, _ada_lin(sizes.width, 2)

    def forward(self, h_BLC: Tensor, class_BC: Tensor) -> Tensor:
        """Return the vectors that the head takes."""
        scale, shift = self.ada_lin(class_BC).view(-1, 1, 2, h_BLC.shape[-1]).unbind(2)
        return _modulated(h_BLC, scale, shift, self.eps)


def _ada_lin(width: int, vectors: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, vectors * width))


def _modulated(h_BLC: Tensor, scale_B1C: Tensor, shift_B1C: Tensor, eps: float) -> Tensor:
    normed_BLC = functional.layer_norm(h_BLC, h_BLC.shape[-1:], eps=eps)
    return torch.addcmul(shift_B1C, normed_BLC, 1 + scale_B1C)


@dataclass(frozen=True)
class Group:
    """Scales whose tokens, from start to stop, are queries together: they see all keys before stop.

    The mask hides later scales of the group from earlier ones; None for a single scale.
    """

    start: int
    stop: int
    mask_qk: Tensor | None


def levels(tokens_S: Sequence[int], device: torch.device) -> Tensor:
    """Return the scale of each token, on a device, which the host does not wait for."""
    return torch.cat([torch.full((tokens,), s, device=device) for s, tokens in enumerate(tokens_S)])


def scale_groups(tokens_S: Sequence[int], device: torch.device) -> list[Group]:
    """Return each large scale by itself and small ones together.

    Attention to each group's keys skips most of what one mask for all would hide.
    """
    ends = list(accumulate(tokens_S))
    groups: list[Group] = []
    start = first = 0
    for s, stop in enumerate(ends):
        if s + 1 < len(ends) and ends[s + 1] - start <= FEW_TOKENS:
            continue
        mask_qk = None
        if s > first:
            level_k = levels(tokens_S[: s + 1], device)
            mask_qk = level_k[start:stop, None] >= level_k
        groups.append(Group(start, stop, mask_qk))
        start, first = stop, s + 1
    return groups
