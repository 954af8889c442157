"""Family: LlamaGen's class-conditional transformer, which predicts one token after the other.

Source:
    FoundationVision/LlamaGen autoregressive/models/gpt.py (ModelArgs, GPT_models), autoregressive/
    train/train_c2i.py (what its files hold), autoregressive/models/gpt_hf.py (folders of the hub);
    thu-ml/CCA, whose fine-tunes keep the layout.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeGuard

import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.generators.family import Family
from entropy_cli.generators.layers.gpt_transformer import NORM_EPS, ROPE_BASE, GPTNetwork, GPTSizes
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
from entropy_cli.tokenizers.limits import MOST_PIXELS, MOST_SIDE
from entropy_cli.tokenizers.precision import Precision

# Published widths whose heads are not of 64 dimensions, and their numbers of heads.
HEADS = {3200: 32, 4096: 32}
WIDTH_OF_A_HEAD = 64
DOWNSAMPLING = 16  # of the tokenizer, where neither the file nor the tokenizer says
PUBLISHED_CLASSES = 1000  # as many rows leave no room for "no class"
ROTATIONS = "freqs_cis"  # in old files: the class's row, then one for each token
IGNORED = r"freqs_cis|causal_mask|layers\.\d+\.attention\.kv_cache\.[kv]_cache"
CLASSES, TOKENS = "cls_embedding.embedding_table.weight", "tok_embeddings.weight"
QKV, GATE = "layers.0.attention.wqkv.weight", "layers.0.feed_forward.w3.weight"
TRAINED_IN: dict[object, Precision] = {"bf16": "bf16", "fp16": "fp16", "none": "tf32"}


class LlamaGenGPT(Family):
    """LlamaGen's family: heads by published widths, the grid by what is beside the weights."""

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
        config = own_config(checkpoint, "dim", "n_head", "block_size")
        image_size, side = _grid(checkpoint, settings, config)
        sizes = GPTSizes(
            width=width,
            depth=count_blocks(checkpoint, "layers"),
            heads=_heads(checkpoint, settings, config, width),
            ffn=axes(checkpoint, GATE, 2)[0],
            vocab_size=vocab_size,
            rows=rows,
            side=side,
            norm_eps=float_in(checkpoint, config, "norm_eps", NORM_EPS),
            rope_base=float_in(checkpoint, config, "rope_base", ROPE_BASE),
        )
        own = {"dim": width, "n_layer": sizes.depth, "n_head": sizes.heads, "vocab_size": vocab_size}
        check_config(checkpoint, config, own | {"model_type": "c2i", "cls_token_num": 1})
        with torch.device("meta"):
            network = GPTNetwork(sizes)
        check_weights(checkpoint, network, IGNORED)
        classes = _classes(checkpoint, config, rows)
        has_null = classes < rows
        spec = GeneratorSpec(
            family="llamagen-gpt",
            vocab_size=vocab_size,
            latent_dim=None,
            patch_nums=(side,) if side else (),
            image_size=image_size,
            classes=classes,
            null_class=classes if has_null else None,
            parameters=sum(weight.numel() for weight in network.parameters()),
            width=width,
            depth=sizes.depth,
            heads=sizes.heads,
            trained_in=TRAINED_IN.get(checkpoint.arguments.get("mixed_precision"), "bf16"),
            attention="each token to itself and all before it, rotated by row and column",
            notes=() if has_null else ("it was trained without label dropout: it has no null class",),
        )
        return spec, network


def _classes(checkpoint: Checkpoint, config: Mapping[str, Any], rows: int) -> int:
    """Return the number of classes: with label dropout in the training there is a row more."""
    told = checkpoint.arguments.get("num_classes")
    if type(told) is not int or told not in (rows, rows - 1):
        told = rows - (rows != PUBLISHED_CLASSES)
    classes = config.get("num_classes", told)
    if type(classes) is not int or classes not in (rows, rows - 1):
        raise CheckpointError(
            f"{checkpoint.config.path}: num_classes is {classes!r:.60}, but the weights have {rows} "
            "rows of classes, expected as many or one more for no class: it belongs to another "
            "checkpoint. Give the config.json that belongs to this one."
        )
    return classes


def _heads(
    checkpoint: Checkpoint, settings: GeneratorSettings, config: Mapping[str, Any], width: int
) -> int:
    """Return the number of heads, which shapes of weights don't show."""
    shown = config.get("n_head")
    if ROTATIONS in checkpoint.shapes:
        shown = max(1, width // (2 * axes(checkpoint, ROTATIONS, 3)[1]))
    if settings.heads and shown not in (None, settings.heads):
        raise CheckpointError(
            f"--heads {settings.heads}: {checkpoint.path} shows that it has {shown}. Leave out --heads."
        )
    heads = settings.heads or shown or HEADS.get(width) or max(1, width // WIDTH_OF_A_HEAD)
    heads = check_heads(checkpoint, heads, width)
    if width // heads % 4:
        raise CheckpointError(
            f"{checkpoint.path}: {heads} heads have {width // heads} dimensions, expected a multiple of "
            "4, as rows and columns turn pairs. Give --heads."
        )
    return heads


def _grid(
    checkpoint: Checkpoint, settings: GeneratorSettings, config: Mapping[str, Any]
) -> tuple[int | None, int]:
    """Return the image size and the side of the grid of tokens; None and 0 if nothing shows them.

    Models for images of other sizes have equal shapes. Where only the number of tokens is shown, the
    tokenizer knows the size of the images.
    """
    arguments, path = checkpoint.arguments, checkpoint.path
    tokens = config.get("block_size")
    if ROTATIONS in checkpoint.shapes:
        tokens = axes(checkpoint, ROTATIONS, 3)[0] - 1
    side = math.isqrt(tokens) if _is_size(tokens, MOST_SIDE**2) else 0
    if tokens is not None and (not side or side**2 != tokens):
        raise CheckpointError(f"{path}: is for {tokens!r:.60} tokens, expected a square grid of them.")
    asked, trained_at = settings.image_size, arguments.get("image_size")
    downsampling = arguments.get("downsample_size")
    downsampling = downsampling if _is_size(downsampling, MOST_PIXELS) else DOWNSAMPLING
    if not _is_size(trained_at, MOST_PIXELS):
        given = settings.patch_nums or ()
        if side or asked is None or len(given) == 1:  # or nobody knows better
            return asked, side or (given[0] if asked else 0)
        trained_at = asked
    elif asked not in (None, trained_at):
        raise CheckpointError(
            f"image size {asked}: {path} was trained on images of {trained_at} pixels. Leave out "
            "--image-size, or save tokens of such images."
        )
    if trained_at % downsampling:
        raise CheckpointError(
            f"{path}: image size {trained_at}: a token covers {downsampling} pixels on a side, expected "
            f"a multiple of {downsampling}."
        )
    if side not in (0, trained_at // downsampling):
        raise CheckpointError(
            f"{path}: is for {tokens} tokens, but images of {trained_at} pixels have "
            f"{(trained_at // downsampling) ** 2}."
        )
    return trained_at, trained_at // downsampling


def _is_size(value: object, most: int) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= most
