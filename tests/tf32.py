"""TF32 on a CPU: the factors of float32 products and convolutions rounded to 10 bits, where it is on."""

import torch

# By operator: which switch it follows, and the places of its factors.
FACTORS = {
    "convolution": ("conv", (0, 1)),
    "convolution_backward": ("conv", (0, 1, 2)),
    "mm": ("matmul", (0, 1)),
    "bmm": ("matmul", (0, 1)),
    "addmm": ("matmul", (1, 2)),
    "baddbmm": ("matmul", (1, 2)),
}


def with_rounded_factors(name, args):
    """Return an operator's arguments as tensor cores take them."""
    switch, places = FACTORS.get(name, ("", ()))
    if not places or args[places[0]].dtype != torch.float32 or not is_on(switch):
        return args
    return [rounded(arg) if place in places else arg for place, arg in enumerate(args)]


def is_on(switch):
    """Whether torch lets a GPU use TF32 for products, or for convolutions."""
    if hasattr(torch.backends, "fp32_precision"):  # from torch 2.9 on
        of = {"conv": torch.backends.cudnn.conv, "matmul": torch.backends.cuda.matmul}[switch]
        return of.fp32_precision == "tf32"
    older = {"conv": torch.backends.cudnn.allow_tf32, "matmul": torch.backends.cuda.matmul.allow_tf32}
    return older[switch]


def rounded(x):
    """Round to the nearest number of 10 bits after the first."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
