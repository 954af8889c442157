"""Reasons against a family in the config.json beside a checkpoint."""

import math
from collections.abc import Iterator

from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint

CODES = ("n_embed", "num_embeddings", "num_vq_embeddings", "codebook_size")
DIMENSIONS = ("embed_dim", "vq_embed_dim", "quantized_embed_dim", "codebook_embed_dim", "token_size")
LEVELS = ("ch_mult", "channel_mult", "channel_multiplier", "encoder_ch_mult", "block_out_channels")
POOLING = ("resample_with_conv", "resamp_with_conv")
ACTIVATIONS = ("act_fn", "hidden_act")


def foreign_classes(checkpoint: Checkpoint, own: tuple[str, ...]) -> list[str]:
    """List the classes that config.json names, unless one of them is a family's own."""
    classes = checkpoint.config.classes
    if not classes or any(name in own for name in classes):
        return []
    return [f"config.json has {key} {name}" for name, key in classes.items()]


def contradictions(checkpoint: Checkpoint, spec: TokenizerSpec, tables: list[str]) -> Iterator[str]:
    """List the settings of config.json that differ from the weights or from the encoder's conventions.

    Args:
        checkpoint: the checkpoint, whose config.json is read.
        spec: the family's description of it.
        tables: names of the weights that hold the codes.
    """
    find = checkpoint.config.find
    sizes = {spec.vocab_size, *(checkpoint.shapes[name][0] for name in tables)}
    for keys, fitting in ((CODES, sizes), (DIMENSIONS, {spec.latent_dim})):
        key, value = find(*keys)
        if isinstance(value, int) and value not in fitting:
            yield f"{key} is {value}, but the weights have {' or '.join(map(str, sorted(fitting)))}"
    key, value = find(*LEVELS)
    halvings = _halvings(spec)
    if isinstance(value, list) and halvings is not None and len(value) != halvings + 1:
        yield f"{key} has {len(value)} levels, but the weights halve an image {halvings} times"
    key, value = find(*POOLING)
    if value is False:
        yield f"{key} is false, but the weights downsample by convolutions"
    key, value = find(*ACTIVATIONS)
    if isinstance(value, str) and value not in ("silu", "swish"):
        yield f"{key} is {value}, but only silu is supported"


def _halvings(spec: TokenizerSpec) -> int | None:
    """Return how often an image is halved down to the grid of its latents, None if there is no grid."""
    side = math.isqrt(spec.scales[-1].tokens)
    if not spec.image_size or side**2 != spec.scales[-1].tokens or spec.image_size % side:
        return None
    return int(math.log2(spec.image_size // side))
