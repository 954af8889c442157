"""The main job, from a config to a result: what `estimate` and `demo` both run."""

import contextlib
import logging
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.progress_bars import Bars, no_bars
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.entropy.ladder.ladder import Ladder
from entropy_cli.images.plan import BLOCK
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.per_image import find_extremes, write_per_image
from entropy_cli.runs.accumulate import Accumulated, accumulate
from entropy_cli.runs.build_evaluation import evaluation_or_result
from entropy_cli.runs.config import EstimateConfig
from entropy_cli.runs.ladder import ladder_of
from entropy_cli.runs.run import Run, open_run
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import join, work_of
from entropy_cli.streaming.state_file import resume
from entropy_cli.streaming.token_file import (
    TokenStore,
    open_token_store,
    shard_tokens,
    store_path,
)

logger = logging.getLogger(__name__)

Deliver = Callable[[Any], object]  # takes a Result, or of a generator an Evaluation


class ImageCounts(NamedTuple):
    """The numbers of images that a run could read, and could not."""

    used: int
    failed: int


def estimate(config: EstimateConfig, bars: Bars, deliver: Deliver) -> ImageCounts:
    """Estimate, or resume an estimate that was interrupted; with a model also its losses.

    Args:
        config: what to estimate, and how.
        bars: makes progress bars.
        deliver: called with the result, with a model an evaluation, before the saved state is removed,
            in the first process only; not called for a shard without a single readable image.

    Raises:
        Interrupted: SIGINT or SIGTERM came; what was computed is saved.
        EntropyCliError: anything the user can mend; what was computed is saved.
    """
    with Signals() as signals, join() as ranks, contextlib.ExitStack() as stack:
        ranks.check_alike(work_of("estimate", config))
        bars = bars if ranks.first else no_bars
        run = open_run(config, ranks, bars)
        progress = resume(
            run.path,
            run.settings,
            config.shard,
            ranks,
            stack,
            fail_at_first=config.fail_at_first,
        )
        tokens = _open_tokens(run, progress, stack)
        try:
            done = accumulate(run, progress, tokens, signals, bars)
            counts = ranks.broadcast_from_first(ImageCounts(done.total.images, len(done.total.failed)))
            if ranks.first:
                read = _places_read(run, done.total, tokens, bars)
                ladder, refusal = _climb(run, done.total, tokens, read, bars)
        except Interrupted as error:
            error.saved = run.path.exists()
            raise
        if ranks.first:
            _deliver_result(run, done, ladder, read, deliver)
            _deliver_tokens(run, tokens, read)
            _deliver_losses(run, done.total, read)
            if refusal is not None:
                raise refusal
            if done.unsaved is not None and (config.state or config.shard) is not None:
                raise done.unsaved
            _clean_up(run)
        return counts


def _open_tokens(run: Run, progress: Progress, stack: contextlib.ExitStack) -> TokenStore | None:
    """Open the file that keeps hard tokens; unless they are asked for, remove one with gaps."""
    done, spec = progress.blocks_done, run.inputs.tokenizer.spec
    if run.config.tokens is None and not run.config.ladder:
        if run.ranks.first and not done[run.blocks.start :: run.blocks.step].all():
            store_path(run.path).unlink(missing_ok=True)
        return None
    tokens = sum(scale.tokens for scale in spec.scales)
    store = TokenStore(run.path, run.settings.images, tokens, spec.vocab_size)
    open_token_store(store, run.ranks, resumed=bool(done.any()))
    stack.callback(store.close)
    return store


def _deliver_result(
    run: Run, done: Accumulated, ladder: Ladder | None, read: Sequence[int], deliver: Deliver
) -> None:
    shard = run.config.shard
    if shard is not None and not done.total.images:
        logger.warning(
            "shard %d/%d has %s: no result, a state without sums for the merge",
            *shard,
            "no image that could be read" if run.blocks else "no images, for want of blocks of 16",
        )
        return
    provenance = {
        "command": run.config.command,
        **done.provenance,
        "target_ci": run.config.target,
        "shard": shard,
        "limit": run.config.limit,
    }
    state, given = run.state(done.total), run.inputs.given_result
    result = evaluation_or_result(state, given, done.target_reached, provenance, ladder)
    if isinstance(result, Evaluation):
        result = replace(result, extremes=find_extremes(*_losses(run, done.total, read)))
    deliver(result)


def _places_read(run: Run, total: Progress, tokens: TokenStore | None, bars: Bars) -> Sequence[int]:
    """Return the places, in the seeded order, of the images whose tokens or losses were kept."""
    read = array("q")
    if tokens is None and run.model is None:
        return read
    images = run.inputs.images
    done, failed = total.blocks_done.tolist(), {name for name, _ in total.failed}
    with bars("finding the images that were read", len(images), "img") as bar:
        for place in range(len(images)):
            if done[place // BLOCK] and images.name(place) not in failed:
                read.append(place)
            bar.update(1)
    return read


def _deliver_tokens(run: Run, tokens: TokenStore | None, read: Sequence[int]) -> None:
    """Write the tokens of the images that were read, and their paths, where they are wanted."""
    for_merge = run.config.ladder and run.config.shard is not None
    for path in (run.config.tokens, shard_tokens(run.path) if for_merge else None):
        if tokens is not None and path is not None:
            tokens.deliver(path, read, (run.inputs.images.name(place) for place in read))


def _deliver_losses(run: Run, total: Progress, read: Sequence[int]) -> None:
    """Write the loss of each image, where that is wanted."""
    if run.config.model is not None and run.config.model.per_image is not None:
        write_per_image(run.config.model.per_image, *_losses(run, total, read))


def _losses(
    run: Run, total: Progress, read: Sequence[int]
) -> tuple[Callable[[int], str], np.ndarray, np.ndarray]:
    """Return the images that were read: the name of one by its row, their classes, and their nats.

    A list of a million names would take memory.
    """
    assert run.model is not None
    place_M, images = np.asarray(read, np.int64), run.inputs.images
    label_M, nats_M = run.model.labels.index_N[place_M], total.nats_N.numpy()[place_M]
    return lambda m: images.name(read[m]), label_M, nats_M


def _climb(
    run: Run, total: Progress, tokens: TokenStore | None, read: Sequence[int], bars: Bars
) -> tuple[Ladder | None, EntropyCliError | None]:
    """Return the ladder that was asked for, or why there is none: the rest of the result stands."""
    if not run.config.ladder or run.config.shard is not None or tokens is None:
        return None, None
    names = [run.inputs.images.name(place) for place in read]

    def rows(numbers: Sequence[int]) -> np.ndarray:
        return tokens.rows([read[number] for number in numbers])

    try:
        return ladder_of(run.state(total), names, rows, bars, {"command": run.config.command}), None
    except EntropyCliError as error:
        return None, error


def _clean_up(run: Run) -> None:
    """Remove the saved state, unless the user named it or a merge needs it."""
    if run.config.state is not None:
        return
    if run.config.shard is None:
        run.path.unlink(missing_ok=True)
        store_path(run.path).unlink(missing_ok=True)
    else:
        logger.info("the shard's state, for entropy-cli merge: %s", run.path)
