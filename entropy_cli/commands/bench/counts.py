"""The least work a tokenizer can do for an image, and the most a device can do in a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# By the names of both dispatch levels: inference mode shows the upper, no_grad the lower.
PRODUCTS = ("conv2d", "convolution", "linear", "matmul", "addmm", "mm", "bmm", "baddbmm")
MEASURE_S = 1.0


@dataclass(frozen=True)
class Work:
    """What an image costs at least.

    Attributes:
        flop: floating-point operations of products and convolutions, 2 for a multiply-add.
        traffic: bytes, if each product reads its factors once and writes its result once, and all else
            happens on the way.
    """

    flop: float
    traffic: float


@dataclass(frozen=True)
class Peak:
    """What a device can do, measured: FLOP and bytes a second."""

    flop_per_s: float
    bytes_per_s: float

    def floor(self, work: Work) -> float:
        """The least seconds that the work takes."""
        return max(work.flop / self.flop_per_s, work.traffic / self.bytes_per_s)


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes that go into and come out of products."""

    traffic = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an aten operator
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call the operator and look at what went in and came out."""
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in PRODUCTS:
            tensors = [t for t in (*args, out) if isinstance(t, Tensor)]
            self.traffic += sum(t.numel() * t.element_size() for t in tensors)
        return out


@torch.no_grad()
def count(work: Callable[[], object]) -> Work:
    """Count what a call does."""
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:  # type: ignore[no-untyped-call]
        work()
    return Work(float(flops.get_total_flops()), float(traffic.traffic))


@torch.no_grad()
def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Try large products and convolutions and a large copy; the best of each."""
    size = 2048 if device.type == "cpu" else 8192
    side = 64 if device.type == "cpu" else 128
    batch = 1 if device.type == "cpu" else 32
    factor = torch.randn(size, size, dtype=dtype, device=device)
    picture = torch.randn(batch, 256, side, side, dtype=dtype, device=device)
    kernel = torch.randn(256, 256, 3, 3, dtype=dtype, device=device)
    picture, kernel = (t.to(memory_format=torch.channels_last) for t in (picture, kernel))
    tries: list[tuple[float, Callable[[], object]]] = [
        (2.0 * size**3, lambda: factor @ factor),
        (2.0 * batch * side**2 * 256**2 * 9, lambda: functional.conv2d(picture, kernel, padding=1)),
    ]
    flop_per_s = max(flop / fastest(call, device) for flop, call in tries)
    source = torch.empty(2**28 if device.type == "cpu" else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Peak(flop_per_s, 2 * source.numel() / fastest(lambda: target.copy_(source), device))


def fastest(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of the calls that fit in a while, at least one after a first."""
    best, end = float("inf"), time.perf_counter() + MEASURE_S
    call()
    while best == float("inf") or time.perf_counter() < end:
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
