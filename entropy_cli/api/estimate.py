"""The estimator as a function, for tokenizers that are Python callables."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from entropy_cli.api.arrays import Array
from entropy_cli.api.batches import (
    checked_temperatures,
    whole_numbers,
)
from entropy_cli.api.callables import Codes, Encode
from entropy_cli.api.passes import LOADED, PrecisionChoice, open_pass
from entropy_cli.api.python_words import naming_parameters
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.files import path_argument
from entropy_cli.core.progress_bars import no_bars
from entropy_cli.core.remote.fetch import local_path
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.quantity import Cluster, TemperatureChoice, TokenPath
from entropy_cli.entropy.vocabulary import VECTOR_RULES
from entropy_cli.results.schema import Result
from entropy_cli.runs.inputs import identify
from entropy_cli.tokenizers import registry as tokenizers
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.checkpoints.shards import files_to_fetch
from entropy_cli.tokenizers.compiled import Compile
from entropy_cli.tokenizers.latents import Channels
from entropy_cli.tokenizers.limits import MOST_PIXELS, MOST_SIDE
from entropy_cli.tokenizers.precision import matmul_precision
from entropy_cli.tokenizers.settings import TokenizerSettings, Weights


@naming_parameters()
def load_tokenizer(
    path: str | Path,
    *,
    family: str = "auto",
    image_size: int | None = None,
    patch_nums: Sequence[int] | None = None,
    rule: Rule | None = None,
    weights: Weights | None = None,
) -> Tokenizer:
    """Load the tokenizer of a published checkpoint; None lets the checkpoint or its family decide.

    Args:
        path: file or folder, or an address such as hf://ORG/REPO/FILE.
        family: name of a family; "auto" goes by the checkpoint's keys.
        image_size: side of the images in pixels.
        patch_nums: side of each scale's grid.
        rule: "l2", "cosine" or "dot".
        weights: "raw" or "ema".

    Raises:
        CheckpointError: the checkpoint can't be used.
        EntropyCliError: an argument is not one of those listed.
    """
    scales = whole_numbers("patch_nums", patch_nums, MOST_SIDE)
    settings = TokenizerSettings(image_size, scales, rule, weights)
    for name, value, possible in (
        ("family", family, ("auto", *tokenizers.FAMILIES)),
        ("weights", weights, (None, "raw", "ema")),
        ("rule", rule, (None, *VECTOR_RULES)),
    ):
        if value not in possible:
            expected = ", ".join(choice for choice in possible if choice)
            raise EntropyCliError(f"{name} {value}: expected {expected}.")
    if image_size is not None:
        whole_numbers("image_size", [image_size], MOST_PIXELS)
    local = local_path(path_argument("path", path), files_to_fetch, no_bars)
    loaded = tokenizers.load_tokenizer(local, family, settings)
    LOADED[loaded.tokenizer] = identify(loaded, loaded.checkpoint.sha256())
    return loaded.tokenizer


@naming_parameters()
@torch.inference_mode()
@matmul_precision(tf32=False)
def estimate(  # noqa: PLR0913 - a parameter for each option
    images: str | Path | Iterable[Array],
    tokenizer: Tokenizer | Encode,
    *,
    codebook: Array | Sequence[Array] | None = None,
    rule: Rule | None = None,
    levels: Sequence[int] | None = None,
    channels: Channels | None = None,
    temperature: TemperatureChoice | Sequence[TemperatureChoice] | None = None,
    path: TokenPath = "hard",
    device: str | torch.device = "auto",
    precision: PrecisionChoice = "auto",
    workers: int | None = None,
    compile: Compile = "auto",
    cluster: Cluster = "image",
) -> Result:
    """Estimate a tokenizer's entropies on images, in one pass and in memory.

    Tensors may be numpy arrays. Neither a loaded tokenizer nor a network of yours is moved or changed.

    Args:
        images: batches of what the tokenizer takes, each image once; for a tokenizer from
            `load_tokenizer` uint8 (B, 3, H, W) of its size, or a folder, whose images it crops itself.
        tokenizer: from `load_tokenizer`; or a callable that returns the latents of a batch,
            (B, C, h, w), (B, C, l) or (B, C), or a sequence of such: what is left to be assigned at
            each scale. `codebook`, `rule`, `levels` and `channels` are for callables.
        codebook: codes (V, C), a sequence of such, one for each scale, or (Q, V, C) for Q scales.
            None for bits and levels.
        rule: "l2" by default, "cosine", "dot"; "sign" or "bsq" for bits, "levels" for FSQ.
        levels: number of levels of each dimension, for "levels"; latents are bounded to them, but not
            rounded.
        channels: "first" or "last", as in (B, l, C) and (B, h, w, C); None finds the axis that fits the
            codes' dimensions. If both do a row is refused, and a grid read as (B, C, h, w).
        temperature: one or several, the first is the headline; "auto" among them fits one to each
            scale, on the first 1024 images; None takes the family's or the rule's.
        path: tokens of which the next scale's residual is left, "hard" for the nearest codes, "drawn"
            for codes drawn at the headline's temperature.
        device: "auto", "cpu", "cuda" or "cuda:0" ..., or a `torch.device`.
        precision: of a loaded tokenizer's encoder, "fp32", "tf32", "fp16" or "bf16"; "auto" is fp32 on a
            CPU and fp16 on a GPU. What others than fp32 change is measured on the first 64 images.
        workers: processes that decode a folder's images, 0 decodes in this one; None chooses on Linux.
            Elsewhere it is 0: processes that start would run a script that has no main guard.
        compile: whether to compile a loaded tokenizer's encoder, "on" or "off"; "auto" does for folders
            of half a million images or more on a GPU.
        cluster: what intervals are about: "image", other images of these folders; "folder", other
            folders, where a folder's are scenes or a sample of classes.

    Returns:
        What `entropy-cli estimate` writes: `result.average.token_weighted.assignment_entropy` has value,
        se and ci95 in nats per token; `result.write(path)` saves it.

    Raises:
        EntropyCliError: batches, latents and codes don't fit each other, an argument is invalid, or
            there are no images.

    >>> estimate([], len, codebook=torch.eye(2))
    Traceback (most recent call last):
    entropy_cli.core.errors.DatasetError: there are no images.
    """
    temperatures = checked_temperatures(temperature)
    opened = open_pass(
        images,
        tokenizer,
        Codes(codebook, rule, levels, channels),
        device,
        precision,
        workers,
        compile,
        cluster,
        path,
    )
    result = opened.run(temperatures, path)
    assert isinstance(result, Result)
    return result
