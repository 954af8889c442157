"""Where a run starts from: a saved state of the same settings, or nothing."""

import contextlib
import logging
from dataclasses import replace
from pathlib import Path

from entropy_cli.core.errors import DatasetError, EntropyCliError, StateError
from entropy_cli.images.plan import number_of_blocks
from entropy_cli.streaming import state_file
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.run_settings import RunSettings

logger = logging.getLogger(__name__)


def resume(
    path: Path,
    settings: RunSettings,
    shard: tuple[int, int] | None,
    ranks: Ranks,
    stack: contextlib.ExitStack,
    *,
    fail_at_first: bool,
) -> Progress:
    """Return the saved progress of a run of the same settings, or a fresh one.

    The first process locks and reads the file; the others get everything but the sums.

    Args:
        path: of the state, which need not be there.
        settings: of this run.
        shard: (I, N) of this run.
        ranks: the processes of the run.
        stack: releases the lock when it is left.
        fail_at_first: whether an unreadable image that was saved is an error.

    Raises:
        StateError: the state is in use, damaged, or of another run.
        DatasetError: an image could not be read and `fail_at_first`.
    """
    progress: Progress | EntropyCliError | None = None
    if ranks.first:
        try:
            stack.enter_context(state_file.locked(path))
            progress = _load(path, settings, shard)
            if progress.failed and fail_at_first:
                name, reason = progress.failed[0]
                raise DatasetError(f"{name}: could not be read: {reason}. Stopped by --on-error fail.")
        except EntropyCliError as error:
            progress = error
    shared = replace(progress, accumulators={}) if isinstance(progress, Progress) else progress
    without_sums = ranks.raise_or_broadcast(shared)
    if isinstance(progress, Progress):
        return progress
    assert without_sums is not None
    return replace(without_sums, images=0, failed=[])


def _load(path: Path, settings: RunSettings, shard: tuple[int, int] | None) -> Progress:
    if not path.exists():
        return Progress.start(number_of_blocks(settings.images))
    saved = state_file.load(path)
    state_file.check_same(path, saved.settings, settings)
    if saved.shard != shard:
        was, now = (f"shard {s[0]}/{s[1]}" if s else "all" for s in (saved.shard, shard))
        raise StateError(
            f"{path}: was saved for {was} of the images, this run is for {now}. Give another --state."
        )
    logger.info(
        "resuming from %d of %d images, saved in %s", saved.progress.images, settings.images, path
    )
    return saved.progress
