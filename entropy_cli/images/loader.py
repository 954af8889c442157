"""Batches of cropped images or of latents, read by worker processes ahead of the model."""

import contextlib
import ctypes
import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import is_out_of_handles
from entropy_cli.core.signals import Signals, blocked
from entropy_cli.images.plan import BatchPlan

# Advice that only the command line can follow.
FEWER_WORKERS = "Run the same command again with fewer --workers, or --workers 0: it resumes from here."
NO_WORKERS = "Run the same command again with --workers 0."
PARENT_GRACE_S = 30  # how long after a SIGTERM a worker waits for its parent to stop it
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Batch:
    """The readable images, or latents, of one or several blocks.

    `input_B` are images (B, 3, H, W), uint8 in channels_last, or latents (B, X), float32; B may be 0.
    Once encoded they are latents rest_BChw, filled up at the end if the batch was.
    """

    input_B: Tensor
    group_B: Tensor  # jackknife group of each
    names: list[str]  # relative path of each
    places: list[int]  # index of each in the seeded order
    failed: list[tuple[str, str]]  # relative path and reason for each unreadable image
    completed_blocks: tuple[int, ...]  # that end with this batch
    digests: list[int] = field(default_factory=list)  # of the content of each; empty where unknown


def joined(parts: list[Batch]) -> Batch:
    """Join the batches of one block."""
    if len(parts) == 1:
        return parts[0]
    inputs = [part.input_B for part in parts if part.names]
    return Batch(
        torch.cat(inputs) if inputs else torch.empty(0),
        torch.cat([part.group_B for part in parts]),
        [name for part in parts for name in part.names],
        [place for part in parts for place in part.places],
        [failed for part in parts for failed in part.failed],
        parts[-1].completed_blocks,
        [digest for part in parts for digest in part.digests],
    )


Loader = DataLoader[Any]


class Source(Protocol):
    """A picklable source of inputs, which are indexed in the seeded order."""

    def name(self, index: int) -> str:
        """Return the relative path, or the name, of an input."""

    def group(self, index: int) -> int:
        """Return the jackknife group of an input."""

    def read(self, index: int) -> np.ndarray | str:
        """Return an image (H, W, 3), latents (X,), or why the input can't be read."""


def open_loader(
    source: Source, plans: Sequence[BatchPlan], *, workers: int, persistent: bool = False
) -> Loader:
    """Open a loader for `read_batches` that reads and stacks the planned batches of a source.

    Without workers this process reads; there are no more of them than batches. `persistent` keeps them
    for another pass.
    """
    workers = min(workers, len(plans))
    return DataLoader(
        _Batches(source, plans),
        batch_size=None,  # an item is a batch
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=leave_signals_to_parent,
        prefetch_factor=2 if workers else None,
        # Forked workers start at once, but only Linux forks safely.
        multiprocessing_context=("fork" if sys.platform == "linux" else "spawn") if workers else None,
        persistent_workers=persistent and workers > 0,
    )


def worker_death_error(error: RuntimeError) -> DatasetError | None:
    """Return the error to raise if torch's error means that a worker died, else None."""
    if not re.search("worker.*(exited unexpectedly|killed by signal)", str(error)):
        return None
    return DatasetError(
        f"a worker process that decodes images died, perhaps out of memory. {FEWER_WORKERS}"
    )


def read_batches(loader: Loader) -> Generator[Batch, None, None]:
    """Iterate over all batches in order; the workers start at once, in the calling thread.

    Raises:
        DatasetError: the workers can't be started, or one died, or they can't open files any more.
    """
    try:
        with blocked():  # until a worker has handlers of its own
            iterator = iter(loader)
    except (OSError, RuntimeError, ImportError) as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(half_started := frame.f_locals.get("self"), _MultiProcessingDataLoaderIter):
                half_started._shutdown = True  # or it would fail again when it is deleted
        raise DatasetError(
            "the processes that decode images can't be started: "
            f"{getattr(error, 'strerror', None) or error}. They need file handles (ulimit -n) and "
            f"shared memory (/dev/shm). {NO_WORKERS}"
        ) from error
    return _batches(iterator)


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
        if isinstance(item, str):
            raise DatasetError(item)
        stacked, groups, *others = item
        input_B = torch.from_numpy(stacked)
        input_B = input_B.permute(0, 3, 1, 2) if input_B.ndim == 4 else input_B
        yield Batch(input_B, torch.tensor(groups, dtype=torch.int64), *others)


# A batch as a worker sends it: an array, not a tensor, because tensors are sent through shared memory;
# containers may have next to none, and a worker that gets none hangs.
_WorkerBatch = tuple[
    np.ndarray, list[int], list[str], list[int], list[tuple[str, str]], tuple[int, ...], list[int]
]


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - whatever a worker sends
    return batch


class _Batches(Dataset["_WorkerBatch | str"]):
    """A dataset whose items are whole batches, or why one can't be read."""

    def __init__(self, source: Source, plans: Sequence[BatchPlan]) -> None:
        self.source, self.plans = source, plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, item: int) -> _WorkerBatch | str:
        try:
            return self._read(item)
        except OSError as error:
            if not is_out_of_handles(error):
                raise
            return (
                f"{error.strerror}: images can't be read any more. Allow more file handles (ulimit -n). "
                f"{NO_WORKERS}"
            )

    def _read(self, item: int) -> _WorkerBatch:
        arrays, groups, names, places, failed, digests = [], [], [], [], [], []
        for index in self.plans[item]:
            name, array = self.source.name(index), self.source.read(index)
            if isinstance(array, str):
                failed.append((name, array))
                continue
            arrays.append(array)
            groups.append(self.source.group(index))
            names.append(name)
            places.append(index)
            digests.append(digest(array))
        stacked = np.stack(arrays) if arrays else np.empty((0, 0, 0, 3), np.uint8)
        return stacked, groups, names, places, failed, self.plans[item].completed_blocks, digests


def digest(array: np.ndarray) -> int:
    """Return a number that arrays of different content share with a probability of about 2^-63.

    It is a sum of the content's words with fixed random weights, modulo 2^64, which costs a small part
    of what decoding costs; it is not meant to resist somebody who wants two images to look repeated.
    """
    content = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    if len(content) % 8:
        content = np.concatenate([content, np.zeros(-len(content) % 8, np.uint8)])
    word_N = content.view(np.uint64)
    return int((word_N * _weights(len(word_N))).sum(dtype=np.uint64).view(np.int64))


@functools.cache
def _weights(words: int) -> np.ndarray:
    return np.random.default_rng(0).integers(2**64, size=words, dtype=np.uint64) | np.uint64(1)


def leave_signals_to_parent(_worker: int) -> None:
    """Ignore the signals that the parent handles: it stops the workers once it has saved.

    Ctrl-C and a job's SIGTERM reach workers too. A SIGTERM ends a worker only after a while, if the
    parent has not done so. Where the kernel supports it the parent's death ends a worker at once: one
    that waits to hand over a batch never notices it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PARENT_GRACE_S))
    # A worker killed by its alarm would raise in a parent that is about to end.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, Signals.NUMBERS)
