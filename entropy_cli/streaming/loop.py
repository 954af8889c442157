"""The loop of a run: add whole blocks to the sums, and record and save the estimate on the way."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.entropy.quantity import Cluster, HistoryPoint
from entropy_cli.entropy.stopping import history_point, target_reached
from entropy_cli.images.loader import Batch, worker_death_error
from entropy_cli.images.plan import Segment
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks

SAVE_EVERY_S = 60.0


@dataclass
class Loop:
    """One process's loop over its encoded batches.

    `save` is called in the first process with the progress of all, every `save_every_s` seconds, when
    interrupted and at the end; `flush` before it in every process, to bring all else to the disk.
    """

    processor: BatchProcessor
    progress: Progress  # where to start from; changed in place
    ranks: Ranks
    signals: Signals  # held back while the progress changes
    save: Callable[[Progress], None] = lambda _: None
    flush: Callable[[], None] = lambda: None
    save_every_s: float = SAVE_EVERY_S
    cluster: Cluster = "image"  # what the groups of images keep together
    target: float | None = None  # half-width in nats at which to stop early; None reads all images
    # Called with the images that the other processes read; the first shows its own at once.
    advance: Callable[[int], object] = lambda _: None
    show: Callable[[HistoryPoint], object] = lambda _: None  # called with the estimate of all processes

    def run(self, batches: Iterator[Batch], segments: Sequence[Segment]) -> bool:
        """Add encoded batches to the progress until they end or the target is reached; return whether.

        They are this process's, in the order of the segments, after each of which the estimate is
        recorded.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the progress was saved.
            EntropyCliError: what made the loop stop; the progress was saved, unless another process is
                gone.
        """
        self._saved_at, self._in_step = time.monotonic(), self.ranks.world == 1
        # Several processes act on a signal where they have agreed to, and break off only what concerns
        # nobody else.
        with self.signals.deferred() if self.ranks.world > 1 else contextlib.nullcontext():
            try:
                stop = any(self._run_segment(batches, segment) for segment in segments)
                self._in_step = True
                return stop
            finally:
                if self._in_step:
                    self._save()

    def _run_segment(self, batches: Iterator[Batch], segment: Segment) -> bool:
        """Add a segment's batches; return whether to stop after it."""
        mine = sum(bool(plan.completed_blocks) for plan in segment.plans)
        for turn in range(segment.rounds):
            failure: EntropyCliError | Interrupted | None = None
            try:
                if turn < mine:
                    with self.signals.interruptible():
                        batch = next(batches)
                    with self.signals.deferred():
                        self.processor.add(batch, self.progress)
                if turn + 1 == segment.rounds:
                    self.processor.finish_batches()
            except (EntropyCliError, Interrupted) as error:
                failure = error
            except RuntimeError as error:
                if (failure := worker_death_error(error)) is None:
                    raise
            if failure is not None and self.ranks.world == 1:
                raise failure
            self._synchronize(failure or self.signals.received)
        return segment.check and self._record_estimate()

    def _synchronize(self, failure: EntropyCliError | Interrupted | None) -> None:
        """Save if it is time, in step with the other processes; stop if any of them has to."""
        due = self.ranks.first and time.monotonic() - self._saved_at >= self.save_every_s
        others = 0 if self.ranks.first else self.processor.unreported_images
        saves, failures, images = self.ranks.all_reduce_sum([due, failure is not None, others])
        self.processor.unreported_images = 0
        if images:
            self.advance(images)
        if failures:
            self._in_step = True
            self.ranks.raise_any(failure)
        if saves:
            self._save()

    def _save(self) -> None:
        with self.signals.deferred():
            try:
                self.processor.finish_batches()
            except EntropyCliError:
                self.progress.half_added = True
                raise
            finally:
                # If a block is half added somewhere, what was saved before is whole.
                if not self.ranks.all_reduce_sum([self.progress.half_added])[0]:
                    self.flush()
                    total = self.progress.reduce(self.ranks)
                    if self.ranks.first:
                        self.save(total)
                        self._show(total)
                    self._saved_at = time.monotonic()

    def _show(self, total: Progress) -> None:
        if total.accumulators and total.images:
            watched = (part.cpu() for part in total.accumulators[0].watched)
            entropy_GS, products_SS, images_G, tokens_S = watched
            self.show(history_point(entropy_GS, products_SS, images_G, tokens_S, self.cluster))

    def _record_estimate(self) -> bool:
        """Append the present estimate to the history; return whether it is narrow enough to stop."""
        progress = self.progress
        *sums, tokens_S = progress.accumulators[0].watched
        entropy_GS, products_SS, images_G = (self.ranks.all_reduce(part).cpu() for part in sums)
        images = int(images_G.sum())
        if images > (progress.history[-1].images if progress.history else 0):
            point = history_point(entropy_GS, products_SS, images_G, tokens_S.cpu(), self.cluster)
            progress.history.append(point)
            self.show(progress.history[-1])
        narrow = self.target is not None and target_reached(self.target, progress.history, images_G)
        return self.ranks.broadcast_from_first(narrow)  # machines may differ in the last bit
