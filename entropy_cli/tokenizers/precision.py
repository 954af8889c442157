"""In which arithmetic an encoder runs; everything after it is IEEE float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import nn

Precision = Literal["fp32", "tf32", "fp16", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
Network = TypeVar("Network", bound=nn.Module)


def cast_convolutions(network: Network, precision: Precision) -> Network:
    """Convolution weights in the precision's type, in channels_last; norms stay float32. In place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(DTYPES[precision]).to(memory_format=torch.channels_last)
    return network


@contextmanager
def products(*, tf32: bool) -> Iterator[None]:
    """Whether a GPU may round the factors of float32 products and convolutions to TF32's 10 bits.

    IEEE everywhere but in an encoder that was asked for in TF32: it flips near ties and moves entropies.
    """
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn
