"""Batches of cropped pictures or of latents, read by worker processes ahead of the model."""

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.plan import BatchPlan

PARENT_GRACE_S = 30
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Batch:
    """Some images of one or several blocks.

    Attributes:
        input_B: pictures (B, 3, H, W), uint8 in channels_last, or latents (B, X), float32; the readable
            ones; B may be 0.
        group_B: jackknife group of each.
        names: relative path of each.
        places: of each in the seeded order.
        failed: relative path and reason of the unreadable ones.
        completed_blocks: the blocks of which this batch is the last part.
    """

    input_B: Tensor
    group_B: Tensor
    names: list[str]
    places: list[int]
    failed: list[tuple[str, str]]
    completed_blocks: tuple[int, ...]


Loader = DataLoader[Any]


class Source(Protocol):
    """Where inputs are read from, by their place in the seeded order; picklable."""

    def name(self, index: int) -> str:
        """Relative path, or what stands for it."""
        ...

    def group(self, index: int) -> int:
        """Jackknife group."""
        ...

    def read(self, index: int) -> np.ndarray | str:
        """A picture (H, W, 3), latents (X,), or why it can't be read."""
        ...


def open_loader(
    source: Source, plans: Sequence[BatchPlan], *, workers: int, persistent: bool = False
) -> Loader:
    """What `read_batches` reads from: reads and stacks the planned batches.

    Args:
        source: where the indices of the plans point.
        plans: the batches to make.
        workers: processes that read; 0 reads in this one.
        persistent: keep the processes for another reading.
    """
    return DataLoader(
        _Batches(source, plans),
        batch_size=None,  # an item is a batch
        collate_fn=_identity,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_parent,
        prefetch_factor=2 if workers else None,
        multiprocessing_context=_context() if workers else None,
        persistent_workers=persistent and workers > 0,
    )


def worker_death_error(error: RuntimeError) -> DatasetError | None:
    """What to say of an error if it is that a worker died; torch raises it wherever the program is."""
    if not re.search("worker.*(exited unexpectedly|killed by signal)", str(error)):
        return None
    return DatasetError(
        "a process that decodes images died, perhaps for want of memory. "
        "Run the same command again with fewer --workers: it goes on from here."
    )


def read_batches(loader: Loader) -> Generator[Batch, None, None]:
    """All batches, in order; the workers start at once, and in the thread that calls this.

    Raises:
        DatasetError: a worker process died.
    """
    return _batches(iter(loader))


def _batches(iterator: Iterator[Any]) -> Generator[Batch, None, None]:
    while True:
        try:
            item = next(iterator, None)
        except RuntimeError as error:
            if (death := worker_death_error(error)) is None:
                raise
            raise death from error
        if item is None:
            return
        stacked, groups, names, places, failed, completed_blocks = item
        input_B = torch.from_numpy(stacked)
        yield Batch(
            input_B.permute(0, 3, 1, 2) if input_B.ndim == 4 else input_B,
            torch.tensor(groups, dtype=torch.int64),
            names,
            places,
            failed,
            completed_blocks,
        )


# A batch on its way from a worker: an array, not a tensor, because tensors travel through shared memory,
# of which a container may have next to none, and a worker that finds none hangs.
_WorkerBatch = tuple[np.ndarray, list[int], list[str], list[int], list[tuple[str, str]], tuple[int, ...]]


def _identity(item: Any) -> Any:  # noqa: ANN401 - a _WorkerBatch, but torch types this for lists
    return item


class _Batches(Dataset[_WorkerBatch]):
    """A dataset whose items are whole batches."""

    def __init__(self, source: Source, plans: Sequence[BatchPlan]) -> None:
        self.source, self.plans = source, plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, item: int) -> _WorkerBatch:
        read, groups, names, places, failed = [], [], [], [], []
        for index in self.plans[item]:
            name, found = self.source.name(index), self.source.read(index)
            if isinstance(found, str):
                failed.append((name, found))
                continue
            read.append(found)
            groups.append(self.source.group(index))
            names.append(name)
            places.append(index)
        stacked = np.stack(read) if read else np.empty((0, 0, 0, 3), np.uint8)
        return stacked, groups, names, places, failed, self.plans[item].completed_blocks


def _context() -> str:
    """Forked workers start at once; elsewhere than on Linux forking is not safe."""
    methods = multiprocessing.get_all_start_methods()
    return "fork" if "fork" in methods and sys.platform == "linux" else "spawn"


def _leave_signals_to_parent(_worker: int) -> None:
    """Ctrl-C and a job's SIGTERM reach workers too, but the parent stops them when it has saved.

    A SIGTERM still ends a worker, after a while, if the parent does not; and the parent's death does at
    once where the kernel can be asked for it: a worker that waits to hand over a batch never notices.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PARENT_GRACE_S))
    # A worker that an alarm kills would raise in a parent that is about to end.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
