"""Family: LlamaGen's class-conditional transformer, which predicts one token after the other.

Source:
    FoundationVision/LlamaGen autoregressive/models/gpt.py (Transformer, GPT_models), autoregressive/
    train/train_c2i.py (what its files hold); thu-ml/CCA, whose fine-tunes keep the layout.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.generators.family import Family
from entropy_cli.generators.network import (
    Product,
    axes,
    check_heads,
    check_weights,
    count_blocks,
)
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.limits import MOST_PIXELS
from entropy_cli.tokenizers.precision import Precision

# Published widths whose heads are not of 64 dimensions, and their numbers of heads.
HEADS = {3200: 32, 4096: 32}
WIDTH_OF_A_HEAD = 64
NORM_EPS = 1e-5
ROPE_BASE = 10000
DOWNSAMPLING = 16  # of the tokenizer, where the file does not say
PUBLISHED_CLASSES = 1000  # as many rows leave no room for "no class"
ROTATIONS = "freqs_cis"  # in old files: the class's row, then one for each token
IGNORED = r"freqs_cis|causal_mask|layers\.\d+\.attention\.kv_cache\.[kv]_cache"
CLASSES, TOKENS = "cls_embedding.embedding_table.weight", "tok_embeddings.weight"
QKV, GATE = "layers.0.attention.wqkv.weight", "layers.0.feed_forward.w3.weight"
TRAINED_IN: dict[object, Precision] = {"bf16": "bf16", "fp16": "fp16", "none": "tf32"}


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


class GPTNetwork(nn.Module):
    """The transformer, under the published names."""

    def __init__(self, sizes: GPTSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_embedding = nn.ModuleDict({"embedding_table": nn.Embedding(sizes.rows, sizes.width)})
        self.tok_embeddings = nn.Embedding(sizes.vocab_size, sizes.width)
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.norm = RMSNorm(sizes.width)
        self.output = nn.Linear(sizes.width, sizes.vocab_size, bias=False)

    def forward(self, idx_BL: Tensor, label_B: Tensor, _inputs_BMC: Tensor | None) -> Tensor:
        """Return hidden_BLC, normalised for the last layer."""
        class_B1C = self.cls_embedding["embedding_table"](label_B)[:, None]
        h_BLC = torch.cat([class_B1C, self.tok_embeddings(idx_BL[:, :-1])], 1)
        turn_Lp2 = rotations(self.sizes.side, self.sizes.width // self.sizes.heads, h_BLC.device)
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
        self.attention_norm, self.ffn_norm = RMSNorm(sizes.width), RMSNorm(sizes.width)

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

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Return normalised vectors."""
        return functional.rms_norm(x_BLC, x_BLC.shape[-1:], self.weight, NORM_EPS)


def rotations(side: int, dims: int, device: torch.device) -> Tensor:
    """Return cosine and sine (L, dims / 2, 2) by which each place turns pairs of a head's dimensions.

    They are computed on the device: the host would wait for a copy.

    The first half of the pairs turns by the row of the token that is there, the other by its column.
    The class comes first: its rotation is the published code's, all zeros, so that its query and key
    vanish. The last token of the grid is no input.
    """
    j = torch.arange(dims // 4, dtype=torch.float64, device=device)
    frequency_j = ROPE_BASE ** (-2 * j / (dims // 2))
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


class LlamaGenGPT(Family):
    """The family; the heads are by published widths, the grid by what is beside the weights."""

    WORDS = "LlamaGen's autoregressive transformer, not its tokenizer (vq_ds16_c2i.pt)"
    TOKENIZERS: ClassVar = {(16384, None): "LlamaGen's vq_ds16_c2i.pt"}
    REQUIRED: ClassVar = {
        CLASSES: "an embedding of the classes",
        TOKENS: "one of the tokens",
        QKV: "Llama's name for queries, keys and values",
        GATE: "one for the gate of the feed-forward part",
        "norm.weight": "the norm before the last layer",
        "output.weight": "the logits of the codes",
    }

    def plan(
        self, checkpoint: Checkpoint, settings: GeneratorSettings
    ) -> tuple[GeneratorSpec, GPTNetwork]:
        """Return the spec, and the network on the meta device after comparing all shapes with it."""
        (vocab_size, width), rows = axes(checkpoint, TOKENS, 2), axes(checkpoint, CLASSES, 2)[0]
        if (got := axes(checkpoint, QKV, 2)[0]) != 3 * width:
            raise CheckpointError(
                f"{checkpoint.path}: {QKV} has {got} rows, expected 3 x {width}: heads that share keys "
                "are not supported."
            )
        image_size, side = _grid(checkpoint, settings)
        sizes = GPTSizes(
            width=width,
            depth=count_blocks(checkpoint, "layers"),
            heads=_heads(checkpoint, settings, width),
            ffn=axes(checkpoint, GATE, 2)[0],
            vocab_size=vocab_size,
            rows=rows,
            side=side,
        )
        with torch.device("meta"):
            network = GPTNetwork(sizes)
        check_weights(checkpoint, network, IGNORED)
        has_null = rows != PUBLISHED_CLASSES
        arguments = checkpoint.arguments
        spec = GeneratorSpec(
            family="llamagen-gpt",
            vocab_size=vocab_size,
            latent_dim=None,
            patch_nums=(side,) if side else (),
            image_size=image_size,
            classes=rows - has_null,
            null_class=rows - 1 if has_null else None,
            parameters=sum(weight.numel() for weight in network.parameters()),
            width=width,
            depth=sizes.depth,
            heads=sizes.heads,
            trained_in=TRAINED_IN.get(arguments.get("mixed_precision"), "bf16"),
            attention="each token to itself and all before it, rotated by row and column",
            notes=() if has_null else ("it was trained without label dropout: it has no null class",),
        )
        return spec, network


def _heads(checkpoint: Checkpoint, settings: GeneratorSettings, width: int) -> int:
    """Return the number of heads, which shapes don't show."""
    heads = settings.heads or HEADS.get(width) or max(1, width // WIDTH_OF_A_HEAD)
    if width // check_heads(checkpoint, heads, width) % 4:
        raise CheckpointError(
            f"{checkpoint.path}: {heads} heads have {width // heads} dimensions, expected a multiple of "
            "4, as rows and columns turn pairs. Give --heads."
        )
    if ROTATIONS in checkpoint.shapes:
        stored = axes(checkpoint, ROTATIONS, 3)[1]
        if 2 * stored * heads != width:
            raise CheckpointError(
                f"{checkpoint.path}: {ROTATIONS} turns {stored} pairs of dimensions of a head, but "
                f"{heads} heads have {width // heads} dimensions. Give --heads {width // (2 * stored)}."
            )
    return heads


def _grid(checkpoint: Checkpoint, settings: GeneratorSettings) -> tuple[int | None, int]:
    """Return the image size and the side of the grid of tokens; None and 0 if nothing shows them.

    Models for images of other sizes have equal shapes.
    """
    arguments = checkpoint.arguments
    trained_at = _size(arguments.get("image_size"))
    downsampling = _size(arguments.get("downsample_size")) or DOWNSAMPLING
    if ROTATIONS in checkpoint.shapes:
        tokens = axes(checkpoint, ROTATIONS, 3)[0] - 1
        trained_at = trained_at or math.isqrt(tokens) * downsampling
        if (trained_at // downsampling) ** 2 != tokens:
            raise CheckpointError(
                f"{checkpoint.path}: {ROTATIONS} has {tokens + 1} rows, expected one for the class and "
                f"one for each token of an image of {trained_at} pixels."
            )
    if trained_at and settings.image_size not in (None, trained_at):
        raise CheckpointError(
            f"--image-size {settings.image_size}: {checkpoint.path} was trained on images of "
            f"{trained_at} pixels. Leave out --image-size."
        )
    image_size = trained_at or settings.image_size
    if image_size is None:
        return None, 0
    if image_size % downsampling:
        raise CheckpointError(
            f"{checkpoint.path}: image size {image_size}: a token covers {downsampling} pixels on a "
            f"side, expected a multiple of {downsampling}."
        )
    return image_size, image_size // downsampling


def _size(value: object) -> int | None:
    """Return a number of pixels, None if it is none."""
    return value if type(value) is int and 0 < value <= MOST_PIXELS else None
