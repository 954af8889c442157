"""The codebooks of a checkpoint, of a known family or not, and the usage stored beside them."""

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

# RQ-VAE: the last row is padding, for missing tokens.
PADDED = re.compile(r"quantizer\.codebooks\.\d+\.weight")
# Names of codebooks in checkpoints of unknown families.
CODEBOOK_NAMES = re.compile(
    r"(.*\.)?(quantizers?|quantize|vq|codebooks?)\.(.*\.)?(codebook|embed|embedding|\d+)(\.weight)?"
    r"|(.*\.)?_codebook\.embed"  # vector-quantize-pytorch's, (1, V, C)
)
MAX_ELEMENTS, MAX_CODEBOOKS = 2**28, 32
AVERAGE = "moving average over training of how often each code was chosen"
LAST_TOKENS = "{parent}.codebook_used"
# Names of tensors that hold the usage of a codebook, and what they hold.
USAGE_TENSORS = {
    "{codebook}.cluster_size": AVERAGE,
    "{parent}.ema_vocab_hit_SV": f"{AVERAGE}, at each scale",
    "{parent}.vocab_usage": AVERAGE,
    "{codebook}.cluster_size_ema": AVERAGE,
    LAST_TOKENS: "indices of the last tokens of training",
}


def codebooks(checkpoint: Checkpoint, family: str | None, bars: Bars) -> list[Codebook]:
    """Return all codebooks of a checkpoint, with statistics and usage."""
    named = [
        name
        for name, shape in checkpoint.shapes.items()
        if (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1))
        and 0 < math.prod(shape) <= MAX_ELEMENTS
        and CODEBOOK_NAMES.fullmatch(name)
    ]
    names = FAMILIES[family].codebooks(checkpoint) if family else named[:MAX_CODEBOOKS]
    return [_codebook(checkpoint, name, bars) for name in names]


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
    return Codebook(name, padding, statistics, list(_usage(checkpoint, name, len(code_VC))), None)


def _usage(checkpoint: Checkpoint, codebook: str, codes: int) -> Iterator[Counts]:
    stem = codebook.removesuffix(".weight")
    for pattern, meaning in USAGE_TENSORS.items():
        name = pattern.format(codebook=stem, parent=stem.rpartition(".")[0])
        try:
            count = checkpoint.numbers(name).double()
        except CheckpointError:
            continue
        if pattern == LAST_TOKENS:
            count = _histogram(count, codes)
        if count.shape[-1:] != (codes,) or count.ndim > 2:
            continue
        by_scale = enumerate(count) if count.ndim == 2 else ()
        for scale, count_V in [(None, count.view(-1, codes).sum(0)), *by_scale]:
            used = usage(count_V)
            figures = (used.never, used.rare, used.top_share) if used else (None, None, None)
            yield Counts(name, meaning, scale, codes, *figures)


def _histogram(idx_N: Tensor, codes: int) -> Tensor:
    """Count how often each code occurs; zeros if some index is no code or all are 0 (untrained)."""
    valid_N = idx_N[(idx_N >= 0) & (idx_N < codes)]
    if len(valid_N) < len(idx_N) or not valid_N.any():
        return idx_N.new_zeros(codes)
    return valid_N.long().bincount(minlength=codes)
