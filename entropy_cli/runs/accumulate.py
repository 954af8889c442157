"""Read a run's images into its sums: temperatures first, then the loop."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from entropy_cli.core.errors import EntropyCliError, ResultError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.signals import Signals
from entropy_cli.entropy.quantity import HistoryPoint
from entropy_cli.images.loader import worker_death_error
from entropy_cli.images.plan import BLOCK, BatchPlan, plan_batches
from entropy_cli.results.summary import digits
from entropy_cli.runs.first_images import (
    check_model,
    check_precision,
    pilot_of_shard,
    segments_of,
    set_temperatures,
)
from entropy_cli.runs.run import Run, start_line
from entropy_cli.streaming import state_file
from entropy_cli.streaming.batch_processor import SMALLER_BATCHES
from entropy_cli.streaming.device import device_name, is_out_of_memory, keep_freed_memory, versions
from entropy_cli.streaming.loop import Loop
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.reader import Reader
from entropy_cli.streaming.token_file import TokenStore
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.convolutional import kernels_of
from entropy_cli.tokenizers.precision import matmul_precision

logger = logging.getLogger(__name__)


@dataclass
class Accumulated:
    """The outcome of reading.

    Attributes:
        total: the progress of all processes; only the first may use it.
        target_reached: whether the last estimate is as narrow as the target; None without one.
        unsaved: why the state could not be written at the end; None if it was.
        provenance: device, sizes and speed, for the result.
    """

    total: Progress
    target_reached: bool | None
    provenance: dict[str, Any]
    unsaved: ResultError | None


def accumulate(
    run: Run, progress: Progress, tokens: TokenStore | None, signals: Signals, bars: Bars
) -> Accumulated:
    """Read what is still to be read into the progress, saving it on the way.

    Args:
        run: what is read, and how.
        progress: where to start from; changed in place.
        tokens: where hard tokens are written.
        signals: held back while the progress changes.
        bars: makes progress bars.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the progress was saved.
        EntropyCliError: an input can't be read, or memory does not suffice; the progress was saved.
    """
    resumed, start = progress.images, time.monotonic()
    saved, tokenizer = progress, run.inputs.tokenizer
    unsaved: ResultError | None = None

    def save(total: Progress) -> None:
        """Save what is worth it: an image that could not be read may be readable the next time."""
        nonlocal saved, unsaved
        saved = total
        if total.images > resumed:
            this_run: Any = _describe(run, tokenizer, total, resumed, start)
            this_run["shard"] = run.config.shard
            total = replace(total, runs=[*total.runs, this_run])
        if total.images or total.pilot or run.config.shard is not None:
            unsaved = state_file.try_to_save(run.path, run.state(total))

    if run.blocks:
        with _torch_errors_in_one_line(run.device):
            tokenizer = run.tokenizer()
            _read(run, tokenizer, progress, tokens, signals, bars, save)
    elif run.ranks.first:
        save(progress)
    provenance = _describe(run, tokenizer, saved, resumed, start)
    target = run.config.target if run.blocks else None
    return Accumulated(saved, None if target is None else progress.meets(target), provenance, unsaved)


def _describe(
    run: Run, tokenizer: Tokenizer, total: Progress, resumed: int, start: float
) -> dict[str, Any]:
    """Return device, sizes, speed and versions of a run that began at `start` with `resumed` images."""
    seconds = time.monotonic() - start
    return {
        "device": device_name(run.device),
        "kernels": kernels_of(tokenizer),
        "processes": run.ranks.world,
        "batch_size": run.batch_size,
        "workers": run.workers,
        "seconds": round(seconds, 3),
        "images_per_s": round((total.images - resumed) / seconds, 3),
        "images_resumed": resumed,
        **versions(),
    }


@torch.inference_mode()
@matmul_precision(tf32=False)
def _read(
    run: Run,
    tokenizer: Tokenizer,
    progress: Progress,
    tokens: TokenStore | None,
    signals: Signals,
    bars: Bars,
    save: Callable[[Progress], None],
) -> None:
    """Run the loop."""
    keep_freed_memory()
    processor = run.processor(tokenizer)
    reader = Reader(
        run.inputs.source,
        processor,
        run.settings.precision,
        run.workers,
        fail_at_first=run.config.fail_at_first,
        warns=run.ranks.first,
    )
    segments = segments_of(run, run.blocks, progress.blocks_done.tolist())
    plans = [plan for segment in segments for plan in segment.plans]
    loop = Loop(processor, progress, run.ranks, signals, save, cluster=run.config.cluster)
    loop.save_every_s, loop.target = run.config.save_every_s, run.config.target
    if tokens is not None:
        processor.write_tokens, loop.flush = tokens.write, tokens.sync
    if run.ranks.first:
        logger.info("%s", start_line(run))
    pilot = pilot_of_shard(run, progress)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(bars("", *_expected(run, plans, pilot)))
        processor.advance = loop.advance = bar.update
        largest = math.inf if run.model else math.log(run.inputs.tokenizer.spec.vocab_size)
        what = "CE" if run.model else "A"
        loop.show = lambda point: bar.set_postfix_str(f"{what} = {running_estimate(point, largest)}")
        batches = reader.encode(plans, stack)
        if progress.temperatures is None:
            batches = set_temperatures(run, progress, reader, plans, pilot, batches, bar.set_description)
        assert progress.temperatures is not None
        run.allocate(progress)
        if run.settings.precision != "fp32" and progress.precision_check is None:
            bar.set_description("measuring what the precision costs")
            progress.precision_check = check_precision(run, reader, progress)
            bar.set_description("")
        if run.model and run.model.precision != "fp32" and progress.model_check is None:
            bar.set_description("measuring what the model's precision costs")
            progress.model_check = check_model(run, run.model, reader, progress)
            bar.set_description("")
        loop.run(batches, segments)


def running_estimate(point: HistoryPoint, largest: float) -> str:
    """Format the estimate so far, with its interval within 0 and the largest entropy."""
    if not point.half_width:
        return f"{point.value:.2f}"
    places = digits(point.half_width)
    low = max(0.0, point.value - point.half_width)
    high = min(largest, point.value + point.half_width)
    return f"{point.value:.{places}f} ({low:.{places}f} to {high:.{places}f})"


def _expected(run: Run, plans: Sequence[BatchPlan], pilot: Sequence[BatchPlan]) -> tuple[int, str, int]:
    """Return for the bar: number of images to encode in all, their unit, and how many are done."""
    todo, before = run.ranks.all_reduce_sum([sum(map(len, plans)), sum(map(len, pilot))])
    total = sum(map(len, plan_batches(run.settings.images, BLOCK, run.blocks)))
    return before + total, "img", total - todo


@contextlib.contextmanager
def _torch_errors_in_one_line(device: torch.device) -> Iterator[None]:
    """Raise what torch raises for want of memory, or of a worker, as an EntropyCliError."""
    try:
        yield
    except RuntimeError as error:
        if (death := worker_death_error(error)) is not None:
            raise death from error
        if is_out_of_memory(error):
            raise EntropyCliError(f"{device}: not enough memory. {SMALLER_BATCHES}") from error
        raise
