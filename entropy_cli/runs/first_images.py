"""Find out from the first images of a run: temperatures, and how far a precision moves the result."""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice

from entropy_cli.images.loader import Batch
from entropy_cli.images.plan import BLOCK, BatchPlan, Segment, check_points, plan_batches, plan_segments
from entropy_cli.runs.model import Model
from entropy_cli.runs.run import Run
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.pilot import (
    PILOT_BLOCKS,
    PRECISION_BLOCKS,
    compare_losses,
    compare_precision,
    fit_temperatures,
    with_fitted,
)
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.reader import Reader
from entropy_cli.tokenizers.precision import Precision

logger = logging.getLogger(__name__)

FLOAT32: Precision = "fp32"


def segments_of(run: Run, blocks: Sequence[int], done: Sequence[bool]) -> list[Segment]:
    """Plan blocks, and this process's share of them."""
    points = check_points(len(blocks), early_stop=run.config.target is not None)
    share = run.ranks.rank, run.ranks.world
    return plan_segments(run.settings.images, run.batch_size, blocks, done, points, share)


def pilot_of_shard(run: Run, progress: Progress) -> list[BatchPlan]:
    """Plan the first images of all shards, if this is a shard that fits the temperature to them."""
    given = run.settings.frozen_temperatures is not None or "auto" not in run.settings.temperature
    if run.config.shard is None or given or progress.temperatures is not None:
        return []
    if run.ranks.first:
        logger.info(
            "shard %d/%d reads the first %s images to fit the temperature, as every shard does; "
            "one pilot run and --temperature-from RESULT.json would read them once",
            *run.config.shard,
            f"{min(PILOT_BLOCKS * BLOCK, run.settings.images):,}",
        )
    blocks = range(min(PILOT_BLOCKS, len(progress.blocks_done)))
    return [
        plan for segment in segments_of(run, blocks, [False] * len(blocks)) for plan in segment.plans
    ]


def set_temperatures(
    run: Run,
    progress: Progress,
    reader: Reader,
    plans: Sequence[BatchPlan],
    pilot: Sequence[BatchPlan],
    batches: Iterator[Batch],
    describe: Callable[[str], object],
) -> Iterator[Batch]:
    """Set the temperatures, and return the batches that the loop has still to add.

    Those fitted are fitted to the first images: of the run's own plans, which need not be encoded again,
    or of a shard's pilot.
    """
    choices, frozen_TS = run.settings.temperature, run.settings.frozen_temperatures
    if frozen_TS is not None:
        progress.temperatures = [list(frozen_T) for frozen_T in zip(*frozen_TS, strict=True)]
        progress.pilot = run.frozen_pilot
        return batches
    if "auto" not in choices:
        progress.temperatures = with_fitted(choices, [None] * len(run.metadata.scales))
        return batches
    describe("pilot for the temperature")
    fit = partial(
        fit_temperatures, reader.processor, ranks=run.ranks, headline=choices[0], describe=describe
    )
    if run.config.shard is None:
        mine = sum(bool(plan.completed_blocks) and _is_in_pilot(plan) for plan in plans)
        fitted, progress.pilot, encoded = fit(islice(batches, mine))
        batches = chain(encoded, batches)
    else:
        with contextlib.closing(reader.read(pilot)) as read:
            fitted, progress.pilot, _ = fit(reader.processor.encode(read))
    progress.temperatures = with_fitted(choices, fitted)
    return batches


def check_precision(run: Run, reader: Reader, progress: Progress) -> dict[str, object]:
    """Compare the encoder's precision with float32 on the first images.

    A run in float32 would fit its own `auto`, which moves the entropy as much as the rounding itself.
    """
    fits = run.settings.temperature[0] == "auto" and run.settings.frozen_temperatures is None
    temperatures = None if fits else progress.temperatures
    with _first_batches(run, reader, progress) as batches:
        return compare_precision(*_both(run, reader), batches, temperatures, run.ranks)


def check_model(run: Run, model: Model, reader: Reader, progress: Progress) -> dict[str, object]:
    """Compare the losses of the first images with those of encoder and generator in float32."""
    assert progress.temperatures is not None
    rounded, exact = _both(run, reader)
    for processor, precision in ((rounded, model.precision), (exact, FLOAT32)):
        scorer = model.scorer(processor.tokenizer, run.device, precision, soft=False)
        processor.scorer = replace(scorer, label_check=0)
    with _first_batches(run, reader, progress) as batches:
        return compare_losses(rounded, exact, batches, progress.temperatures, run.ranks)


def _both(run: Run, reader: Reader) -> tuple[BatchProcessor, BatchProcessor]:
    """Return what runs images through the encoder in the run's precision, and in float32."""
    processor, exact = reader.processor, run.inputs.tokenizer.to(run.device, FLOAT32)
    return processor.through(processor.tokenizer), processor.through(exact)


def _first_batches(
    run: Run, reader: Reader, progress: Progress
) -> contextlib.closing[Generator[Batch, None, None]]:
    """Read this process's share of the images that precisions are compared on."""
    blocks = range(min(PRECISION_BLOCKS, len(progress.blocks_done)))[run.ranks.rank :: run.ranks.world]
    plans = plan_batches(run.settings.images, min(BLOCK, run.batch_size), blocks)
    return contextlib.closing(reader.read(plans))


def _is_in_pilot(plan: BatchPlan) -> bool:
    return all(span.start < PILOT_BLOCKS * BLOCK for span in plan.spans)
