"""A run's images as encoded batches, in the seeded order, with unreadable ones reported."""

import contextlib
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.loader import Batch, Source, open_loader, read_batches
from entropy_cli.images.plan import BatchPlan
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.emulation import missing_instructions, warn_if_emulated
from entropy_cli.streaming.prefetch import prefetch
from entropy_cli.tokenizers.precision import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader:
    """Reads and encodes planned batches.

    Attributes:
        source: where images are read from.
        processor: encodes them.
        precision: of its encoder.
        workers: number of processes that decode; 0 decodes in this one.
        fail_at_first: whether the first unreadable image is an error.
        warns: whether to warn of a precision that this CPU only emulates.
    """

    source: Source
    processor: BatchProcessor
    precision: Precision
    workers: int
    fail_at_first: bool = False
    warns: bool = True

    def read(self, plans: Sequence[BatchPlan]) -> Generator[Batch, None, None]:
        """Read planned batches, prefetched to the processor's device."""
        if not plans:
            return
        loader = open_loader(self.source, plans, workers=self.workers)
        with contextlib.closing(prefetch(read_batches(loader), self.processor.device)) as batches:
            yield from batches

    def encode(self, plans: Sequence[BatchPlan], stack: contextlib.ExitStack) -> Iterator[Batch]:
        """Read and encode planned batches as they are consumed; unreadable images are reported.

        Args:
            plans: the batches.
            stack: closes the reading when it is left.

        Raises:
            DatasetError: an image can't be read, and the first that can't is an error.
        """
        batches = stack.enter_context(contextlib.closing(self._report_unreadable(self.read(plans))))
        return self.processor.encode(self._warn_if_emulated(batches))

    def _report_unreadable(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        with contextlib.closing(batches):
            for batch in batches:
                for path, reason in batch.failed:
                    if self.fail_at_first:
                        raise DatasetError(
                            f"{path}: can't be read: {reason}. Stopped by --on-error fail."
                        )
                    logger.warning("unreadable: %s: %s", path, reason)
                yield batch

    def _warn_if_emulated(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Time the encoder on the first image, where the CPU lacks its precision."""
        device = self.processor.device
        if not self.warns or missing_instructions(self.precision, device) is None:
            return batches
        seen = []
        for batch in batches:
            seen.append(batch)
            if batch.names:
                warn_if_emulated(self.processor.tokenizer, self.precision, device, batch.input_B)
                break
        return chain(seen, batches)
