"""The machine: devices, how many workers and images at once, memory running out."""

import contextlib
import ctypes
import os
import platform
import re
import resource
import sys
from importlib.metadata import version
from typing import Literal

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.images.plan import BLOCK
from entropy_cli.tokenizers.precision import Precision

TrainingPrecision = Literal["fp32", "fp16", "bf16"]
AMPERE = (8, 0)  # the first NVIDIA GPUs with TF32 and bfloat16

MOST_WORKERS = 16
# What keeps the device busy; more only costs memory.
PIXELS_PER_BATCH = {"cpu": 4 * 256**2, "cuda": 64 * 256**2}
MOST_IMAGES_PER_BATCH = {"cpu": 16, "cuda": 256}

# How libraries say that memory ran out, beside torch's own error. cuBLAS and cuDNN also say that they
# could not start, or found no way to compute, when no memory is left for that.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "Storage size calculation overflowed",
    "error: out of memory",
    "_STATUS_ALLOC_FAILED",
    "_ALLOCATION_FAILED",
    "_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute this computation",
)

# M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's mallopt, and values that keep freed memory.
KEEP_FREED_MEMORY = ((-4, 0), (-1, -1))


def choose_device(name: str | torch.device, local_rank: int = 0, local_world: int = 1) -> torch.device:
    """Return a device or that of a name, auto, cpu, cuda or cuda:i; "auto" is the GPU if there is one.

    Of `local_world` processes on this machine each takes the GPU of its local rank.

    Raises:
        EntropyCliError: this machine has no such device, or several processes would share it.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    is_name = isinstance(name, (str, torch.device))
    if not is_name or not re.fullmatch("auto|cpu|cuda(:[0-9]{1,2})?", str(name)):
        raise EntropyCliError(f"device {name}: expected auto, cpu, cuda or cuda:0, cuda:1, ...")
    device = torch.device(("cuda" if there else "cpu") if name == "auto" else name)
    if device.type == "cuda":
        if device.index is not None and local_world > 1:
            raise EntropyCliError(
                f"--device {device}: {local_world} processes on this machine would share it. Use "
                "--device cuda, for the GPU of its own that each has."
            )
        device = torch.device("cuda", local_rank) if device.index is None else device
        if device.index >= there:
            has = ", ".join(f"cuda:{i}" for i in range(there)) or "none"
            raise EntropyCliError(
                f"--device {device}: no such device, CUDA devices here: {has}. Use --device cpu or "
                "auto, and no more processes than GPUs."
            )
        torch.cuda.set_device(device)
    return device


def choose_precision(device: torch.device, wanted: Precision | None = None) -> Precision:
    """Return the precision of an encoder: by default a GPU's most exact fast one, float32 on a CPU.

    float16 has eight times less rounding error than bfloat16 at the same speed; a latent that leaves its
    range is an error that says so.

    Raises:
        EntropyCliError: the device does not have the precision that is wanted.
    """
    version = _capability(device)
    if wanted == "tf32" and version < AMPERE:
        other = "bf16" if device.type == "cpu" else "fp16"
        raise EntropyCliError(
            f"--precision tf32: {device} has no TF32, NVIDIA GPUs from Ampere on have. "
            f"Use fp32, or {other} where speed counts more than the last digits."
        )
    _check_bfloat16(device, wanted)
    return wanted or ("fp16" if version >= (7, 0) else "fp32")


def choose_model_precision(
    device: torch.device, wanted: Precision | None, trained_in: Precision
) -> Precision:
    """Return the precision of a generator: by default that of its training on a GPU, float32 on a CPU.

    Raises:
        EntropyCliError: the device does not have the precision that is wanted.
    """
    if wanted is None and device.type == "cuda":
        wanted = "fp16" if trained_in == "bf16" and _capability(device) < AMPERE else trained_in
    return choose_precision(device, wanted)


def choose_training_precision(
    device: torch.device, wanted: TrainingPrecision | None = None
) -> TrainingPrecision:
    """Return the precision of training: by default bfloat16 for its range, if a GPU has it.

    Raises:
        EntropyCliError: the device does not have the precision that is wanted.
    """
    _check_bfloat16(device, wanted)
    if wanted or device.type == "cpu":
        return wanted or "fp32"
    return "bf16" if _capability(device) >= AMPERE else "fp16"


def _capability(device: torch.device) -> tuple[int, int]:
    """Return the version of a GPU's abilities; (0, 0) of a CPU."""
    return (0, 0) if device.type == "cpu" else torch.cuda.get_device_capability(device)


def _check_bfloat16(device: torch.device, wanted: Precision | None) -> None:
    if wanted == "bf16" and device.type == "cuda" and _capability(device) < AMPERE:
        raise EntropyCliError(
            f"--precision bf16: {device} has no bfloat16, NVIDIA GPUs from Ampere on have. "
            "Use fp16 or fp32."
        )


def device_name(device: torch.device) -> str:
    """Describe a device: the model of a GPU, the number of threads of the CPU."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def choose_batch_size(device: torch.device, image_size: int) -> int:
    """Return a batch size that keeps the device busy: at least one image, or whole blocks."""
    images = min(MOST_IMAGES_PER_BATCH[device.type], PIXELS_PER_BATCH[device.type] // image_size**2)
    return images // BLOCK * BLOCK if images >= BLOCK else max(1, images)


def choose_workers(device: torch.device, processes: int = 1) -> int:
    """Return how many workers decode: a few beside a CPU that computes, most cores beside a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = cores // 4 if device.type == "cpu" else cores - processes
    return max(1, min(MOST_WORKERS, wanted // processes))


def versions() -> dict[str, str]:
    """Return the versions of everything that may change the last digits of the number."""
    packages = ("torch", "torchvision", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of this process; on a GPU, torch's peak allocation there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor of the CPU to a device; the program goes on while a GPU fetches it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def keep_freed_memory() -> None:
    """Let activations reuse the memory of earlier ones, where the C library is glibc.

    By default every tensor above some MB is given back to the system when it is freed, and the next one
    pays for fresh pages: a third of an encoder's time on a CPU, and beside a GPU a third of what the
    host computes for an image. For the rest of the process; what loading left is given back first.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        for parameter, value in KEEP_FREED_MEMORY:
            library.mallopt(parameter, value)


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether an error means that memory ran out, so that a smaller batch may help."""
    is_own = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_own or any(text in str(error) for text in OUT_OF_MEMORY)
