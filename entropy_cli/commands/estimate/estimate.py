"""The main job, from a config to a result: what `estimate` and `demo` both run."""

import contextlib
import logging
from array import array
from collections.abc import Callable
from typing import NamedTuple

from entropy_cli.commands.estimate.accumulate import Accumulated, accumulate
from entropy_cli.commands.estimate.build_result import build_result
from entropy_cli.commands.estimate.config import EstimateConfig
from entropy_cli.commands.estimate.run import Run, open_run
from entropy_cli.core.progress_bars import Bars, no_bars
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.images.plan import BLOCK
from entropy_cli.results.schema import Result
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import join, work_of
from entropy_cli.streaming.state_file import resume
from entropy_cli.streaming.token_file import TokenStore, open_token_store, store_path

logger = logging.getLogger(__name__)


class ImageCounts(NamedTuple):
    """The numbers of images that a run could read, and could not."""

    used: int
    failed: int


def estimate(config: EstimateConfig, bars: Bars, deliver: Callable[[Result], object]) -> ImageCounts:
    """Estimate, or resume an estimate that was interrupted.

    Args:
        config: what to estimate, and how.
        bars: makes progress bars.
        deliver: called with the result before the saved state is removed, in the first process only; not
            called for a shard without a single readable image.

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
        except Interrupted as error:
            error.saved = run.path.exists()
            raise
        counts = ranks.broadcast_from_first(ImageCounts(done.total.images, len(done.total.failed)))
        if ranks.first:
            _deliver_result(run, done, deliver)
            _deliver_tokens(run, done.total, tokens, bars)
            if done.unsaved is not None and (config.state or config.shard) is not None:
                raise done.unsaved
            _clean_up(run)
        return counts


def _open_tokens(run: Run, progress: Progress, stack: contextlib.ExitStack) -> TokenStore | None:
    """Open the file that keeps hard tokens; without --save-tokens remove one that would have gaps."""
    done, spec = progress.blocks_done, run.inputs.tokenizer.spec
    if run.config.tokens is None:
        if run.ranks.first and not done[run.blocks.start :: run.blocks.step].all():
            store_path(run.path).unlink(missing_ok=True)
        return None
    tokens = sum(scale.tokens for scale in spec.scales)
    store = TokenStore(run.path, run.settings.images, tokens, spec.vocab_size)
    open_token_store(store, run.ranks, resumed=bool(done.any()))
    stack.callback(store.close)
    return store


def _deliver_result(run: Run, done: Accumulated, deliver: Callable[[Result], object]) -> None:
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
    state = run.state(done.total)
    deliver(build_result(state, target_reached=done.target_reached, provenance=provenance))


def _deliver_tokens(run: Run, total: Progress, tokens: TokenStore | None, bars: Bars) -> None:
    """Write the tokens of the images that were read, in the seeded order, and their paths."""
    if tokens is None or run.config.tokens is None:
        return
    images = run.inputs.images
    done, failed = total.blocks_done.tolist(), {name for name, _ in total.failed}
    with bars("writing tokens", len(images), "img") as bar:
        read = array("q")
        for place in range(len(images)):
            if done[place // BLOCK] and images.name(place) not in failed:
                read.append(place)
            bar.update(1)
        tokens.deliver(run.config.tokens, read, (images.name(place) for place in read))


def _clean_up(run: Run) -> None:
    """Remove the saved state, unless the user named it or a merge needs it."""
    if run.config.state is not None:
        return
    if run.config.shard is None:
        run.path.unlink(missing_ok=True)
        store_path(run.path).unlink(missing_ok=True)
    else:
        logger.info("the shard's state, for entropy-cli merge: %s", run.path)
