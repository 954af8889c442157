"""Compute the losses of dumped logits and labels in one pass over the files, in chunks."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from entropy_cli.commands.loss.dump import Dump, InputFiles, Rows, open_dump, slices
from entropy_cli.commands.loss.findings import findings
from entropy_cli.commands.loss.loss_sums import LossSums, headline, position_groups, smoothed_floor
from entropy_cli.commands.loss.result import Losses, LossResult
from entropy_cli.core.errors import EntropyCliError, ResultError
from entropy_cli.core.progress_bars import Bar, Bars
from entropy_cli.entropy.token_losses import (
    LABEL,
    PREDICTIVE,
    TARGET_ENTROPY,
    TOP1,
    TOP5,
    UNIFORM,
    Scratch,
    quantities,
    token_losses,
)
from entropy_cli.results.floors import Floor, Level

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
        EntropyCliError: a file, a shape or a value is not as expected, or the floor has other scales.
    """
    dump, sides = open_dump(files), files.patch_nums or ()
    levels: list[Level | None] = [None] * (len(sides) + 1)
    if floor is not None:
        _check_scales(floor, sides)
        levels = [*floor.for_scales(sides), floor.mean]
    loss_pass = LossPass(dump, files.patch_nums, smoothing=label_smoothing is not None)
    sums = loss_pass.sums(bars)
    *of_scales, total = (
        _losses(sums, group, level, dump.vocab_size, label_smoothing)
        for group, level in enumerate(levels)
    )
    result = LossResult(
        vocab_size=dump.vocab_size,
        row=dump.row,
        rows=int(sums.rows_G[-1]),
        all=total,
        scales=list(zip(sides, of_scales, strict=True)),
        floor_source=None if floor is None else floor.source,
        findings=[],
        settings={**vars(files), "label_smoothing": label_smoothing},
        provenance=provenance,
    )
    found = findings(result, floor, levels, like_probabilities=loss_pass.like_probabilities)
    result.findings.extend(found)
    return result


def _check_scales(floor: Floor, sides: tuple[int, ...]) -> None:
    if sides and floor.scales and set(sides) != set(floor.scales):
        got, expected = (",".join(map(str, sorted(nums))) for nums in (floor.scales, sides))
        raise ResultError(
            f"{floor.source}: floors of scales {got}, but --patch-nums has {expected}. Estimate the "
            "floor with the same scales."
        )


def _losses(
    sums: LossSums, group: int, level: Level | None, vocab_size: int, epsilon: float | None
) -> Losses:
    means = {name: sums.mean(name, group) for name in (PREDICTIVE, LABEL, TOP1, TOP5, TARGET_ENTROPY)}
    labels, uniform, cross_entropy = (
        sums.mean(name, group) for name in (LABEL, UNIFORM, headline(sums.names))
    )
    half_width, smoothed, smoothed_minimum = sums.half_width(group), None, None
    if epsilon is not None and labels is not None and uniform is not None:
        smoothed = (1 - epsilon) * labels + epsilon * uniform
        smoothed_minimum = smoothed_floor(epsilon, vocab_size)
    floor, floor_half_width = (None, None) if level is None else (level.floor, level.half_width)
    ci95 = None
    if cross_entropy is not None and half_width is not None:
        ci95 = (cross_entropy - half_width, cross_entropy + half_width)
    return Losses(
        **means,
        tokens=int(sums.tokens_G[group]),
        ignored=int(sums.ignored_G[group]),
        cross_entropy=cross_entropy,
        cross_entropy_bits=None if cross_entropy is None else cross_entropy / math.log(2),
        standard_error=sums.standard_error(group),
        ci95=ci95,
        perplexity=_exp(cross_entropy),
        kl=_difference(cross_entropy, means[TARGET_ENTROPY]),
        smoothed_cross_entropy=smoothed,
        smoothed_floor=smoothed_minimum,
        smoothed_excess=_difference(smoothed, smoothed_minimum),
        floor=floor,
        reducible=_difference(cross_entropy, floor),
        reducible_half_width=None
        if floor is None or half_width is None
        else math.hypot(half_width, floor_half_width or 0),
        unigram_entropy=None if level is None else level.unigram_value,
    )


def _difference(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _exp(value: float | None) -> float | None:
    try:
        return None if value is None else math.exp(value)
    except OverflowError:
        return None


class LossPass:
    """One pass over a dump.

    Attributes:
        like_probabilities: whether all counted logits so far look like probabilities.
    """

    def __init__(self, dump: Dump, patch_nums: tuple[int, ...] | None, *, smoothing: bool) -> None:
        self._dump, self._smoothing = dump, smoothing
        self._names = quantities(
            labels=dump.label_BL is not None, targets=dump.target_BLV is not None, smoothing=smoothing
        )
        self._groups_LG = position_groups(patch_nums, dump.logits_BLV.shape[1])
        self._local = threading.local()
        self.like_probabilities = True

    def sums(self, bars: Bars) -> LossSums:
        """Return the sums over all rows.

        Each thread works on chunks of its own: torch's threads, which share every operation, would wait
        for each other on a busy machine.
        """
        B, L, _ = self._dump.logits_BLV.shape
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, initializer=self._start_thread)
        try:
            with bars("", B * L * self._dump.token_bytes, "B") as bar:
                first, *others = slices(B, TOKENS_PER_BLOCK // L)
                total = self._sum_rows(first, pool, bar)
                for rows in others:
                    total = total + self._sum_rows(rows, pool, bar)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
        return total

    def _start_thread(self) -> None:
        torch.set_num_threads(1)
        self._local.scratch = Scratch()

    def _sum_rows(self, block: slice, pool: ThreadPoolExecutor, bar: Bar) -> LossSums:
        B, L = block.stop - block.start, self._dump.logits_BLV.shape[1]
        loss_BLQ = torch.zeros(B, L, len(self._names), dtype=torch.float64)
        counted_BL = torch.ones(B, L, dtype=torch.bool)

        def process_chunk(rows: slice, positions: slice) -> int:
            here = slice(rows.start - block.start, rows.stop - block.start), positions
            counted_bl, label_BL = counted_BL[here], self._dump.label_BL
            if label_BL is not None:
                counted_bl[:] = label_BL.read(rows, positions).long() != self._dump.ignore_index
            loss_BLQ[here][counted_bl] = self._chunk_losses(rows, positions, counted_bl)
            return counted_bl.numel()

        for tokens in pool.map(process_chunk, *zip(*self._dump.chunks(block), strict=True)):
            bar.update(tokens * self._dump.token_bytes)
        return LossSums.from_rows(self._names, loss_BLQ, counted_BL, self._groups_LG)

    def _chunk_losses(self, rows: slice, positions: slice, counted_bl: Tensor) -> Tensor:
        dump = self._dump

        def tokens(dumped: Rows | None) -> Tensor | None:
            if dumped is None:
                return None
            part_blX = dumped.read(rows, positions)
            return part_blX.flatten(0, 1) if counted_bl.all() else part_blX[counted_bl]

        def error(dumped: Rows | None, n: int, reason: str) -> EntropyCliError:
            assert dumped is not None
            row, position = counted_bl.nonzero()[n].tolist()
            place = dumped.location(rows.start + row, positions.start + position)
            return EntropyCliError(f"{place}: {reason}")

        logits_NV, label_N, q_NV = map(tokens, (dump.logits_BLV, dump.label_BL, dump.target_BLV))
        assert logits_NV is not None
        if not len(logits_NV):
            return logits_NV.new_zeros(0, len(self._names), dtype=torch.float64)
        label_N = None if label_N is None else label_N.long()
        if q_NV is not None:
            sum_N = q_NV.sum(1, dtype=torch.float64)
            valid_N = (q_NV.amin(1) >= 0) & ((sum_N - 1).abs() <= dump.tolerance)  # NaN is not
            if not valid_N.all():
                n = int((~valid_N).nonzero()[0])
                raise error(dump.target_BLV, n, _explain_targets(q_NV[n], dump.tolerance))
        loss_NQ = token_losses(
            logits_NV, label_N, q_NV, smoothing=self._smoothing, scratch=self._local.scratch
        )
        if not loss_NQ.isfinite().all():
            n = int((~loss_NQ.isfinite()).any(1).nonzero()[0])
            label, q_V = (None if part is None else part[n] for part in (label_N, q_NV))
            raise error(dump.logits_BLV, n, _explain_nonfinite(logits_NV[n], label, q_V))
        if self.like_probabilities:
            off_N = (logits_NV.sum(1, dtype=torch.float64) - 1).abs() > PROBABILITY_SUM_TOLERANCE
            if off_N.any() or (logits_NV < 0).any():
                self.like_probabilities = False
        return loss_NQ


def _explain_targets(q_V: Tensor, tolerance: float) -> str:
    """Return why the soft labels of a token are no probabilities, and what to do."""
    lowest, total = q_V.amin().item(), q_V.sum(dtype=torch.float64).item()
    got = f"sum to {total:.6g}" if lowest >= 0 else f"hold {lowest:.6g}"
    return (
        f"the soft labels {got}; expected probabilities, nonnegative with sum 1 to within "
        f"{tolerance:g}. Give a softmax, or normalise them."
    )


def _explain_nonfinite(logits_V: Tensor, label: Tensor | None, q_V: Tensor | None) -> str:
    """Return why the loss of a token is infinite or NaN, and what to do."""
    bad = (logits_V.isnan() | (logits_V == torch.inf)).nonzero()
    if len(bad):
        code = int(bad[0])
        return f"the logit of code {code} is {logits_V[code].item()}. The model that gave it is broken."
    masked_V = logits_V == -torch.inf
    if masked_V.all():
        return "all logits are -inf: no code is possible. Mask fewer codes."
    infinite = "an infinite cross-entropy"
    advice = f"{infinite}. The mask excludes too much, or the {{}} don't belong to these logits."
    if label is not None and masked_V[label]:
        return f"the label is code {label}, whose logit is -inf: {advice.format('labels')}"
    if q_V is not None and (q_V[masked_V] > 0).any():
        code = int((masked_V & (q_V > 0)).nonzero()[0])
        return (
            f"the logit of code {code} is -inf, but its soft label is {q_V[code].item():.3g}: "
            f"{advice.format('targets')}"
        )
    return (
        f"has logits of -inf, but label smoothing needs every code: {infinite}. Leave --label-smoothing "
        "out."
    )
