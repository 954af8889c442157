"""The machine: devices, how many workers and images at once, memory running out, signals."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from entropy_cli.errors import EntropyCliError

MOST_WORKERS = 16
# What keeps the device busy; more only costs memory.
PIXELS_PER_BATCH = {"cpu": 4 * 256**2, "cuda": 64 * 256**2}
MOST_IMAGES_PER_BATCH = {"cpu": 16, "cuda": 256}


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; like KeyboardInterrupt not an Exception, so nothing swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the GPU where there is one.

    Raises:
        EntropyCliError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= there:
            has = ", ".join(f"cuda:{i}" for i in range(there)) or "none"
            raise EntropyCliError(
                f"--device {name}: no such device, CUDA devices here: {has}. Use --device cpu or auto."
            )
    return device


def device_name(device: torch.device) -> str:
    """The device for people: its model if it has one, its threads if it is the CPU."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def choose_batch_size(device: torch.device, image_size: int) -> int:
    """Images at once: as many pixels as keep the device busy, at least one image."""
    images = PIXELS_PER_BATCH[device.type] // image_size**2
    return max(1, min(MOST_IMAGES_PER_BATCH[device.type], images))


def choose_workers(device: torch.device) -> int:
    """Decoding processes: a few beside a CPU that computes, most cores beside a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // 4 if device.type == "cpu" else cores - 1))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a smaller batch may help."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in text for words in ("can't allocate memory", "_STATUS_ALLOC_FAILED")
    )


class Signals:
    """SIGINT and SIGTERM raise Interrupted, once, and not while state is being changed.

    Only the first raises at once: a second must not cut short the saving that the first began. If the
    exception was swallowed, as it is in a destructor, the end of the next `held` raises it again.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._held = False
        self._arrived: int | None = None

    def __enter__(self) -> "Signals":
        """Take the signals over, where Python lets us: in the main thread."""
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first, self._arrived = self._arrived is None, number
        if first and not self._held:
            raise Interrupted(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal waits; it is raised at the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._arrived is not None:
            raise Interrupted(self._arrived)
