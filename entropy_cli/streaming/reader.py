"""A run's images as encoded batches, in the seeded order, with unreadable ones reported."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import torch

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.loader import Batch, Source, open_loader, read_batches
from entropy_cli.images.plan import BatchPlan
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.emulation import missing_instructions, warn_if_emulated
from entropy_cli.tokenizers.precision import Precision

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Ready = TypeVar("Ready")

SLOTS = 3  # batches that are ready or being made ready


@dataclass(frozen=True)
class Reader:
    """Reads and encodes planned batches."""

    source: Source
    processor: BatchProcessor
    precision: Precision  # of its encoder
    workers: int  # processes that decode; 0 decodes in this one
    fail_at_first: bool = False  # whether the first unreadable image is an error
    warns: bool = True  # of a precision that this CPU only emulates

    def read(self, plans: Sequence[BatchPlan]) -> Generator[Batch, None, None]:
        """Read planned batches, prefetched to the processor's device."""
        if not plans:
            return
        loader = open_loader(self.source, plans, workers=self.workers)
        with contextlib.closing(prefetch(read_batches(loader), self.processor.device)) as batches:
            yield from batches

    def encode(self, plans: Sequence[BatchPlan], stack: contextlib.ExitStack) -> Iterator[Batch]:
        """Read and encode planned batches as they are consumed; unreadable images are reported.

        The reading ends when the stack is left.

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
        seen, device = [], self.processor.device
        for batch in batches if self.warns and missing_instructions(self.precision, device) else ():
            seen.append(batch)
            if batch.names:
                warn_if_emulated(self.processor.tokenizer, self.precision, device, batch.input_B)
                break
        return chain(seen, batches)


def prefetch(
    batches: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """Yield batches on the device; copies to a GPU run beside its work."""
    if device.type != "cuda":
        with contextlib.closing(batches):
            yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        torch.cuda.set_device(device)  # a thread starts on the first GPU, and leaves a context there
        with torch.cuda.stream(stream):
            input_B, group_B = (
                on_host_B.pin_memory().to(device, non_blocking=True)
                for on_host_B in (batch.input_B, batch.group_B)
            )
            return replace(batch, input_B=input_B, group_B=group_B), stream.record_event()

    with contextlib.closing(ahead(batches, send)) as ready:
        for batch, copied in ready:
            current = torch.cuda.current_stream(device)
            current.wait_event(copied)
            for sent_B in (batch.input_B, batch.group_B):
                sent_B.record_stream(current)  # its memory is the copying stream's
            yield batch


def ahead(
    items: Generator[Item, None, None], prepare: Callable[[Item], Ready]
) -> Generator[Ready, None, None]:
    """Prepare items in a thread, a few ahead; raise here what is raised there."""

    def make() -> list[Ready]:
        return [prepare(item) for item in (next(items, None),) if item is not None]

    with contextlib.closing(items), ThreadPoolExecutor(1, "prefetch") as thread:
        waiting = deque(thread.submit(make) for _ in range(SLOTS))
        try:
            while ready := waiting.popleft().result():
                waiting.append(thread.submit(make))
                yield ready[0]
        finally:
            for future in waiting:
                future.cancel()
