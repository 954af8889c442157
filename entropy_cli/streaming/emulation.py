"""Warn of 16-bit precision on a CPU that emulates it, with the time an image takes."""

import copy
import logging
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.precision import DTYPES, Precision

logger = logging.getLogger(__name__)

# Any of these is enough, as torch names what a CPU can do: of x86, and bf16 of Arm.
INSTRUCTIONS = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16"),
}
NAMES = {"bf16": "AVX512-BF16 or AMX", "fp16": "AVX512-FP16 or AMX-FP16"}
ARM_NAMES = {"bf16": "BF16 instructions", "fp16": "fast FP16 convolutions in torch"}
LONG_S = 10.0  # what takes longer is not done again to see how long it takes without its start


def capabilities() -> Mapping[str, Any]:
    """Return what the CPU can do, by torch's names."""
    newest: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", older_capabilities)
    return newest()


def older_capabilities() -> Mapping[str, Any]:
    """Return the capabilities that matter here, where torch.cpu has no get_capabilities."""
    cpu: Any = torch.cpu
    return {
        "avx512_bf16": cpu._is_avx512_bf16_supported(),
        "amx_bf16": cpu._is_amx_tile_supported(),
        "avx512_fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported(),
        "bf16": _on_arm() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    }


def _on_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


def missing_instructions(precision: Precision, device: torch.device) -> str | None:
    """Name the instructions that a CPU lacks for a precision; None if it has them, or is no CPU."""
    if device.type != "cpu" or precision not in INSTRUCTIONS:
        return None
    able = capabilities()
    if any(able.get(name) for name in INSTRUCTIONS[precision]):
        return None
    return (ARM_NAMES if _on_arm() else NAMES)[precision]


def warn_if_emulated(
    tokenizer: Tokenizer, precision: Precision, device: torch.device, img_B3HW: Tensor
) -> None:
    """Say how long the first image takes in a precision that the CPU lacks, and in float32.

    The tokenizer is on the device, in the precision, and takes images as they are.
    """
    if (missing := missing_instructions(precision, device)) is None:
        return
    one_B3HW, exact = img_B3HW[:1], tokenizer.to(device, "fp32")
    _warn(precision, missing, lambda: tokenizer.encode(one_B3HW), lambda: exact.encode(one_B3HW))


def warn_if_training_is_emulated(
    model: nn.Module, precision: Precision, device: torch.device, img_B3HW: Tensor
) -> None:
    """Say the same of a model's forward and backward pass, which leaves the model as it is.

    The model maps images to reconstructions and another output; it is in float32.
    """
    if (missing := missing_instructions(precision, device)) is None:
        return
    model = copy.deepcopy(model).eval()  # norms count nothing, nor wait for other processes

    def step(*, enabled: bool) -> None:
        with torch.autocast(device.type, DTYPES[precision], enabled=enabled):
            recon_B3HW, _ = model(img_B3HW[:1])
        recon_B3HW.float().square().mean().backward()

    _warn(precision, missing, lambda: step(enabled=True), lambda: step(enabled=False))


def _seconds(call: Callable[[], object]) -> float:
    """Time a call in seconds: the faster of two, unless the first takes long."""
    taken: list[float] = []
    while not taken or (len(taken) < 2 and taken[0] < LONG_S):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _warn(
    precision: Precision, missing: str, emulated: Callable[[], object], exact: Callable[[], object]
) -> None:
    slow, fast = _seconds(emulated), _seconds(exact)
    text = "--precision %s is emulated on this CPU (no %s): %.3g s an image, fp32 %.3g s.%s"
    advice = " Leave out --precision." if slow > fast else ""
    logger.warning(text, precision, missing, slow, fast, advice)
