"""The main job from a request to a result: what `estimate` and `demo` both run."""

import contextlib
import logging
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from entropy_cli.commands.estimate.build_result import build_result
from entropy_cli.commands.estimate.config import EstimateConfig
from entropy_cli.commands.estimate.job import Job, prepare
from entropy_cli.commands.estimate.run import Run
from entropy_cli.core.errors import DatasetError, EntropyCliError, StateError
from entropy_cli.core.progress_bars import Bars, no_bars
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.images.plan import BLOCK, number_of_blocks
from entropy_cli.results.schema import Result
from entropy_cli.streaming import state
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import join
from entropy_cli.streaming.token_file import TokenStore, store_path

logger = logging.getLogger(__name__)


class Counts(NamedTuple):
    """How many images a run could read, and how many not."""

    used: int
    failed: int


def estimate(config: EstimateConfig, bars: Bars, deliver: Callable[[Result], object]) -> Counts:
    """Estimate, or go on with an estimate that was interrupted.

    Args:
        config: what and how.
        bars: makes progress bars.
        deliver: is given the result before the saved state is removed, in the first process only; not
            called for a shard without a single readable image.

    Raises:
        EntropyCliError: anything the user can mend; what was computed is saved.
    """
    with Signals() as signals, join() as ranks, contextlib.ExitStack() as stack:
        bars = bars if ranks.first else no_bars
        job = prepare(config, bars, ranks)
        path = config.state or state.default_path(state.settings_fingerprint(job.settings), config.shard)
        run = Run(job, _resume(path, job, stack), path, bars, signals)
        run.tokens = _tokens(path, run, stack)
        try:
            run.accumulate()
        except Interrupted as error:
            error.saved = path.exists()
            raise
        counts = ranks.broadcast_from_first(Counts(run.together.images, len(run.together.failed)))
        if ranks.first:
            _finish(run, deliver, bars)
        return counts


def _resume(path: Path, job: Job, stack: contextlib.ExitStack) -> Progress:
    """The progress saved by an earlier run of the same settings, or a fresh one; the first locks it.

    The other processes get all of it but the sums.
    """
    progress: Progress | EntropyCliError | None = None
    if job.ranks.first:
        try:
            stack.enter_context(state.locked(path))
            progress = _load(path, job)
        except EntropyCliError as error:
            progress = error
    shared = replace(progress, accumulators={}) if isinstance(progress, Progress) else progress
    without_sums = job.ranks.raise_or_broadcast(shared)
    if isinstance(progress, Progress):
        return progress
    assert without_sums is not None
    return replace(without_sums, images=0, failed=[])


def _load(path: Path, job: Job) -> Progress:
    images = len(job.images)
    if not path.exists():
        return Progress.start(number_of_blocks(images))
    saved = state.load(path)
    state.check_same(path, saved.settings, job.settings)
    if saved.shard != job.config.shard:
        was, now = (f"shard {s[0]}/{s[1]}" if s else "all" for s in (saved.shard, job.config.shard))
        raise StateError(
            f"{path}: was saved for {was} of the images, this run is for {now}. Give another --state."
        )
    progress = saved.progress
    if progress.failed and job.config.fail_at_first:
        name, reason = progress.failed[0]
        raise DatasetError(f"{name}: could not be read: {reason}. Stopped by --on-error fail.")
    logger.info("going on from %d of %d images, saved in %s", progress.images, images, path)
    return progress


def _tokens(path: Path, run: Run, stack: contextlib.ExitStack) -> TokenStore | None:
    """Where hard tokens are kept, open in all processes; the first makes it."""
    job, done = run.job, run.progress.blocks_done
    if job.config.tokens is None:
        if job.ranks.first and not done[job.blocks.start :: job.blocks.step].all():
            store_path(path).unlink(missing_ok=True)  # an earlier part's, which would now have gaps
        return None
    spec = job.tokenizer.spec
    tokens = sum(scale.tokens for scale in spec.scales)
    store = TokenStore(path, len(job.images), tokens, spec.vocab_size)
    stack.callback(store.close)
    begun = bool(done.any())
    job.ranks.raise_or_broadcast(
        _failure(lambda: store.create(begun=begun)) if job.ranks.first else None
    )
    for failure in filter(None, job.ranks.all_gather(_failure(store.open))):
        raise failure
    return store


def _failure(step: Callable[[], None]) -> EntropyCliError | None:
    """What a step raises, for all processes to raise together."""
    try:
        step()
    except EntropyCliError as error:
        return error
    return None


def _deliver_tokens(run: Run, bars: Bars) -> None:
    """Write the tokens of the images that were read, in the seeded order, and their paths."""
    config, images = run.job.config, run.job.images
    if run.tokens is None or config.tokens is None:
        return
    done, failed = run.together.blocks_done.tolist(), {name for name, _ in run.together.failed}
    with bars("writing tokens", len(images), "img") as bar:
        read = array("q")
        for place in range(len(images)):
            if done[place // BLOCK] and images.name(place) not in failed:
                read.append(place)
            bar.update(1)
        run.tokens.deliver(config.tokens, read, (images.name(place) for place in read))


def _finish(run: Run, deliver: Callable[[Result], object], bars: Bars) -> None:
    """Deliver the result, and keep the state only if somebody may want it."""
    config, shard = run.job.config, run.job.config.shard
    if shard is None or run.together.images:
        saved, provenance = run.job.saved(run.together), {"command": config.command, **run.machine}
        provenance |= {"target_ci": config.target, "shard": shard, "limit": config.limit}
        deliver(build_result(saved, target_reached=run.reached, provenance=provenance))
    else:
        logger.warning(
            "shard %d/%d has %s: no result, a state without sums for the merge",
            *shard,
            "no image that could be read" if run.job.blocks else "no images, for want of blocks of 16",
        )
    _deliver_tokens(run, bars)
    if config.state is None and shard is None:
        run.path.unlink(missing_ok=True)
        store_path(run.path).unlink(missing_ok=True)
    elif config.state is None:
        logger.info("the shard's state, for entropy-cli merge: %s", run.path)
