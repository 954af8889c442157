"""The arithmetic that an encoder runs in; everything after it is IEEE float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

Precision = Literal["fp32", "tf32", "fp16", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def cast_convolutions(network: nn.Module, precision: Precision) -> None:
    """Cast convolution weights to the precision's type and channels_last, in place, but not norms."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(DTYPES[precision]).to(memory_format=torch.channels_last)


@contextmanager
def matmul_precision(*, tf32: bool) -> Iterator[None]:
    """Set whether a GPU rounds the factors of float32 products and convolutions to TF32's 10 bits.

    TF32 flips near ties and shifts entropies, so only an encoder in precision "tf32" runs with it.
    """
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn
