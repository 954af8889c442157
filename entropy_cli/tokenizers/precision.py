"""The arithmetic that an encoder runs in; everything after it is IEEE float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["fp32", "tf32", "fp16", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}

# In torch.backends, each after the one whose `fp32_precision` it takes where its own is "none". That of
# mkldnn itself is left out: setting it sets the one of all.
BACKENDS = (
    *("cudnn", "cudnn.conv", "cudnn.rnn", "cuda.matmul"),
    *("mkldnn.conv", "mkldnn.rnn", "mkldnn.matmul"),
)


def cast_convolutions(network: nn.Module, precision: Precision) -> None:
    """Cast convolution weights to the precision's type and channels_last, in place, but not norms."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(DTYPES[precision]).to(memory_format=torch.channels_last)


@contextmanager
def matmul_precision(*, tf32: bool) -> Iterator[None]:
    """Set whether the factors of float32 products and convolutions are rounded to TF32's 10 bits.

    TF32 flips near ties and shifts entropies, so only an encoder in precision "tf32" runs with it. The
    older switches and, from torch 2.9 on, the newer ones are set alike: torch refuses to read an older
    one that a newer one contradicts.
    """
    newer = []
    for backend in _backends():
        newer.append((backend, backend.fp32_precision))
        backend.fp32_precision = "none"  # so that the next ones say what they were set to themselves
    matmul, cudnn = torch.get_float32_matmul_precision(), _cudnn_allows_tf32()
    _set_older("high" if tf32 else "highest", cudnn=tf32)
    for backend, _ in newer:
        backend.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        _set_older(matmul, cudnn=cudnn)
        for backend, before in newer:
            backend.fp32_precision = before


def _backends() -> list[Any]:
    """Return what has a switch `fp32_precision`: nothing before torch 2.9."""
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    return [backends, *(attrgetter(name)(backends) for name in BACKENDS)]


def _cudnn_allows_tf32() -> bool:
    """Return the older switch; where it is on, newer ones that are off make reading it an error."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return True


def _set_older(matmul: str, *, cudnn: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn
