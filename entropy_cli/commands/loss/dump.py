"""Open a model's logits and labels: shapes checked, read as rows of tokens."""

from collections.abc import Iterator
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
    """The input tensors, each FILE or FILE:KEY, and how to read them."""

    logits: str  # (B, L, V) or (N, V)
    labels: str | None = None  # hard labels; None only with targets
    targets: str | None = None  # soft labels
    shift: bool = False  # whether logits predict the label of the next position
    ignore_index: int = -100  # label of tokens to ignore
    patch_nums: tuple[int, ...] | None = None  # sides of the grids that make up a row of tokens


@dataclass(frozen=True)
class Rows:
    """An array of a file as B rows of L tokens."""

    array: Array  # (B, L, ...), or (N, ...) with the tokens of all rows one after the other
    shape: tuple[int, ...]  # (B, L, ...)
    first: int = 0  # position in the file's rows of a row's first token

    def read(self, rows: slice, positions: slice = slice(None)) -> Tensor:
        """Read some tokens: all of some rows, or some of one row.

        Raises:
            CheckpointError: they can't be read.
        """
        start, stop, _ = positions.indices(self.shape[1])
        if not self._is_flat:
            return self.array.read(rows, slice(self.first + start, self.first + stop))
        base, number = rows.start * self.shape[1], (rows.stop - rows.start) * (stop - start)
        part = self.array.read(slice(base + start, base + start + number))
        return part.view(-1, stop - start, *self.shape[2:])

    def location(self, row: int, position: int) -> str:
        """Return the location of a token in the file, for messages."""
        flat, place = row * self.shape[1] + position, f"{row}, {position + self.first}"
        return f"{self.array.name}[{flat if self._is_flat else place}]"

    @property
    def _is_flat(self) -> bool:
        return len(self.array.shape) < len(self.shape)


@dataclass(frozen=True)
class Dump:
    """Logits of B rows of L tokens, V for each token, with their labels."""

    logits_BLV: Rows
    label_BL: Rows | None
    target_BLV: Rows | None
    row: str  # "sequence", "image", or "token" if sequences are unknown
    ignore_index: int

    @property
    def vocab_size(self) -> int:
        """The number of codes V."""
        return self.logits_BLV.shape[2]

    @property
    def tolerance(self) -> float:
        """The tolerance for the sum of soft labels."""
        is_16_bit = self.target_BLV is not None and self.target_BLV.array.dtype.itemsize == 2
        return SUM_TOLERANCE_16_BIT if is_16_bit else SUM_TOLERANCE

    @property
    def token_bytes(self) -> int:
        """The number of bytes to read per token."""
        wide = [rows for rows in (self.logits_BLV, self.target_BLV) if rows is not None]
        return sum(self.vocab_size * rows.array.dtype.itemsize for rows in wide)

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
    names = ("logits", "labels", "targets")
    given = {name: text for name in names if (text := getattr(files, name)) is not None}
    arrays = {
        name: open_array(text, "integers" if name == "labels" else "floating-point numbers")
        for name, text in given.items()
    }
    length = _check_shapes(arrays, files)  # before anything is read
    is_flat = len(arrays["logits"].shape) == 2
    shift = int(files.shift)
    rows = {}
    for name, array in arrays.items():
        B, L, *rest = (array.shape[0] // length, length, *array.shape[1:]) if is_flat else array.shape
        rows[name] = Rows(array, (B, L - shift, *rest), 0 if name == "logits" else shift)
    row = "image" if files.patch_nums else "token" if is_flat else "sequence"
    label_BL = rows.get("labels")
    dump = Dump(rows["logits"], label_BL, rows.get("targets"), row, files.ignore_index)
    if label_BL is not None:
        _check_labels(dump, label_BL)
    return dump


def _check_shapes(arrays: dict[str, Array], files: InputFiles) -> int:
    """Return the number of tokens of a row in the files; raise ShapeError if shapes don't fit."""
    name, shape = arrays["logits"].name, arrays["logits"].shape
    got = f"logits of shape {shape}"
    if len(shape) not in (2, 3):
        raise ShapeError(f"{name}: {got}; expected (B, L, V) or (N, V).")
    for other, expected in (("labels", shape[:-1]), ("targets", shape)):
        if other in arrays and arrays[other].shape != expected:
            raise ShapeError(
                f"{arrays[other].name}: {other} of shape {arrays[other].shape}; expected {expected} for "
                f"{got}."
            )
    if 0 in shape:
        raise ShapeError(f"{name}: {got} are empty.")
    if files.shift and len(shape) == 2:
        raise ShapeError(
            f"{name}: --shift with {got}: (N, V) does not show where one sequence ends. Give (B, L, V), "
            "or shifted labels without --shift."
        )
    if files.shift and shape[1] < 2:
        raise ShapeError(f"{name}: --shift with {got}: no next token. Leave --shift out.")
    if files.patch_nums is None:
        return shape[1] if len(shape) == 3 else 1
    tokens = sum(side * side for side in files.patch_nums)
    option = f"--patch-nums {','.join(map(str, files.patch_nums))} means"
    if len(shape) == 3 and shape[1] != tokens:
        raise ShapeError(f"{name}: {got} have {shape[1]} tokens per row; {option} {tokens}.")
    if len(shape) == 2 and shape[0] % tokens:
        raise ShapeError(f"{name}: {got} have {shape[0]} tokens; {option} a multiple of {tokens}.")
    return tokens


def _check_labels(dump: Dump, label_BL: Rows) -> None:
    """Raise EntropyCliError if a label is neither a code nor ignored, or if all are ignored."""
    B, L = label_BL.shape
    unsigned = label_BL.array.dtype == torch.uint64  # values beyond int64 become negative
    counted = 0
    for rows in slices(B, LABELS_PER_CHUNK // L):
        label_bL = label_BL.read(rows).long()
        counted_bL = (label_bL != dump.ignore_index) | (unsigned & (label_bL < 0))
        bad = (counted_bL & ((label_bL < 0) | (label_bL >= dump.vocab_size))).nonzero()
        if len(bad):
            row, position = bad[0].tolist()
            label, advice = int(label_bL[row, position]), ""
            if unsigned and label < 0:
                label, advice = label + 2**64, " Save labels below 0 as int64."
            raise EntropyCliError(
                f"{label_BL.location(rows.start + row, position)}: label {label}, but the logits are of "
                f"{dump.vocab_size} codes. Expected 0 to {dump.vocab_size - 1}, or --ignore-index "
                f"{dump.ignore_index}.{advice}"
            )
        counted += int(counted_bL.sum())
    if not counted:
        when = " after the shift" if label_BL.first else ""
        raise EntropyCliError(
            f"{label_BL.array.name}: all labels{when} are {dump.ignore_index}, which is ignored. Give "
            "other labels or --ignore-index."
        )
