"""Open a model's logits and labels: shapes checked, read as rows of tokens."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError, ShapeError
from entropy_cli.tokenizers.checkpoints.arrays import Array, open_array

# Logits and labels per chunk of a thread: intermediate results fit into its cache.
LOGITS_PER_CHUNK = 2**17
LABELS_PER_CHUNK = 2**22

# How far the sums of soft labels may be from 1 by rounding.
SUM_TOLERANCE, SUM_TOLERANCE_16_BIT = 1e-4, 1e-2


@dataclass(frozen=True)
class InputFiles:
    """The input tensors, each FILE or FILE:KEY, and how to read them.

    Attributes:
        logits: (B, L, V) or (N, V).
        labels: hard labels; None only with targets.
        targets: soft labels.
        shift: whether logits predict the label of the next position.
        ignore_index: label of tokens to ignore.
        patch_nums: sides of the grids that make up a row of tokens, scale after scale.
    """

    logits: str
    labels: str | None = None
    targets: str | None = None
    shift: bool = False
    ignore_index: int = -100
    patch_nums: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Rows:
    """An array of a file as B rows of L tokens.

    Attributes:
        array: (B, L, ...), or (N, ...) with the tokens of all rows one after the other.
        shape: (B, L, ...).
        first: position in the file's rows of a row's first token.
    """

    array: Array
    shape: tuple[int, ...]
    first: int = 0

    @property
    def is_flat(self) -> bool:
        """Return whether the file numbers the tokens of all rows consecutively."""
        return len(self.array.shape) < len(self.shape)

    def read(self, rows: slice, positions: slice = slice(None)) -> Tensor:
        """Read some tokens: all of some rows, or some of one row.

        Raises:
            CheckpointError: they can't be read.
        """
        start, stop, _ = positions.indices(self.shape[1])
        if not self.is_flat:
            return self.array.read(rows, slice(self.first + start, self.first + stop))
        base, number = rows.start * self.shape[1], (rows.stop - rows.start) * (stop - start)
        part = self.array.read(slice(base + start, base + start + number))
        return part.view(-1, stop - start, *self.shape[2:])

    def location(self, row: int, position: int) -> str:
        """Return the location of a token in the file, for messages."""
        place = (
            str(row * self.shape[1] + position) if self.is_flat else f"{row}, {position + self.first}"
        )
        return f"{self.array.name}[{place}]"


@dataclass(frozen=True)
class Dump:
    """Logits of B rows of L tokens, V for each token, with their labels.

    Attributes:
        row: "sequence", "image", or "token" if sequences are unknown.
        is_flat: whether the files have a single token axis.
        arrays: the input files by "logits", "labels" and "targets".
        label_offset: position of a token's label in the file relative to its logits.
    """

    logits_BLV: Rows
    label_BL: Rows | None
    target_BLV: Rows | None
    row: str
    ignore_index: int

    @property
    def vocab_size(self) -> int:
        """The number of codes V."""
        return self.logits_BLV.shape[2]

    @property
    def tolerance(self) -> float:
        """The tolerance for the sum of soft labels."""
        dtype = torch.float64 if self.target_BLV is None else self.target_BLV.array.dtype
        return SUM_TOLERANCE_16_BIT if dtype.itemsize == 2 else SUM_TOLERANCE

    @property
    def token_bytes(self) -> int:
        """The number of bytes to read per token."""
        wide = [rows for rows in (self.logits_BLV, self.target_BLV) if rows is not None]
        return sum(self.vocab_size * rows.array.dtype.itemsize for rows in wide)

    @property
    def nbytes(self) -> int:
        """The number of bytes to read in total."""
        return math.prod(self.logits_BLV.shape[:2]) * self.token_bytes

    def chunks(self, block: slice) -> Iterator[tuple[slice, slice]]:
        """Yield rows and positions of chunks of a block of rows."""
        _, L, V = self.logits_BLV.shape
        for rows in slices(block.stop, LOGITS_PER_CHUNK // (L * V), block.start):
            for positions in slices(L, LOGITS_PER_CHUNK // V):
                yield rows, positions


def slices(stop: int, step: int, start: int = 0) -> Iterator[slice]:
    """Return consecutive slices of at most `step` and at least 1."""
    step = max(1, step)
    return (slice(first, min(first + step, stop)) for first in range(start, stop, step))


def open_dump(files: InputFiles) -> Dump:
    """Open the files and check the shapes and labels.

    Raises:
        EntropyCliError: a file or a shape is not as expected, a label is out of range, or all labels are
            ignored.
    """
    arrays = {"logits": open_array(files.logits, "floating-point numbers")}
    if files.labels is not None:
        arrays["labels"] = open_array(files.labels, "integers")
    if files.targets is not None:
        arrays["targets"] = open_array(files.targets, "floating-point numbers")
    _check_shapes(arrays, shift=files.shift)  # before anything is read
    is_flat = len(arrays["logits"].shape) == 2
    length = _length(arrays["logits"], files.patch_nums)
    shift = int(files.shift)
    rows = {}
    for name, array in arrays.items():
        shape = (array.shape[0] // length, length, *array.shape[1:]) if is_flat else array.shape
        shape = (shape[0], shape[1] - shift, *shape[2:])
        rows[name] = Rows(array, shape, 0 if name == "logits" else shift)
    dump = Dump(
        logits_BLV=rows["logits"],
        label_BL=rows.get("labels"),
        target_BLV=rows.get("targets"),
        row="image" if files.patch_nums else "token" if is_flat else "sequence",
        ignore_index=files.ignore_index,
    )
    _check_labels(dump)
    return dump


def _check_shapes(arrays: dict[str, Array], *, shift: bool) -> None:
    logits = arrays["logits"]
    shape = logits.shape
    if len(shape) not in (2, 3):
        raise ShapeError(f"{logits.name}: logits of shape {shape}; expected (B, L, V) or (N, V).")
    for name, expected in (("labels", shape[:-1]), ("targets", shape)):
        if name in arrays and (got := arrays[name].shape) != expected:
            raise ShapeError(
                f"{arrays[name].name}: {name} of shape {got}; expected {expected} for logits of shape "
                f"{shape}."
            )
    if 0 in shape:
        raise ShapeError(f"{logits.name}: logits of shape {shape} are empty.")
    if shift and len(shape) == 2:
        raise ShapeError(
            f"{logits.name}: --shift with logits of shape {shape}: (N, V) does not show where one "
            "sequence ends. Give (B, L, V), or shifted labels without --shift."
        )
    if shift and shape[1] < 2:
        raise ShapeError(
            f"{logits.name}: --shift with logits of shape {shape}: no next token. Leave --shift out."
        )


def _length(logits: Array, patch_nums: Sequence[int] | None) -> int:
    """Return the number of tokens of a row."""
    shape = logits.shape
    if patch_nums is None:
        return shape[1] if len(shape) == 3 else 1
    tokens = sum(side * side for side in patch_nums)
    sides = ",".join(map(str, patch_nums))
    if len(shape) == 3 and shape[1] != tokens:
        raise ShapeError(
            f"{logits.name}: logits of shape {shape} have {shape[1]} tokens per row; "
            f"--patch-nums {sides} means {tokens}."
        )
    if shape[0] % tokens and len(shape) == 2:
        raise ShapeError(
            f"{logits.name}: logits of shape {shape} have {shape[0]} tokens; --patch-nums {sides} means "
            f"a multiple of {tokens}."
        )
    return tokens


def _check_labels(dump: Dump) -> None:
    """Raise EntropyCliError if a label is neither a code nor ignored, or if all are ignored."""
    if dump.label_BL is None:
        return
    B, L = dump.label_BL.shape
    unsigned = dump.label_BL.array.dtype == torch.uint64  # values beyond int64 become negative
    counted = 0
    for rows in slices(B, LABELS_PER_CHUNK // L):
        label_bL = dump.label_BL.read(rows).long()
        counted_bL = (label_bL != dump.ignore_index) | (unsigned & (label_bL < 0))
        bad = (counted_bL & ((label_bL < 0) | (label_bL >= dump.vocab_size))).nonzero()
        if len(bad):
            row, position = bad[0].tolist()
            label = int(label_bL[row, position])
            advice = ""
            if unsigned and label < 0:
                label, advice = label + 2**64, " Save labels below 0 as int64."
            location = dump.label_BL.location(rows.start + row, position)
            raise EntropyCliError(
                f"{location}: label {label}, but the logits are of {dump.vocab_size} codes. Expected "
                f"0 to {dump.vocab_size - 1}, or --ignore-index {dump.ignore_index}.{advice}"
            )
        counted += int(counted_bL.sum())
    if not counted:
        when = " after the shift" if dump.label_BL.first else ""
        raise EntropyCliError(
            f"{dump.label_BL.array.name}: all labels{when} are {dump.ignore_index}, which is "
            "ignored. Give other labels or --ignore-index."
        )
