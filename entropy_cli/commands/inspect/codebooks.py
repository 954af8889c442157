"""The codebooks of a checkpoint, of a known family or not, and the usage that it carries with them."""

import math
import re
from collections.abc import Iterator

from torch import Tensor

from entropy_cli.commands.inspect.result import Codebook, Counts
from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.codebook_statistics import codebook_statistics, usage
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.registry import FAMILIES

# RQ-VAE's, whose last row is for tokens that are not there.
PADDED = re.compile(r"quantizer\.codebooks\.\d+\.weight")
# Of an unknown family: a table with such a name.
LOOKS_LIKE = re.compile(
    r"(.*\.)?(quantizers?|quantize|vq|codebooks?)\.(.*\.)?(codebook|embed|embedding|\d+)(\.weight)?"
    r"|(.*\.)?_codebook\.embed"  # vector-quantize-pytorch's, (1, V, C)
)
MOST_NUMBERS, MOST_TABLES = 2**28, 32
AVERAGE = "moving average over training of how often each code was chosen"
# Where usage is kept beside a codebook: both names, and what it holds.
KEPT = (
    (r"quantize\.embedding\.weight", "quantize.embedding.cluster_size", AVERAGE),
    (r"quantize\.embedding\.weight", "quantize.ema_vocab_hit_SV", f"{AVERAGE}, at each scale"),
    (r"quantize\.embedding\.weight", "quantize.vocab_usage", AVERAGE),
    (r"quantizer\.codebooks\.(\d+)\.weight", r"quantizer.codebooks.\1.cluster_size_ema", AVERAGE),
    (r"quantize\.embedding\.weight", "quantize.codebook_used", "last tokens of training, by number"),
)
LAST_TOKENS = "quantize.codebook_used"


def codebooks(checkpoint: Checkpoint, family: str | None, bars: Bars) -> list[Codebook]:
    """All of them, with statistics."""
    names = FAMILIES[family].codebooks(checkpoint) if family else _likely(checkpoint)
    return [_codebook(checkpoint, name, bars) for name in names]


def _likely(checkpoint: Checkpoint) -> list[str]:
    """Names of what looks like codebooks."""
    return [
        name
        for name, shape in checkpoint.shapes.items()
        if (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1))
        and 0 < math.prod(shape) <= MOST_NUMBERS
        and LOOKS_LIKE.fullmatch(name)
    ][:MOST_TABLES]


def _codebook(checkpoint: Checkpoint, name: str, bars: Bars) -> Codebook:
    padding = 1 if PADDED.fullmatch(name) else 0
    try:
        rows_RC = checkpoint.tensor(name)
        if rows_RC.ndim == 3 and len(rows_RC) == 1:
            rows_RC = rows_RC[0]
        if rows_RC.ndim < 2 or rows_RC.shape[1:].numel() != rows_RC.shape[1] or padding >= len(rows_RC):
            raise CheckpointError(f"{name} has shape {list(rows_RC.shape)}, expected a table of codes")
    except CheckpointError as error:
        return Codebook(name, padding, None, [], str(error))
    code_VC = rows_RC.flatten(1)[: len(rows_RC) - padding]
    with bars("comparing codes", len(code_VC), "code") as bar:
        statistics = codebook_statistics(code_VC, bar.update)
    return Codebook(name, padding, statistics, list(_counts(checkpoint, name, len(code_VC))), None)


def _counts(checkpoint: Checkpoint, codebook: str, codes: int) -> Iterator[Counts]:
    for pattern, where, meaning in KEPT:
        match = re.fullmatch(pattern, codebook)
        name = match.expand(where) if match else ""
        if name not in checkpoint.shapes:
            continue
        try:
            count = checkpoint.numbers(name).double()
        except CheckpointError:
            continue
        if name == LAST_TOKENS:
            count = _histogram(count, codes)
        if count.ndim == 1 and len(count) == codes:
            yield _counted(name, meaning, None, count)
        elif count.ndim == 2 and count.shape[1] == codes:
            yield _counted(name, meaning, None, count.sum(0))
            for scale, of_scale in enumerate(count):
                yield _counted(name, meaning, scale, of_scale)


def _histogram(idx_N: Tensor, codes: int) -> Tensor:
    """Of code numbers; all zero, as before training, means none, and empty that they are none."""
    known_N = idx_N[(idx_N >= 0) & (idx_N < codes)]
    if len(known_N) < len(idx_N) or not known_N.any():
        return idx_N.new_zeros(codes)
    return known_N.long().bincount(minlength=codes)


def _counted(name: str, meaning: str, scale: int | None, count_V: Tensor) -> Counts:
    used = usage(count_V)
    if used is None:
        return Counts(name, meaning, scale, len(count_V), None, None, None)
    return Counts(name, meaning, scale, len(count_V), used.never, used.rare, used.top_share)
