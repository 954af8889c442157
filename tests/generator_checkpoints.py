"""Tiny checkpoints of random weights under the names of each generator family: one row each."""

import math
from dataclasses import dataclass, field

import torch

from entropy_cli.generators.settings import GeneratorSettings
from tests.generators import reference


def random_weights(shapes, seed=0):
    """Of such sizes that every weight matters."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            weight = 1 + 0.3 * weight
        elif name.endswith("weight") and "emb" not in name:
            weight = 1.5 * weight / math.sqrt(shape[-1])
        elif name.endswith(("bias", "ada_gss")):
            weight = 0.3 * weight
        weights[name] = weight
    return weights


def var_shapes(tokens=(1, 4, 9), width=32, heads=4, depth=2, classes=5, codes=24, shared=False):  # noqa: FBT002
    """The layout of VAR's transformer; without heads there is no factor of queries of unit length."""
    shapes = {
        "pos_start": (1, tokens[0], width),
        "pos_1LC": (1, sum(tokens), width),
        "word_embed.weight": (width, 6),
        "word_embed.bias": (width,),
        "class_emb.weight": (classes + 1, width),
        "lvl_embed.weight": (len(tokens), width),
        "head_nm.ada_lin.1.weight": (2 * width, width),
        "head_nm.ada_lin.1.bias": (2 * width,),
        "head.weight": (codes, width),
        "head.bias": (codes,),
    }
    ada = {"ada_lin.1.weight": (6 * width, width), "ada_lin.1.bias": (6 * width,)}
    if shared:
        shapes |= {f"shared_{name}": shape for name, shape in ada.items()}
    for i in range(depth):
        block = {
            "attn.q_bias": (width,),
            "attn.v_bias": (width,),
            "attn.mat_qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "ffn.fc1.weight": (48, width),
            "ffn.fc1.bias": (48,),
            "ffn.fc2.weight": (width, 48),
            "ffn.fc2.bias": (width,),
        }
        block |= {"attn.scale_mul_1H11": (1, heads, 1, 1)} if heads else {}
        block |= {"ada_gss": (1, 1, 6, width)} if shared else ada
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def gpt_shapes(width=32, ffn=40, depth=2, rows=6, codes=24):
    """The layout of LlamaGen's transformer."""
    shapes = {
        "cls_embedding.embedding_table.weight": (rows, width),
        "tok_embeddings.weight": (codes, width),
        "norm.weight": (width,),
        "output.weight": (codes, width),
    }
    for i in range(depth):
        block = {
            "attention.wqkv.weight": (3 * width, width),
            "attention.wo.weight": (width, width),
            "feed_forward.w1.weight": (ffn, width),
            "feed_forward.w3.weight": (ffn, width),
            "feed_forward.w2.weight": (width, ffn),
            "attention_norm.weight": (width,),
            "ffn_norm.weight": (width,),
        }
        shapes |= {f"layers.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def levels(*sides):
    """VAR's buffer of the scale of each token."""
    return torch.cat([torch.full((1, n * n), level) for level, n in enumerate(sides)], 1)


def scale_mask(*sides):
    """VAR's buffer of what is hidden: minus infinity where a token's scale comes later."""
    level_1L = levels(*sides)
    return torch.where(level_1L <= level_1L.T, 0.0, -torch.inf)[None, None]


@dataclass(frozen=True)
class Example:
    """A tiny checkpoint of a family, and what is known of it.

    Attributes:
        shapes: of the weights.
        buffers: of the published files, which no logit depends on, but sizes may.
        spec: what its description has to say.
        reference: its logits in plain float64, from weights, labels, tokens and inputs.
        settings: what has to be said of it.
        last: names of weights that are all zero when training starts, or make the logits so.
        wrappers: where its trainings leave it.
    """

    shapes: dict[str, tuple[int, ...]]
    spec: dict[str, object]
    reference: object
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    settings: GeneratorSettings = field(default=GeneratorSettings())
    last: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ("model", "module", "state_dict")

    def weights(self, seed=0):
        return random_weights(self.shapes, seed)


EXAMPLES = {
    "var": Example(
        var_shapes(),
        {
            **{"vocab_size": 24, "latent_dim": 6, "patch_nums": (1, 2, 3), "image_size": None},
            **{"classes": 5, "null_class": 5, "width": 32, "depth": 2, "heads": 4},
            "trained_in": "fp16",
        },
        reference.var_logits,
        {
            "lvl_1L": levels(1, 2, 3),
            "attn_bias_for_masking": scale_mask(1, 2, 3),
            "blocks.0.attn.zero_k_bias": torch.zeros(32),
            "blocks.1.attn.zero_k_bias": torch.zeros(32),
        },
        last=("head.weight", "head.bias"),
        wrappers=("trainer.var_wo_ddp", "trainer", "model"),
    ),
    "llamagen-gpt": Example(
        gpt_shapes(),
        {
            **{"vocab_size": 24, "latent_dim": None, "patch_nums": (3,), "image_size": 48},
            **{"classes": 5, "null_class": 5, "width": 32, "depth": 2, "heads": 4},
            "trained_in": "bf16",
        },
        reference.gpt_logits,
        {"layers.0.attention.kv_cache.k_cache": torch.zeros(2, 4, 16, 8)},
        GeneratorSettings(image_size=48, heads=4),
        last=("output.weight",),
    ),
}
