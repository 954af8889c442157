"""Fused kernels of an encoder on a GPU, which are used once they agree with torch's own operators there.

They are operators of their own, so that torch knows their results without running them; on a CPU they
are plain torch.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

LIBRARY = torch.library.Library("entropy_cli", "DEF")
LIBRARY.define(
    "group_norm(Tensor x_BChw, Tensor weight_C, Tensor bias_C, Tensor? offset_C, int groups, float eps, "
    "bool silu) -> Tensor"
)
LIBRARY.define("add_(Tensor(a!) h_BChw, Tensor x_BChw, Tensor bias_C) -> ()")

FAR = 10.0  # mean of the tensor on which they are checked, in standard deviations
CHECKED_ELEMENTS = 2**17  # of each of its images: more than one program of a kernel takes
ABSOLUTE = 1e-4  # the largest error beside those of rounding the result

# What checks have found so far, by device, type, channels and groups.
_AGREE: dict[tuple[torch.device, torch.dtype, int, int], bool] = {}


def plain_norm(
    x_BChw: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    offset_C: Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    """Normalise x + offset in at least float32, and apply SiLU."""
    exact = torch.promote_types(x_BChw.dtype, torch.float32)
    h_BChw = x_BChw.to(exact, memory_format=torch.contiguous_format)  # in which a CPU's keeps its digits
    if offset_C is not None:
        h_BChw = h_BChw + offset_C.to(exact)[:, None, None]
    h_BChw = functional.group_norm(h_BChw, groups, weight_C.to(exact), bias_C.to(exact), eps)
    h_BChw = functional.silu(h_BChw) if silu else h_BChw
    return h_BChw.to(x_BChw.dtype, memory_format=torch.channels_last)


def _plain_add(h_BChw: Tensor, x_BChw: Tensor, bias_C: Tensor) -> None:
    h_BChw.add_(x_BChw).add_(bias_C[:, None, None])


def _triton_norm(*arguments):
    from entropy_cli.tokenizers.layers.triton_kernels import group_norm

    return group_norm(*arguments)


def _triton_add(h_BChw: Tensor, x_BChw: Tensor, bias_C: Tensor) -> None:
    from entropy_cli.tokenizers.layers.triton_kernels import add_

    add_(h_BChw, x_BChw, bias_C)


for key, norm, add_in_place in (
    ("CUDA", _triton_norm, _triton_add),
    ("CPU", plain_norm, _plain_add),
    ("Meta", lambda x_BChw, *_: torch.empty_like(x_BChw), lambda *_: None),
):
    LIBRARY.impl("group_norm", norm, key)
    LIBRARY.impl("add_", add_in_place, key)


def works(x_BChw: Tensor, channels: int, groups: int) -> bool:
    """Return whether the kernels run for tensors like x, with so many channels and groups."""
    if x_BChw.device.type != "cuda" or torch.compiler.is_compiling() or not _is_nhwc(x_BChw):
        return False
    key = (x_BChw.device, x_BChw.dtype, channels, groups)
    if key not in _AGREE and ran(x_BChw.device) is not False:
        fault = _find_fault(x_BChw, channels, groups)
        _AGREE[key] = fault is None
        if fault is not None:
            logger.warning(
                "%s: the fused norm is not used, torch's own is slower: %s", x_BChw.device, fault
            )
    return bool(ran(x_BChw.device))


def ran(device: torch.device) -> bool | None:
    """Return whether every check on a device found that the kernels agree; None without a check."""
    found = [agrees for (where, *_), agrees in _AGREE.items() if where == device]
    return all(found) if found else None


def add(h_BChw: Tensor, x_BChw: Tensor, biases: Sequence[Tensor | None]) -> Tensor:
    """Add x and biases of its channels to h in place, which is returned."""
    summands = [bias_C.float() for bias_C in biases if bias_C is not None]
    if not summands:
        return h_BChw.add_(x_BChw)
    x_BChw = x_BChw.contiguous(memory_format=torch.channels_last)
    torch.ops.entropy_cli.add_(h_BChw, x_BChw, torch.stack(summands).sum(0))
    return h_BChw


def _is_nhwc(x_BChw: Tensor) -> bool:
    return x_BChw.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _find_fault(like: Tensor, channels: int, groups: int) -> str | None:
    """Compare the kernels with torch's operators in float64 on a small tensor far from zero.

    Returns:
        Why they can't be used, in one line; None if they can.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, mean: float = 0.0) -> Tensor:
        return (torch.randn(shape, generator=generator) + mean).to(like.device)

    x_BChw = random(2, channels, 2, CHECKED_ELEMENTS // channels // 2 + 1, mean=FAR).to(like.dtype)
    x_BChw = x_BChw.contiguous(memory_format=torch.channels_last)
    weight_C, bias_C, offset_C = random(channels), random(channels), random(channels)
    norm = weight_C, bias_C, offset_C, groups, 1e-6, True
    try:
        found_BChw = torch.ops.entropy_cli.group_norm(x_BChw, *norm)
        sum_BChw = add(x_BChw.clone(), x_BChw, [offset_C])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever Triton, its compiler or a driver raises
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    exact_BChw = x_BChw.double()
    pairs = (
        (found_BChw, plain_norm(exact_BChw, *norm)),
        (sum_BChw, 2 * exact_BChw + offset_C.double()[:, None, None]),
    )
    rounding = torch.finfo(like.dtype).eps
    agree = [torch.allclose(f.double(), e, rtol=rounding, atol=ABSOLUTE) for f, e in pairs]
    return None if all(agree) else "it differs from torch's"
