"""Hard tokens that a run saved with the paths of its images, read back."""

import os
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.reading import OpenFile
from entropy_cli.entropy.ladder.contexts import Layout
from entropy_cli.entropy.quantity import Cluster
from entropy_cli.images.image_set import GROUPS, group_of
from entropy_cli.streaming.token_file import IN_ONE_LINE, paths_file
from entropy_cli.tokenizers.checkpoints.arrays import open_array

PATHS_BYTES = 2**30
ROWS = 4096  # read at once
ONE_RUN = "Give the files of one run."
ReadRows = Callable[[Sequence[int]], np.ndarray]  # reads some rows by their numbers
ESCAPED = {escape: chr(character) for character, escape in IN_ONE_LINE.items()}


def read_names(tokens: Path) -> list[str]:
    """Read the paths beside a file of tokens.

    Raises:
        DatasetError: there is no such file, or it can't be read.
    """
    path = paths_file(tokens)
    try:
        lines = bytes(OpenFile(path, PATHS_BYTES).read()).split(b"\n")
    except OSError as error:
        raise DatasetError(
            f"{path}: can't be read: {error.strerror}. Keep it with the tokens, as it was written."
        ) from error
    if lines.pop():
        raise DatasetError(f"{path}: is cut off. Copy it again.")
    return [re.sub(r"\\[\\nr]", lambda found: ESCAPED[found[0]], os.fsdecode(line)) for line in lines]


def open_rows(tokens: Path, columns: int, vocab_size: int) -> tuple[int, ReadRows]:
    """Open a file of tokens; return its number of rows, and how to read some of them.

    Args:
        tokens: a .npy file of integers (M, L).
        columns: L.
        vocab_size: the number of codes: every token is below it.

    Raises:
        DatasetError, CheckpointError: it can't be read, or is of another shape.
    """
    array = open_array(str(tokens), "integers")
    if len(array.shape) != 2 or array.shape[1] != columns:
        raise DatasetError(
            f"{tokens}: got tokens of shape {array.shape}, expected {columns} for each image as in the "
            "result. Give the tokens and the result of one run."
        )

    def read(rows: Sequence[int]) -> np.ndarray:
        idx_ML = np.empty((len(rows), columns), np.int64)
        row_M = np.asarray(rows)
        edges = [0, *(np.flatnonzero(np.diff(row_M) != 1) + 1).tolist(), len(rows)]
        for begin, end in pairwise(edges):
            first = int(row_M[begin])
            idx_ML[begin:end] = array.read(slice(first, first + end - begin)).numpy()
        if idx_ML.min() < 0 or idx_ML.max() >= vocab_size:
            worst = idx_ML.min() if idx_ML.min() < 0 else idx_ML.max()
            raise DatasetError(
                f"{tokens}: has token {worst}, expected 0 to {vocab_size - 1}. Give the tokens and the "
                "result of one run."
            )
        return idx_ML

    return array.shape[0], read


def check_names(
    names: Sequence[str], seed: int, cluster: Cluster, images_G: Sequence[int], where: str
) -> None:
    """Raise DatasetError unless as many paths fall into each jackknife group as a run counted."""
    group_M = [group_of(name, seed, cluster) for name in names]
    if np.bincount(group_M, minlength=GROUPS).tolist() != list(images_G):
        raise DatasetError(f"{where}: has the paths of other images than the run counted. {ONE_RUN}")


def check_counts(
    read: ReadRows,
    rows: int,
    layout: Layout,
    count_SV: Sequence[Sequence[int]],
    where: str,
    bars: Bars,
) -> None:
    """Raise DatasetError unless each scale's codes are as frequent as a run counted them.

    Args:
        read: reads some rows of tokens by their numbers.
        rows: their number.
        layout: of the tokens.
        count_SV: the run's counts; empty where it did not count them.
        where: the tokens, for a message.
        bars: makes progress bars.
    """
    V = max(map(len, count_SV))
    found_SV = np.zeros((len(count_SV), V), np.int64)
    with bars("checking tokens", rows if V else 0, "img") as bar:
        for start in range(0, rows if V else 0, ROWS):
            idx_ML = read(range(start, min(start + ROWS, rows)))
            for s, found_V in enumerate(found_SV):
                code_N = idx_ML[:, layout.columns(s)].reshape(-1)
                found_V += np.bincount(code_N[code_N < V], minlength=V)
            bar.update(len(idx_ML))
    for s, (found_V, count_V) in enumerate(zip(found_SV, count_SV, strict=True)):
        if len(count_V) and found_V.tolist() != [*count_V, *[0] * (V - len(count_V))]:
            raise DatasetError(f"{where}: has other tokens than the run counted at scale {s}. {ONE_RUN}")
