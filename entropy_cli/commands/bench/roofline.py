"""A roofline: the least work of a call, and the measured peak of a device."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from entropy_cli.commands.bench.result import Peak, Work
from entropy_cli.tokenizers.base import TokenizerSpec

# Names at both dispatch levels: inference mode shows the upper, no_grad the lower.
PRODUCTS = ("conv2d", "convolution", "linear", "matmul", "addmm", "mm", "bmm", "baddbmm")
MEASURE_S = 1.0


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that products read and write."""

    traffic = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Call the operator and add the bytes of its tensors."""
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in PRODUCTS:
            self.traffic += sum(t.nbytes for t in (*args, out) if isinstance(t, Tensor))
        return out


@torch.no_grad()
def count_work(call: Callable[[], object]) -> Work:
    """Count the FLOP and the memory traffic of a call."""
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:  # type: ignore[no-untyped-call]
        call()
    return Work(float(flops.get_total_flops()), float(traffic.traffic))


def quantiser_work(spec: TokenizerSpec) -> Work:
    """Count the work on the distances of an image's latents to the codes, written and read once."""
    logits = sum(scale.tokens for scale in spec.scales) * spec.vocab_size
    return Work(2.0 * logits * spec.latent_dim, 2.0 * 4 * logits)


@torch.no_grad()
def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Measure a device's peak: the best of large products and convolutions, and a large copy."""
    size, side, batch, copied = (2048, 64, 1, 2**28) if device.type == "cpu" else (8192, 128, 32, 2**31)
    factor = torch.randn(size, size, dtype=dtype, device=device)
    x_BCHW, kernel = (
        torch.randn(shape, dtype=dtype, device=device).to(memory_format=torch.channels_last)
        for shape in ((batch, 256, side, side), (256, 256, 3, 3))
    )
    calls = (lambda: factor @ factor, lambda: functional.conv2d(x_BCHW, kernel, padding=1))
    flop_per_s = max(count_work(call).flop / _fastest(call, device) for call in calls)
    source = torch.empty(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Peak(flop_per_s, 2 * copied / _fastest(lambda: target.copy_(source), device))


def _fastest(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest call within MEASURE_S, after one warm-up call."""
    end = time.perf_counter() + MEASURE_S
    call()
    seconds = [time_call(call, device)]
    while time.perf_counter() < end:
        seconds.append(time_call(call, device))
    return min(seconds)


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, with all work on the device done before and after."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    start = now()
    call()
    return now() - start
