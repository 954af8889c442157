"""Family: VAR's transformer, which predicts a whole scale at a time.

Source:
    FoundationVision/VAR models/var.py, models/__init__.py (depth, heads and width of the published
    sizes), trainer.py; thu-ml/CCA, whose fine-tunes keep the layout.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.codebook import Rule
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.generators.family import Family
from entropy_cli.generators.layers.var_transformer import NORM_EPS, VARNetwork, VARSizes, levels
from entropy_cli.generators.network import (
    axes,
    check_config,
    check_heads,
    check_weights,
    count_blocks,
    float_in,
    own_config,
)
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.limits import MOST_SCALES, MOST_SIDE

LEVELS, MASK, SHARED_ADA = "lvl_1L", "attn_bias_for_masking", "shared_ada_lin.1.weight"
SCALE_MUL = re.compile(r"blocks\.\d+\.attn\.scale_mul_1H11")
IGNORED = r"lvl_1L|attn_bias_for_masking|blocks\.\d+\.attn\.zero_k_bias"
MOST_MASKED = 2**14  # tokens, far more than are published, whose mask is compared
WIDTH_OF_A_HEAD = 64  # by the rule of the published sizes: width 64 depth, depth heads
UNIT = "queries and keys of unit length times a learned factor"
PLAIN = "products of queries and keys as they are"


class VAR(Family):
    """VAR's family: sizes are in the shapes, but for the heads where queries have no unit length."""

    WORDS = "VAR's autoregressive transformer, not its tokenizer (vae_ch160v4096z32.pth)"
    TOKENIZERS: ClassVar = {(4096, 32): "VAR's vae_ch160v4096z32.pth"}
    REQUIRED: ClassVar = {
        "lvl_embed.weight": "an embedding of the scales",
        "pos_1LC": "one of the places of all scales' tokens",
        "pos_start": "what starts the first scale, beside the class",
        "word_embed.weight": "the layer that takes what earlier scales decode to",
        "class_emb.weight": "an embedding of the classes",
        "blocks.0.attn.mat_qkv.weight": "VAR's name for queries, keys and values",
        "head_nm.ada_lin.1.weight": "the modulation before the head",
        "head.weight": "the logits of the codes",
    }

    def plan(
        self, checkpoint: Checkpoint, settings: GeneratorSettings
    ) -> tuple[GeneratorSpec, VARNetwork]:
        """Return the spec, and the network on the meta device after comparing all shapes with it."""
        config = own_config(checkpoint, "vae_kwargs") or own_config(checkpoint, "depth", "num_heads")
        patch_nums = _patch_nums(checkpoint, settings, config)
        sizes = _sizes(checkpoint, settings, config, patch_nums)
        own = {
            "depth": sizes.depth,
            "embed_dim": sizes.width,
            "num_heads": sizes.heads,
            "num_classes": sizes.classes,
            "patch_nums": list(patch_nums),
            "shared_aln": sizes.shared_ada,
            "attn_l2_norm": sizes.l2_norm,
        }
        check_config(checkpoint, config, own)
        with torch.device("meta"):
            network = VARNetwork(sizes)
        check_weights(checkpoint, network, IGNORED)
        _check_mask(checkpoint, patch_nums)
        spec = GeneratorSpec(
            family="var",
            vocab_size=sizes.vocab_size,
            latent_dim=sizes.latent_dim,
            patch_nums=patch_nums,
            image_size=None,
            classes=sizes.classes,
            null_class=sizes.classes,
            parameters=sum(weight.numel() for weight in network.parameters()),
            width=sizes.width,
            depth=sizes.depth,
            heads=sizes.heads,
            trained_in="fp16",
            attention=f"each scale to itself and all before it, {UNIT if sizes.l2_norm else PLAIN}",
            rule=_rule(config),
        )
        return spec, network


def _patch_nums(
    checkpoint: Checkpoint, settings: GeneratorSettings, config: Mapping[str, Any]
) -> tuple[int, ...]:
    """Return the sides of the scales: the checkpoint's own, else those of other files if they fit."""
    total, scales = axes(checkpoint, "pos_1LC", 3)[1], axes(checkpoint, "lvl_embed.weight", 2)[0]
    if not scales <= min(total, MOST_SCALES):
        raise CheckpointError(
            f"{checkpoint.path}: has places for {total} tokens, but {scales} scales. Expected at most "
            f"{MOST_SCALES}, each of a token or more."
        )
    if LEVELS in checkpoint.shapes:
        level_R, tokens_R = torch.unique_consecutive(checkpoint.numbers(LEVELS), return_counts=True)
        sides = tuple(map(math.isqrt, tokens_R.tolist()))
        if level_R.tolist() != list(range(len(sides))) or tokens_R.tolist() != [n * n for n in sides]:
            raise CheckpointError(
                f"{checkpoint.path}: {LEVELS} does not number the tokens of square scales in order. "
                "Give a checkpoint of the published code."
            )
    else:
        given = config.get("patch_nums", settings.patch_nums)
        is_sides = isinstance(given, list | tuple) and all(
            type(n) is int and 0 < n <= MOST_SIDE for n in given
        )
        sides = tuple(given) if is_sides else ()
    if sides and (sum(n * n for n in sides), len(sides)) != (total, scales):
        raise CheckpointError(
            f"{checkpoint.path}: has places for {total} tokens in {scales} scales, but patch_nums "
            f"{','.join(map(str, sides))} make {sum(n * n for n in sides)} in {len(sides)}. Give the "
            "--patch-nums of its training."
        )
    return sides


def _check_mask(checkpoint: Checkpoint, patch_nums: tuple[int, ...]) -> None:
    """Raise CheckpointError if each scale does not see just itself and all before it, as in VAR.

    Networks whose scales see others, such as only the one before, have VAR's names and shapes.
    """
    tokens = sum(n * n for n in patch_nums)
    if MASK not in checkpoint.shapes or not 0 < tokens <= MOST_MASKED:
        return
    level_L = levels([n * n for n in patch_nums], torch.device("cpu"))
    sees_LL = level_L[:, None] >= level_L
    if checkpoint.shapes[MASK] == (1, 1, *sees_LL.shape):
        mask_LL = checkpoint.numbers(MASK)[0, 0]
        if torch.equal(mask_LL if mask_LL.dtype == torch.bool else mask_LL == 0, sees_LL):
            return
    raise CheckpointError(
        f"{checkpoint.path}: {MASK} is not VAR's, where each scale sees itself and all before it: the "
        "network was trained in another way. Dump its logits with its own code and give them to "
        "`entropy-cli loss`."
    )


def _sizes(
    checkpoint: Checkpoint,
    settings: GeneratorSettings,
    config: Mapping[str, Any],
    patch_nums: tuple[int, ...],
) -> VARSizes:
    width, latent_dim = axes(checkpoint, "word_embed.weight", 2)
    rows = axes(checkpoint, "class_emb.weight", 2)[0]
    if rows < 2:
        raise CheckpointError(f"{checkpoint.path}: class_emb.weight has {rows} rows, expected classes.")
    tokens_S = tuple(n * n for n in patch_nums)
    if not tokens_S:  # any that fit the shapes, so that these can be compared
        first, total = (axes(checkpoint, name, 3)[1] for name in ("pos_start", "pos_1LC"))
        scales = axes(checkpoint, "lvl_embed.weight", 2)[0]
        tokens_S = (first, *[1] * (scales - 2), total - first - (scales - 2))[:scales]
    ffn = "blocks.0.ffn.fc1.weight"
    if ffn not in checkpoint.shapes:
        raise CheckpointError(f"{checkpoint.path}: lacks {ffn}.")
    return VARSizes(
        width=width,
        depth=count_blocks(checkpoint, "blocks"),
        heads=_heads(checkpoint, settings, config, width),
        ffn=axes(checkpoint, ffn, 2)[0],
        latent_dim=latent_dim,
        vocab_size=axes(checkpoint, "head.weight", 2)[0],
        classes=rows - 1,
        tokens_S=tokens_S,
        l2_norm=any(map(SCALE_MUL.fullmatch, checkpoint.shapes)),
        shared_ada=SHARED_ADA in checkpoint.shapes,
        norm_eps=float_in(checkpoint, config, "norm_eps", NORM_EPS),
    )


def _heads(
    checkpoint: Checkpoint, settings: GeneratorSettings, config: Mapping[str, Any], width: int
) -> int:
    if shown := next(filter(SCALE_MUL.fullmatch, checkpoint.shapes), None):
        heads = axes(checkpoint, shown, 4)[1]
        if settings.heads not in (None, heads):
            raise CheckpointError(
                f"--heads {settings.heads}: {shown} shows that it has {heads}. Leave out --heads."
            )
    else:
        heads = settings.heads or config.get("num_heads") or max(1, width // WIDTH_OF_A_HEAD)
    return check_heads(checkpoint, heads, width)


def _rule(config: Mapping[str, Any]) -> Rule | None:
    """Return the rule of the tokenizer that it was trained with, which only config.json shows."""
    of_tokenizer = config.get("vae_kwargs")
    znorm = of_tokenizer.get("using_znorm") if isinstance(of_tokenizer, Mapping) else None
    if not isinstance(znorm, bool):
        return None
    return "cosine" if znorm else "l2"
