"""Compute the losses of dumped logits and labels in one pass over the files, in chunks."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from entropy_cli.commands.loss.build_result import RunInfo, build
from entropy_cli.commands.loss.dump import Dump, InputFiles, Rows, open_dump, slices
from entropy_cli.commands.loss.result import LossResult
from entropy_cli.commands.loss.token_losses import (
    LossSums,
    Scratch,
    position_groups,
    quantities,
    token_losses,
)
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.progress_bars import Bar, Bars
from entropy_cli.results.floors import Floor

TOKENS_PER_BLOCK = 2**16  # whose losses are summed together; a longer row is a block
PROBABILITY_SUM_TOLERANCE = 1e-2  # deviation from 1 by rounding to 16 bits


def loss(
    files: InputFiles,
    *,
    label_smoothing: float | None,
    floor: Floor | None,
    provenance: dict[str, Any],
    bars: Bars,
) -> LossResult:
    """Split the loss of a model on some tokens.

    Args:
        files: its logits and the labels.
        label_smoothing: share of a label that is spread over all codes, or None.
        floor: to compare the loss with.
        provenance: command and version, for the result.
        bars: creates the progress bar.

    Raises:
        EntropyCliError: a file, a shape or a value is not as expected.
    """
    dump = open_dump(files)
    with bars("", dump.nbytes, "B") as bar:
        loss_pass = LossPass(dump, files.patch_nums, bar, smoothing=label_smoothing is not None)
        sums = loss_pass.sums()
    run = RunInfo(
        vocab_size=dump.vocab_size,
        row=dump.row,
        patch_nums=files.patch_nums,
        label_smoothing=label_smoothing,
        like_probabilities=loss_pass.like_probabilities,
        settings={
            "logits": files.logits,
            "labels": files.labels,
            "targets": files.targets,
            "shift": files.shift,
            "ignore_index": files.ignore_index,
            "patch_nums": files.patch_nums,
            "label_smoothing": label_smoothing,
        },
        provenance=provenance,
    )
    return build(sums, run, floor)


class LossPass:
    """One pass over a dump.

    Attributes:
        like_probabilities: whether all counted logits so far look like probabilities.
    """

    def __init__(
        self, dump: Dump, patch_nums: tuple[int, ...] | None, bar: Bar, *, smoothing: bool
    ) -> None:
        self._dump, self._bar, self._smoothing = dump, bar, smoothing
        self._names = quantities(
            labels=dump.label_BL is not None, targets=dump.target_BLV is not None, smoothing=smoothing
        )
        self._groups_LG = position_groups(patch_nums, dump.logits_BLV.shape[1])
        self._local = threading.local()
        self.like_probabilities = True

    def sums(self) -> LossSums:
        """Return the sums over all rows.

        Each thread works on chunks of its own: torch's threads, which share every operation, would wait
        for each other on a busy machine.
        """
        B, L, _ = self._dump.logits_BLV.shape
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, initializer=self._start_thread)
        try:
            blocks = (self._sum_rows(rows, pool) for rows in slices(B, TOKENS_PER_BLOCK // L))
            total = next(blocks)
            for block in blocks:
                total = total + block
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
        return total

    def _start_thread(self) -> None:
        torch.set_num_threads(1)
        self._local.scratch = Scratch()

    def _sum_rows(self, block: slice, pool: ThreadPoolExecutor) -> LossSums:
        B, L = block.stop - block.start, self._dump.logits_BLV.shape[1]
        loss_BLQ = torch.zeros(B, L, len(self._names), dtype=torch.float64)
        counted_BL = torch.zeros(B, L, dtype=torch.bool)

        def process_chunk(rows: slice, positions: slice) -> int:
            here = slice(rows.start - block.start, rows.stop - block.start), positions
            counted_bl = counted_BL[here]
            counted_bl[:] = self._counted_mask(rows, positions)
            loss_BLQ[here][counted_bl] = self._chunk_losses(rows, positions, counted_bl)
            return counted_bl.numel()

        for tokens in pool.map(process_chunk, *zip(*self._dump.chunks(block), strict=True)):
            self._bar.update(tokens * self._dump.token_bytes)
        return LossSums.from_rows(self._names, loss_BLQ, counted_BL, self._groups_LG)

    def _counted_mask(self, rows: slice, positions: slice) -> Tensor | bool:
        label_BL = self._dump.label_BL
        return (
            True
            if label_BL is None
            else label_BL.read(rows, positions).long() != self._dump.ignore_index
        )

    def _chunk_losses(self, rows: slice, positions: slice, counted_bl: Tensor) -> Tensor:
        dump = self._dump

        def tokens(dumped: Rows | None) -> Tensor | None:
            if dumped is None:
                return None
            part_blX = dumped.read(rows, positions)
            return part_blX.flatten(0, 1) if counted_bl.all() else part_blX[counted_bl]

        logits_NV, label_N, q_NV = map(tokens, (dump.logits_BLV, dump.label_BL, dump.target_BLV))
        assert logits_NV is not None
        if not len(logits_NV):
            return logits_NV.new_zeros(0, len(self._names), dtype=torch.float64)
        label_N = None if label_N is None else label_N.long()

        def location(dumped: Rows | None, n: int) -> str:
            assert dumped is not None
            row, position = counted_bl.nonzero()[n].tolist()
            return dumped.location(rows.start + row, positions.start + position)

        if q_NV is not None:
            self._check_targets(q_NV, location)
        loss_NQ = token_losses(
            logits_NV, label_N, q_NV, smoothing=self._smoothing, scratch=self._local.scratch
        )
        if not loss_NQ.isfinite().all():
            n = int((~loss_NQ.isfinite()).any(1).nonzero()[0])
            q_V = None if q_NV is None else q_NV[n]
            reason = _explain_nonfinite(logits_NV[n], None if label_N is None else int(label_N[n]), q_V)
            raise EntropyCliError(f"{location(dump.logits_BLV, n)}: {reason}")
        if self.like_probabilities:
            sum_N = logits_NV.sum(1, dtype=torch.float64)
            off_N = (sum_N - 1).abs() > PROBABILITY_SUM_TOLERANCE
            if off_N.any() or (logits_NV < 0).any():
                self.like_probabilities = False
        return loss_NQ

    def _check_targets(self, q_NV: Tensor, location: Callable[[Rows | None, int], str]) -> None:
        sum_N = q_NV.sum(1, dtype=torch.float64)
        valid_N = (q_NV.amin(1) >= 0) & ((sum_N - 1).abs() <= self._dump.tolerance)  # NaN is not
        if valid_N.all():
            return
        n = int((~valid_N).nonzero()[0])
        lowest = q_NV[n].amin().item()
        got = f"sum to {sum_N[n].item():.6g}" if lowest >= 0 else f"hold {lowest:.6g}"
        raise EntropyCliError(
            f"{location(self._dump.target_BLV, n)}: the soft labels {got}; expected probabilities, "
            f"nonnegative with sum 1 to within {self._dump.tolerance:g}. Give a softmax, or normalise "
            "them."
        )


def _explain_nonfinite(logits_V: Tensor, label: int | None, q_V: Tensor | None) -> str:
    """Return why the loss of a token is infinite or NaN, and what to do."""
    bad = (logits_V.isnan() | (logits_V == torch.inf)).nonzero()
    if len(bad):
        code = int(bad[0])
        return f"the logit of code {code} is {logits_V[code].item()}. The model that gave it is broken."
    if not logits_V.isfinite().any():
        return "all logits are -inf: no code is possible. Mask fewer codes."
    if label is not None and logits_V[label] == -torch.inf:
        return (
            f"the label is code {label}, whose logit is -inf: an infinite cross-entropy. The mask "
            "excludes too much, or the labels don't belong to these logits."
        )
    masked = logits_V == -torch.inf
    if q_V is not None and (q_V[masked] > 0).any():
        code = int((masked & (q_V > 0)).nonzero()[0])
        return (
            f"the logit of code {code} is -inf, but its soft label is {q_V[code].item():.3g}: an "
            "infinite cross-entropy. The mask excludes too much, or the targets don't belong to these "
            "logits."
        )
    return (
        "has logits of -inf, but label smoothing needs every code: an infinite cross-entropy. "
        "Leave --label-smoothing out."
    )
