"""The loop: whole blocks into the tally, looked at and saved on the way."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.entropy.stopping import history_point, target_reached
from entropy_cli.images.loader import worker_death_error
from entropy_cli.images.plan import Segment
from entropy_cli.streaming.batch_processor import BatchProcessor, EncodedBatch
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks

SAVE_EVERY_S = 60.0


@dataclass
class Estimation:
    """A run of the loop.

    Attributes:
        worker: of this process.
        progress: where to go on from; changed in place.
        ranks: the processes of the run.
        signals: held while the progress changes.
        save: is given the progress of all processes, in the first of them, every `save_every_s`
            seconds, when interrupted and at the end.
        flush: makes sure, in every process, that what else it writes is there before a save says so.
        save_every_s: seconds between saves.
        target: half-width at which to stop early, in nats; None reads all images.
        advance: is given the number of images that all processes together went on by.
    """

    worker: BatchProcessor
    progress: Progress
    ranks: Ranks
    signals: Signals
    save: Callable[[Progress], None] = lambda _: None
    flush: Callable[[], None] = lambda: None
    save_every_s: float = SAVE_EVERY_S
    target: float | None = None
    advance: Callable[[int], object] = lambda _: None

    def run(self, units: Iterator[EncodedBatch], legs: Sequence[Segment]) -> bool:
        """Read every unit into the progress, or as many as the target needs.

        Args:
            units: this process's, in the order of the legs.
            legs: the run in parts; the estimate is looked at after each.

        Returns:
            Whether the target was target_reached.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the progress was saved.
            EntropyCliError: what made it stop; the progress was saved, unless another process is gone.
        """
        self._saved, self._in_step = time.monotonic(), self.ranks.world == 1
        # Several processes act on a signal where they have agreed to, and break off only what concerns
        # nobody else.
        with self.signals.deferred() if self.ranks.world > 1 else contextlib.nullcontext():
            try:
                stop = any(self._leg(units, leg) for leg in legs)
                self._in_step = True
                return stop
            finally:
                if self._in_step:
                    self._save()

    def _leg(self, units: Iterator[EncodedBatch], leg: Segment) -> bool:
        """Go to the next look; whether to stop there."""
        mine = sum(bool(plan.completed_blocks) for plan in leg.plans)
        for turn in range(leg.rounds):
            failure: EntropyCliError | Interrupted | None = None
            try:
                if turn < mine:
                    with self.signals.interruptible():
                        unit = next(units)
                    with self.signals.deferred():
                        self.worker.add(unit, self.progress)
                if turn + 1 == leg.rounds:
                    self.worker.check_finite()
            except (EntropyCliError, Interrupted) as error:
                failure = error
            except RuntimeError as error:
                failure = worker_death_error(error)
                if failure is None:
                    raise
            if failure is not None and self.ranks.world == 1:
                raise failure
            self._agree(failure or self.signals.received)
        return leg.check and self._look()

    def _agree(self, failure: EntropyCliError | Interrupted | None) -> None:
        """Save if it is time, in step with the other processes; stop if any of them has to."""
        due = self.ranks.first and time.monotonic() - self._saved >= self.save_every_s
        saves, failures, images = self.ranks.all_reduce_sum(
            [due, failure is not None, self.worker.fresh]
        )
        self.worker.fresh = 0
        self.advance(images)
        if failures:
            self._in_step = True
            found = [error for error in self.ranks.all_gather(failure) if error is not None]
            raise next((error for error in found if isinstance(error, EntropyCliError)), found[0])
        if saves:
            self._save()

    def _save(self) -> None:
        with self.signals.deferred():
            try:
                self.worker.check_finite()
            except EntropyCliError:
                self.progress.changing = True
                raise
            finally:
                # If a block is half counted somewhere, what was saved before is whole.
                if not self.ranks.all_reduce_sum([self.progress.changing])[0]:
                    self.flush()
                    together = self.progress.of_all(self.ranks)
                    if self.ranks.first:
                        self.save(together)
                    self._saved = time.monotonic()

    def _look(self) -> bool:
        """Note the estimate as it is now; whether it is narrow enough."""
        progress, tally = self.progress, self.progress.tally
        assert tally is not None
        entropy_GS = self.ranks.all_reduce(tally.entropy_GST[..., 0]).cpu()
        images_G = self.ranks.all_reduce(tally.images_G).cpu()
        images = int(images_G.sum())
        if images > (progress.history[-1].images if progress.history else 0):
            progress.history.append(history_point(entropy_GS, images_G, tally.tokens_S.cpu()))
        narrow = self.target is not None and target_reached(self.target, progress.history, images_G)
        return self.ranks.broadcast_from_first(narrow)  # machines may differ in the last bit
