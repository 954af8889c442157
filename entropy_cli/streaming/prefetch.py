"""Prepare batches ahead of their use, in a thread."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch

from entropy_cli.images.loader import Batch

SLOTS = 3  # batches that are ready or being made ready
Item = TypeVar("Item")
Ready = TypeVar("Ready")


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
        torch.cuda.set_device(
            device
        )  # a thread starts on the first GPU, and would leave a context there
        with torch.cuda.stream(stream):
            pinned_B = batch.input_B.pin_memory()
            sent = replace(batch, input_B=pinned_B.to(device, non_blocking=True))
            return sent, stream.record_event()

    with contextlib.closing(ahead(batches, send)) as ready:
        for batch, copied in ready:
            current = torch.cuda.current_stream(device)
            current.wait_event(copied)
            batch.input_B.record_stream(current)  # its memory is the copying stream's
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
