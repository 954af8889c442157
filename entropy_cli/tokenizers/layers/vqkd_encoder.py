"""The vision transformer of BEiT v2's tokenizer, under its published names.

Source:
    microsoft/unilm beit2/modeling_finetune.py (VisionTransformer), modeling_vqkd.py (VQKD.encode).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.tokenizers.layers.autoencoder import Shapes, count

EPS = 1e-6
HEAD = 64  # dimensions of a head, which weights don't show: in every published checkpoint
TASK = "encode_task_layer"


class Attention(nn.Module):
    """Attention of several heads, without a bias of the keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.q_bias, self.v_bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))

    def forward(self, x_BlC: Tensor) -> Tensor:
        bias_3C = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv_BlX = functional.linear(x_BlC, self.qkv.weight, bias_3C)
        qkv_Bl3nd = qkv_BlX.view(*x_BlC.shape[:2], 3, self.heads, -1)
        qkv_3Bnld = qkv_Bl3nd.permute(2, 0, 3, 1, 4)
        h_Bnld = functional.scaled_dot_product_attention(*qkv_3Bnld)
        return self.proj(h_Bnld.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and two layers, each after a norm and with a shortcut."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, EPS), Attention(width)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x_BlC: Tensor) -> Tensor:
        x_BlC = x_BlC + self.attn(self.norm1(x_BlC))
        return x_BlC + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x_BlC))))


class VQKDEncoder(nn.Module):
    """The encoder from images of one size to latents z_BlC, row after row."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width, _, patch, _ = shapes["encoder.patch_embed.proj.weight"]
        if not width or width % HEAD:
            raise ValueError(f"is {width} wide, expected a multiple of {HEAD}")
        places = shapes["encoder.pos_embed"][1]
        side = math.isqrt(places - 1)
        if side * side != places - 1:
            raise ValueError(f"has {places} positions, expected one more than a square")
        self.downsampling, self.image_size = patch, side * patch
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, places, width))
        fc1 = "encoder.blocks.{}.mlp.fc1.weight"
        self.blocks = nn.ModuleList(
            Block(width, shapes[fc1.format(i)][0]) for i in range(count(shapes, fc1))
        )
        self.fc_norm = nn.LayerNorm(width, EPS)
        self.latent_dim = shapes[f"encoder.{TASK}.2.weight"][0]
        self.encode_task_layer = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, self.latent_dim)
        )

    def forward(self, x_B3HW: Tensor) -> Tensor:
        x_BlC = self.patch_embed["proj"](x_B3HW).flatten(2).transpose(1, 2)
        x_BlC = torch.cat([self.cls_token.expand(len(x_BlC), -1, -1), x_BlC], 1) + self.pos_embed
        for block in self.blocks:
            x_BlC = block(x_BlC)
        x_BlC = self.fc_norm(x_BlC[:, 1:])
        with torch.autocast(x_BlC.device.type, enabled=False):  # as in the published code
            z_BlC: Tensor = self.encode_task_layer(x_BlC.float())
            return functional.normalize(z_BlC, dim=2)
