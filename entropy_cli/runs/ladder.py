"""The ladder of the tokens that a run, or the shards of one, kept."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from entropy_cli.core.errors import StateError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.ladder.contexts import Layout
from entropy_cli.entropy.ladder.ladder import Ladder
from entropy_cli.streaming.ladder import LadderOptions, TokenTable, build_ladder
from entropy_cli.streaming.state import RunState
from entropy_cli.streaming.token_file import shard_tokens
from entropy_cli.streaming.token_table import ReadRows, check_counts, check_names, open_rows, read_names


def ladder_of(
    state: RunState, names: Sequence[str], read: ReadRows, bars: Bars, provenance: dict[str, Any]
) -> Ladder:
    """Return the ladder of the tokens of a run's images.

    Args:
        state: of the run.
        names: relative paths of the images that were read.
        read: reads some rows of tokens by their numbers.
        bars: makes progress bars.
        provenance: for the record.

    Raises:
        EntropyCliError: there are too few images, or too many codes.
    """
    metadata = state.metadata
    scales = metadata.scales
    table = TokenTable(
        names,
        read,
        Layout.of(scales),
        max(scale.vocabulary.size for scale in scales),
        seed=state.settings.seed,
        training_images=metadata.images_found if metadata.split == "train" else None,
    )
    options = LadderOptions(cluster=state.settings.cluster)
    return build_ladder(table, options, provenance, bars)


def ladder_of_shards(
    paths: Sequence[Path], state: RunState, bars: Bars, provenance: dict[str, Any]
) -> Ladder:
    """Return the ladder of the tokens that shards kept beside their states.

    Args:
        paths: the states of the shards.
        state: their sum.
        bars: makes progress bars.
        provenance: for the record.

    Raises:
        StateError: tokens of a shard are missing, or are not of its images.
        EntropyCliError: as of `ladder_of`.
    """
    columns = sum(scale.tokens for scale in state.metadata.scales)
    codes = max(scale.vocabulary.size for scale in state.metadata.scales)
    names: list[str] = []
    starts, reads = [0], []
    for path in paths:
        tokens = shard_tokens(path)
        if not tokens.exists():
            raise StateError(
                f"merge --ladder: there is no {tokens}. It needs the tokens of all shards: run each to "
                "its end with --ladder, or leave --ladder out."
            )
        rows, read = open_rows(tokens, columns, codes)
        names += read_names(tokens)
        if len(names) - starts[-1] != rows:
            raise StateError(f"{tokens}: has {rows} rows, but not as many paths. Run its shard again.")
        starts.append(len(names))
        reads.append(read)
    if len(names) != state.progress.images:
        raise StateError(
            f"merge --ladder: the shards kept the tokens of {len(names)} images, their states have "
            f"{state.progress.images}. Run each shard to its end with --ladder."
        )

    def read_all(rows: Sequence[int]) -> np.ndarray:
        row_M, idx_ML = np.asarray(rows), np.empty((len(rows), columns), np.int64)
        for (start, end), read in zip(pairwise(starts), reads, strict=True):
            is_own_M = (row_M >= start) & (row_M < end)
            if is_own_M.any():
                idx_ML[is_own_M] = read((row_M[is_own_M] - start).tolist())
        return idx_ML

    tally = state.progress.tally
    assert tally is not None
    where = "merge --ladder: the shards' tokens"
    settings, images_G = state.settings, tally.images_G.tolist()
    check_names(names, settings.seed, settings.cluster, images_G, where)
    count_SV = [
        count_E[: scale.vocabulary.size].tolist() if scale.vocabulary.counted else []
        for scale, count_E in zip(state.metadata.scales, tally.counts_GSE.sum(0), strict=True)
    ]
    check_counts(read_all, len(names), Layout.of(state.metadata.scales), count_SV, where, bars)
    return ladder_of(state, names, read_all, bars, provenance)
