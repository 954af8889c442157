"""A roofline: the least work of a call, and the measured peak of a device."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# Names at both dispatch levels: inference mode shows the upper, no_grad the lower.
PRODUCTS = ("conv2d", "convolution", "linear", "matmul", "addmm", "mm", "bmm", "baddbmm")
MEASURE_S = 1.0


@dataclass(frozen=True)
class Work:
    """The least work of a call.

    Attributes:
        flop: floating-point operations of products and convolutions, 2 for a multiply-add.
        traffic: bytes read and written if each product reads its factors once and writes its result
            once, with all other operations fused.
    """

    flop: float
    traffic: float


@dataclass(frozen=True)
class Peak:
    """The measured peak of a device: FLOP and bytes per second."""

    flop_per_s: float
    bytes_per_s: float

    def least_seconds(self, work: Work) -> float:
        """Return the least time for some work, in seconds."""
        return max(work.flop / self.flop_per_s, work.traffic / self.bytes_per_s)


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that products read and write."""

    traffic = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an aten operator
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call the operator and add the bytes of its tensors."""
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in PRODUCTS:
            tensors = [t for t in (*args, out) if isinstance(t, Tensor)]
            self.traffic += sum(t.numel() * t.element_size() for t in tensors)
        return out


@torch.no_grad()
def count_work(call: Callable[[], object]) -> Work:
    """Count the FLOP and the memory traffic of a call."""
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:  # type: ignore[no-untyped-call]
        call()
    return Work(float(flops.get_total_flops()), float(traffic.traffic))


@torch.no_grad()
def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Measure a device's peak: the best of large products and convolutions, and a large copy."""
    size = 2048 if device.type == "cpu" else 8192
    side = 64 if device.type == "cpu" else 128
    batch = 1 if device.type == "cpu" else 32
    factor = torch.randn(size, size, dtype=dtype, device=device)
    x_BCHW = torch.randn(batch, 256, side, side, dtype=dtype, device=device)
    kernel = torch.randn(256, 256, 3, 3, dtype=dtype, device=device)
    x_BCHW, kernel = (t.to(memory_format=torch.channels_last) for t in (x_BCHW, kernel))
    calls: list[tuple[float, Callable[[], object]]] = [
        (2.0 * size**3, lambda: factor @ factor),
        (2.0 * batch * side**2 * 256**2 * 9, lambda: functional.conv2d(x_BCHW, kernel, padding=1)),
    ]
    flop_per_s = max(flop / fastest(call, device) for flop, call in calls)
    source = torch.empty(2**28 if device.type == "cpu" else 2**31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Peak(flop_per_s, 2 * source.numel() / fastest(lambda: target.copy_(source), device))


def fastest(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest call within MEASURE_S, after one warm-up call."""
    best, end = float("inf"), time.perf_counter() + MEASURE_S
    call()
    while best == float("inf") or time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def synchronize(device: torch.device) -> None:
    """Wait for all work on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
