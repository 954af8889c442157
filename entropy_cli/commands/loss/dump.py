"""What `loss` reads: a model's logits and labels, mapped, checked and laid out as rows of tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError, ShapeError
from entropy_cli.tokenizers.checkpoints.arrays import Array, open_array

# So many logits are worked on at a time by a thread: what is made of them fits into its cache.
LOGITS_AT_ONCE = 2**17
LABELS_AT_ONCE = 2**22

# How far the sums of soft labels may be from 1: rounding, and no more.
SUM_TOLERANCE, SUM_TOLERANCE_16_BIT = 1e-4, 1e-2


@dataclass(frozen=True)
class Files:
    """Which tensors, each FILE or FILE:KEY, and how they are to be read.

    Attributes:
        labels: hard labels; may be None if there are targets.
        targets: soft labels.
        shift: whether logits predict the label of the next position.
        ignore_index: the label of tokens that don't count.
        patch_nums: sides of the grids that a row's tokens are of, scale after scale.
    """

    logits: str
    labels: str | None = None
    targets: str | None = None
    shift: bool = False
    ignore_index: int = -100
    patch_nums: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Dump:
    """B rows of L tokens each, and V logits for each token.

    Attributes:
        row: what a row is: "sequence", "image", or "token" of which nobody knows the sequence.
        is_flat: whether tokens are numbered through in the files.
        arrays: where the logits, and what else, are from.
        label_offset: where in the files a token's label is, seen from its logits.
    """

    logits_BLV: Tensor
    label_BL: Tensor | None
    target_BLV: Tensor | None
    row: str
    is_flat: bool
    ignore_index: int
    arrays: dict[str, Array]
    label_offset: int = 0

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.logits_BLV.shape[2]

    @property
    def tolerance(self) -> float:
        """How far the sums of soft labels may be from 1."""
        dtype = torch.float64 if self.target_BLV is None else self.target_BLV.dtype
        return SUM_TOLERANCE_16_BIT if dtype.itemsize == 2 else SUM_TOLERANCE

    @property
    def token_bytes(self) -> int:
        """That are read of the files for a token."""
        wide = [t for t in (self.logits_BLV, self.target_BLV) if t is not None]
        return sum(self.vocab_size * t.element_size() for t in wide)

    @property
    def nbytes(self) -> int:
        """That are read of the files."""
        return self.logits_BLV.shape[:2].numel() * self.token_bytes

    def forget(self) -> None:
        """Let go of what was read."""
        for array in self.arrays.values():
            array.forget()

    def pieces(self, block: slice) -> Iterator[tuple[slice, slice]]:
        """Rows and positions of parts of some rows that are small enough to work on at once."""
        _, L, V = self.logits_BLV.shape
        for rows in slices(block.stop, LOGITS_AT_ONCE // (L * V), block.start):
            for positions in slices(L, LOGITS_AT_ONCE // V):
                yield rows, positions

    def where(self, what: str, row: int, position: int) -> str:
        """A token's place in one of the files, for people."""
        position += 0 if what == "logits" else self.label_offset
        place = str(row * self.logits_BLV.shape[1] + position) if self.is_flat else f"{row}, {position}"
        return f"{self.arrays[what].name}[{place}]"


def slices(stop: int, step: int, start: int = 0) -> Iterator[slice]:
    """Consecutive parts of at most `step`, and at least 1."""
    step = max(1, step)
    return (slice(first, min(first + step, stop)) for first in range(start, stop, step))


def open_dump(files: Files) -> Dump:
    """Open the files; only labels are looked at.

    Raises:
        EntropyCliError: a file or a shape is not what is expected, or all labels are ignored, or one is
            no number of a code.
    """
    arrays = {"logits": open_array(files.logits, "floating-point numbers")}
    if files.labels is not None:
        arrays["labels"] = open_array(files.labels, "integers")
    if files.targets is not None:
        arrays["targets"] = open_array(files.targets, "floating-point numbers")
    _check_shapes(arrays, shift=files.shift)  # before anything is read
    is_flat = len(arrays["logits"].shape) == 2
    length = _length(arrays["logits"], files.patch_nums)
    views = {
        what: array.tensor.view(-1, length, *array.shape[1:]) if is_flat else array.tensor
        for what, array in arrays.items()
    }
    if files.shift:
        views = {what: v[:, :-1] if what == "logits" else v[:, 1:] for what, v in views.items()}
    dump = Dump(
        logits_BLV=views["logits"],
        label_BL=views.get("labels"),
        target_BLV=views.get("targets"),
        row="image" if files.patch_nums else "token" if is_flat else "sequence",
        is_flat=is_flat,
        ignore_index=files.ignore_index,
        arrays=arrays,
        label_offset=int(files.shift),
    )
    _check_labels(dump)
    return dump


def _check_shapes(arrays: dict[str, Array], *, shift: bool) -> None:
    logits = arrays["logits"]
    shape = logits.shape
    if len(shape) not in (2, 3):
        raise ShapeError(f"{logits.name}: logits of shape {shape}; expected (B, L, V) or (N, V).")
    for what, expected in (("labels", shape[:-1]), ("targets", shape)):
        if what in arrays and (got := arrays[what].shape) != expected:
            raise ShapeError(
                f"{arrays[what].name}: {what} of shape {got}; expected {expected} for logits of shape "
                f"{shape}."
            )
    if 0 in shape:
        raise ShapeError(f"{logits.name}: logits of shape {shape} are empty.")
    if shift and len(shape) == 2:
        raise ShapeError(
            f"{logits.name}: --shift with logits of shape {shape}: where one sequence ends and the next "
            "begins can't be seen in (N, V). Give (B, L, V), or shifted labels without --shift."
        )
    if shift and shape[1] < 2:
        raise ShapeError(f"{logits.name}: --shift with logits of shape {shape}: no token has a next.")


def _length(logits: Array, patch_nums: Sequence[int] | None) -> int:
    """Tokens of a row."""
    shape = logits.shape
    if patch_nums is None:
        return shape[1] if len(shape) == 3 else 1
    tokens = sum(side * side for side in patch_nums)
    given = ",".join(map(str, patch_nums))
    if len(shape) == 3 and shape[1] != tokens:
        raise ShapeError(
            f"{logits.name}: logits of shape {shape} have {shape[1]} tokens a row; --patch-nums {given} "
            f"means {tokens}."
        )
    if shape[0] % tokens and len(shape) == 2:
        raise ShapeError(
            f"{logits.name}: logits of shape {shape} have {shape[0]} tokens; --patch-nums {given} means "
            f"a multiple of {tokens}."
        )
    return tokens


def _check_labels(dump: Dump) -> None:
    """That each is the number of a code or ignored, and that not all are."""
    if dump.label_BL is None:
        return
    B, L = dump.label_BL.shape
    unsigned = dump.label_BL.dtype == torch.uint64  # what is beyond int64 becomes negative there
    counted = 0
    for rows in slices(B, LABELS_AT_ONCE // L):
        label_bL = dump.label_BL[rows].long()
        counted_bL = (label_bL != dump.ignore_index) | (unsigned & (label_bL < 0))
        bad = (counted_bL & ((label_bL < 0) | (label_bL >= dump.vocab_size))).nonzero()
        if len(bad):
            row, position = bad[0].tolist()
            label = int(label_bL[row, position])
            advice = ""
            if unsigned and label < 0:
                label, advice = label + 2**64, " Save labels below 0 as int64."
            raise EntropyCliError(
                f"{dump.where('labels', rows.start + row, position)}: label {label}, but the logits are "
                f"of {dump.vocab_size} codes. Expected 0 to {dump.vocab_size - 1}, or --ignore-index "
                f"{dump.ignore_index}.{advice}"
            )
        counted += int(counted_bL.sum())
    if not counted:
        shifted = " after the shift" if dump.label_offset else ""
        raise EntropyCliError(
            f"{dump.arrays['labels'].name}: all labels{shifted} are {dump.ignore_index}, which is "
            "ignored: there is no loss to report."
        )
