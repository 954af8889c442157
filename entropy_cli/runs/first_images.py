"""What a run finds out from its first images: temperatures, and what precisions cost."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
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
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.precision import Precision

logger = logging.getLogger(__name__)


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
    exact_tokenizer = run.inputs.tokenizer.to(run.device, "fp32")
    size = min(BLOCK, run.batch_size)
    rounded, exact = (
        BatchProcessor(tokenizer, run.device, size, draw_seed=run.settings.draw_seed)
        for tokenizer in (reader.processor.tokenizer, exact_tokenizer)
    )
    blocks = range(min(PRECISION_BLOCKS, len(progress.blocks_done)))
    plans = plan_batches(run.settings.images, size, blocks[run.ranks.rank :: run.ranks.world])
    with contextlib.closing(reader.read(plans)) as batches:
        temperatures = None if fits else progress.temperatures
        return compare_precision(rounded, exact, batches, temperatures, run.ranks)


def check_model(run: Run, model: Model, reader: Reader, progress: Progress) -> dict[str, object]:
    """Compare the losses of the first images with those of encoder and generator in float32."""
    size, device = min(BLOCK, run.batch_size), run.device
    pairs: list[tuple[Tokenizer, Precision]] = [
        (reader.processor.tokenizer, model.precision),
        (run.inputs.tokenizer.to(device, "fp32"), "fp32"),
    ]
    rounded, exact = (
        BatchProcessor(
            tokenizer,
            device,
            size,
            draw_seed=run.settings.draw_seed,
            scorer=replace(model.scorer(tokenizer, device, precision, soft=False), label_check=0),
        )
        for tokenizer, precision in pairs
    )
    blocks = range(min(PRECISION_BLOCKS, len(progress.blocks_done)))
    plans = plan_batches(run.settings.images, size, blocks[run.ranks.rank :: run.ranks.world])
    assert progress.temperatures is not None
    with contextlib.closing(reader.read(plans)) as batches:
        return compare_losses(rounded, exact, batches, progress.temperatures, run.ranks)


def _is_in_pilot(plan: BatchPlan) -> bool:
    return all(span.start < PILOT_BLOCKS * BLOCK for span in plan.spans)
