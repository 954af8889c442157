"""One process's part of the work of a run."""

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from entropy_cli.commands.estimate.job import Job
from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.signals import Signals
from entropy_cli.images.image_set import GROUPS
from entropy_cli.images.loader import Batch, open_loader, read_batches, worker_death_error
from entropy_cli.images.plan import (
    BLOCK,
    CHECK_BLOCKS,
    BatchPlan,
    Segment,
    check_points,
    number_of_blocks,
    plan_batches,
    plan_segments,
)
from entropy_cli.streaming import state
from entropy_cli.streaming.batch_processor import BatchProcessor, EncodedBatch
from entropy_cli.streaming.device import (
    choose_batch_size,
    choose_workers,
    device_name,
    is_out_of_memory,
    keep_freed_memory,
    versions,
)
from entropy_cli.streaming.emulation import lacking, warn_if_emulated
from entropy_cli.streaming.loop import Estimation
from entropy_cli.streaming.pilot import (
    PILOT_BLOCKS,
    PRECISION_BLOCKS,
    compare_precision,
    fit_temperatures,
)
from entropy_cli.streaming.prefetch import prefetch
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.token_file import TokenStore
from entropy_cli.tokenizers.base import sums_layout
from entropy_cli.tokenizers.precision import matmul_precision

logger = logging.getLogger(__name__)


class Run:
    """Reads what is still to be read into the progress.

    Attributes:
        together: the progress of all processes, in the first of them, when the work is done.
        reached: whether the target was reached; None without one.
        machine: how and how fast it went, for the record.
        tokens: keeps the hard tokens, if they were asked for.
    """

    tokens: TokenStore | None = None

    def __init__(self, job: Job, progress: Progress, path: Path, bars: Bars, signals: Signals) -> None:
        self.job, self.progress, self.path, self.bars, self.signals = job, progress, path, bars, signals
        self.together = progress
        self.reached: bool | None = None
        self.machine: dict[str, Any] = {}
        self.images = len(job.images)
        size = job.tokenizer.spec.image_size
        batch_size = job.config.batch_size or (choose_batch_size(job.device, size) if size else BLOCK)
        if job.config.batch_size is None and job.config.target is not None:
            # Between two looks there is one batch for each process.
            batch_size = min(batch_size, BLOCK * max(1, CHECK_BLOCKS // job.ranks.world))
        self.batch_size = min(batch_size, BLOCK * number_of_blocks(self.images))
        _check_alike(job, self.batch_size)
        workers = job.config.workers
        self.workers = choose_workers(job.device, job.ranks.local_world) if workers is None else workers

    def accumulate(self) -> None:
        """Do the work."""
        before, start = self.progress.images, time.monotonic()
        if self.job.blocks:
            with _in_one_line(self.job.device):
                reached = self._read()
            self.reached = None if self.job.config.target is None else reached
        elif self.job.ranks.first:
            self._save(self.progress)
        seconds = time.monotonic() - start
        self.machine = {
            "device": device_name(self.job.device),
            "processes": self.job.ranks.world,
            "batch_size": self.batch_size,
            "workers": self.workers,
            "seconds": round(seconds, 3),
            "images_per_s": round((self.together.images - before) / seconds, 3),
            "images_resumed": before,
            **versions(),
        }

    @torch.inference_mode()
    @matmul_precision(tf32=False)
    def _read(self) -> bool:
        job, progress, ranks = self.job, self.progress, self.job.ranks
        if job.device.type == "cpu":
            keep_freed_memory()
        tokenizer = job.tokenizer.to(job.device, job.settings["precision"])
        worker = BatchProcessor(tokenizer, job.device, self.batch_size)
        if self.tokens is not None:
            worker.keep_tokens = self.tokens.write
        legs = self._legs(job.blocks, progress.blocks_done.tolist())
        plans = [plan for leg in legs for plan in leg.plans]
        every, target = job.config.save_every_s, job.config.target
        loop = Estimation(worker, progress, ranks, self.signals, self._save)
        loop.save_every_s, loop.target = every, target
        if self.tokens is not None:
            loop.flush = self.tokens.sync
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(self.bars("", *self._expected(plans)))
            if ranks.world == 1:
                worker.advance = bar.update
            else:
                loop.advance = bar.update
            units = self._units(worker, plans, stack)
            if progress.temperatures is None:
                units = self._temperatures(worker, legs, units, bar.set_description)
            assert progress.temperatures is not None
            layout = sums_layout(job.about.scales, GROUPS, len(progress.temperatures[0]))
            progress.place(layout, job.device)
            if job.settings["precision"] != "fp32" and progress.precision_check is None:
                bar.set_description("measuring what the precision costs")
                progress.precision_check = self._precision_check(worker)
                bar.set_description("")
            return loop.run(units, legs)

    def _legs(self, blocks: Sequence[int], done: Sequence[bool]) -> list[Segment]:
        share = self.job.ranks.rank, self.job.ranks.world
        points = check_points(len(blocks), early_stop=self.job.config.target is not None)
        return plan_segments(self.images, self.batch_size, blocks, done, points, share)

    def _expected(self, plans: Sequence[BatchPlan]) -> tuple[int, str, int]:
        """For the bar: images in all, their unit, and how many are done."""
        todo = self.job.ranks.all_reduce_sum([sum(map(len, plans))])[0]
        blocks = plan_batches(self.images, BLOCK, self.job.blocks)
        total = sum(map(len, blocks))
        return total, "img", total - todo

    def _units(
        self, worker: BatchProcessor, plans: Sequence[BatchPlan], stack: contextlib.ExitStack
    ) -> Iterator[EncodedBatch]:
        """The plans' pictures, read and encoded as they are asked for."""
        batches = stack.enter_context(contextlib.closing(self._reported(self._batches(plans))))
        return worker.encode(self._timed(batches, worker))

    def _timed(self, batches: Iterator[Batch], worker: BatchProcessor) -> Iterator[Batch]:
        """The same batches; on the first picture the encoder is timed if the CPU lacks its precision."""
        device, precision = self.job.device, self.job.settings["precision"]
        if not self.job.ranks.first or lacking(precision, device) is None:
            return batches
        seen = []
        for batch in batches:
            seen.append(batch)
            if batch.names:
                warn_if_emulated(worker.tokenizer, precision, device, batch.input_B)
                break
        return chain(seen, batches)

    def _reported(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """Say which images can't be read, or stop at the first."""
        with contextlib.closing(batches):
            for batch in batches:
                for path, reason in batch.failed:
                    if self.job.config.fail_at_first:
                        raise DatasetError(
                            f"{path}: can't be read: {reason}. Stopped by --on-error fail."
                        )
                    logger.warning("unreadable: %s: %s", path, reason)
                yield batch

    def _batches(self, plans: Sequence[BatchPlan]) -> Generator[Batch, None, None]:
        if not plans:
            return
        loader = open_loader(self.job.inputs.source, plans, workers=self.workers)
        with contextlib.closing(prefetch(read_batches(loader), self.job.device)) as batches:
            yield from batches

    def _temperatures(
        self,
        worker: BatchProcessor,
        legs: Sequence[Segment],
        units: Iterator[EncodedBatch],
        stage: Callable[[str], object],
    ) -> Iterator[EncodedBatch]:
        """Set the temperatures; those fitted are on the first images, which need no encoding again."""
        given, progress = self.job.settings["temperature"], self.progress
        if given != "auto":
            progress.temperatures = [given for _ in self.job.about.scales]
            return units
        stage("pilot for the temperature")
        pilot = range(min(PILOT_BLOCKS, len(progress.blocks_done)))
        with contextlib.ExitStack() as stack:
            if self.job.config.shard is None:  # the pilot's are the first of the legs
                plans = [
                    p for leg in legs for p in leg.plans if p.completed_blocks and _within(p, pilot)
                ]
                first: Iterator[EncodedBatch] = islice(units, len(plans))
            else:
                plans = [p for leg in self._legs(pilot, [False] * len(pilot)) for p in leg.plans]
                other = BatchProcessor(worker.tokenizer, worker.device, worker.batch_size)
                batches = stack.enter_context(contextlib.closing(self._batches(plans)))
                first = other.encode(batches)
            fitted, progress.pilot, kept = fit_temperatures(worker, first, self.job.ranks, stage)
        progress.temperatures = fitted
        return chain(kept, units) if self.job.config.shard is None else units

    def _precision_check(self, worker: BatchProcessor) -> dict[str, object]:
        job, temperatures = self.job, self.progress.temperatures
        assert temperatures is not None
        tokenizers = worker.tokenizer, job.tokenizer.to(job.device, "fp32")
        size = min(BLOCK, self.batch_size)
        rounded, exact = (BatchProcessor(tokenizer, job.device, size) for tokenizer in tokenizers)
        blocks = range(min(PRECISION_BLOCKS, len(self.progress.blocks_done)))
        plans = plan_batches(self.images, size, blocks[job.ranks.rank :: job.ranks.world])
        with contextlib.closing(self._batches(plans)) as batches:
            return compare_precision(rounded, exact, batches, temperatures, job.ranks)

    def _save(self, together: Progress) -> None:
        """Save what is worth it: of images that could not be read, none is left out for good."""
        self.together = together
        if together.images or together.pilot or self.job.config.shard is not None:
            state.save(self.path, self.job.saved(together))


def _check_alike(job: Job, batch_size: int) -> None:
    """Batches decide how often processes meet, so they must be of one size."""
    sizes = job.ranks.all_gather((job.device.type, batch_size))
    if len(set(sizes)) > 1:
        found = ", ".join(f"{kind} in batches of {size}" for kind, size in sizes)
        raise EntropyCliError(
            f"the processes of this run would work differently: {found}. Give all of them the same "
            "--device and --batch-size."
        )


@contextlib.contextmanager
def _in_one_line(device: torch.device) -> Iterator[None]:
    """What torch raises wherever it happens to be, as something that the user can mend."""
    try:
        yield
    except RuntimeError as error:
        if (death := worker_death_error(error)) is not None:
            raise death from error
        if is_out_of_memory(error):
            raise EntropyCliError(
                f"{device}: not enough memory. Run the same command again with a smaller --batch-size: "
                "it goes on from what was saved."
            ) from error
        raise


def _within(plan: BatchPlan, blocks: range) -> bool:
    return all(span.start < blocks.stop * BLOCK for span in plan.spans)
