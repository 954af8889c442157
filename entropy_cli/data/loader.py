"""Batches of cropped pictures, decoded by worker processes ahead of the model."""

import contextlib
import ctypes
import io
import multiprocessing
import re
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from entropy_cli.data.images import ImageSet
from entropy_cli.data.plan import BatchPlan
from entropy_cli.data.tar_file import TarPicture
from entropy_cli.errors import DatasetError

PARENT_GRACE_S = 30
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Batch:
    """Some images of one or several blocks.

    Attributes:
        img_B3HW: uint8 in channels_last, the readable ones; B may be 0.
        group_B: jackknife group of each.
        names: relative path of each.
        failed: relative path and reason of the unreadable ones.
        completes: the blocks of which this batch is the last part.
    """

    img_B3HW: Tensor
    group_B: Tensor
    names: list[str]
    failed: list[tuple[str, str]]
    completes: tuple[int, ...]


Loader = DataLoader[Any]


def open_loader(
    images: ImageSet,
    plans: Sequence[BatchPlan],
    crop: Callable[[Image.Image], Image.Image],
    *,
    workers: int,
    persistent: bool = False,
) -> Loader:
    """What `read_batches` reads from: decodes, crops and stacks the planned batches.

    Args:
        images: where the indices of the plans point.
        plans: the batches to make.
        crop: from a picture as PIL opened it, of any mode, to an RGB one of the tokenizer's size.
        workers: processes that decode; 0 decodes in this one.
        persistent: keep the processes for another reading.
    """
    return DataLoader(
        _Pictures(images, plans, crop),
        batch_size=None,  # an item is a batch
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_parent,
        prefetch_factor=2 if workers else None,
        multiprocessing_context=_context() if workers else None,
        persistent_workers=persistent and workers > 0,
    )


def death_of_worker(error: RuntimeError) -> DatasetError | None:
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
            if (death := death_of_worker(error)) is None:
                raise
            raise death from error
        if item is None:
            return
        pictures, groups, names, failed, completes = item
        yield Batch(
            torch.from_numpy(pictures).permute(0, 3, 1, 2),
            torch.tensor(groups, dtype=torch.int64),
            names,
            failed,
            completes,
        )


# A batch on its way from a worker: an array, not a tensor, because tensors travel through shared memory,
# of which a container may have next to none, and a worker that finds none hangs.
_Packed = tuple[np.ndarray, list[int], list[str], list[tuple[str, str]], tuple[int, ...]]


def _as_it_is(item: Any) -> Any:  # noqa: ANN401 - a _Packed, but torch types this for lists
    return item


class _Pictures(Dataset[_Packed]):
    """A dataset whose items are whole batches."""

    def __init__(
        self,
        images: ImageSet,
        plans: Sequence[BatchPlan],
        crop: Callable[[Image.Image], Image.Image],
    ) -> None:
        self.images, self.plans, self.crop = images, plans, crop

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, item: int) -> _Packed:
        pictures, groups, names, failed = [], [], [], []
        for index in self.plans[item]:
            path = self.images.files[index].path
            picture = read_picture(self.images.picture(index), self.crop)
            if isinstance(picture, str):
                failed.append((path, picture))
                continue
            pictures.append(picture.permute(1, 2, 0).numpy())
            groups.append(self.images.group(index))
            names.append(path)
        stacked = np.stack(pictures) if pictures else np.empty((0, 0, 0, 3), np.uint8)
        return stacked, groups, names, failed, self.plans[item].completes


def read_picture(source: Path | TarPicture, crop: Callable[[Image.Image], Image.Image]) -> Tensor | str:
    """One picture, made RGB and cropped by the crop, uint8 (3, H, W); or why it can't be read."""
    file: Any = source
    try:
        with warnings.catch_warnings():
            # Large but legal, odd EXIF, palettes with transparency: PIL decodes them, we take it.
            warnings.simplefilter("ignore")
            if isinstance(source, TarPicture):
                file = io.BytesIO(source.read())
            elif not stat.S_ISREG(source.stat().st_mode):
                return "not an ordinary file"
            with Image.open(file) as picture:
                cropped = np.array(crop(picture))  # a copy, that torch may write to
                return torch.from_numpy(cropped).permute(2, 0, 1)
    except DatasetError as error:
        return str(error)
    except MemoryError:
        return "not enough memory to decode it"
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        named = str(file) if isinstance(file, Path) else file  # as PIL names it
        return f"{type(error).__name__}: {error}".replace(f" {named!r}", "").splitlines()[0]


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
