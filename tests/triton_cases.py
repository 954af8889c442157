"""Errors of the Triton kernels beside float64, and their compilation; each in a process of its own.

With TRITON_INTERPRET=1 `python -m tests.triton_cases` computes on the CPU, in Triton's interpreter, and
prints the largest error of each case, as a share of the largest value. Without, it compiles the kernels
for GPUs of the versions in its arguments, without having one, and prints the widest loads.
"""

import json
import re
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from entropy_cli.tokenizers.layers import triton_kernels
from entropy_cli.tokenizers.layers.fused import plain_norm

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Images, channels, height, width, groups: of one part and of many, with odd sizes.
SHAPES = ((2, 64, 5, 7, 8), (1, 160, 1, 1, 32), (2, 12, 190, 71, 3), (1, 8, 1024, 1024, 2))
FAR = (0, 10, 100)  # means in standard deviations


def errors():
    """Errors by type, shape and mean; of the sum in place by type."""
    found = {}
    for dtype in DTYPES:
        for shape in SHAPES[: 4 if dtype == "fp32" else 3]:
            for mean in FAR if shape[2] < 1024 else FAR[-1:]:
                found[f"{dtype} {shape} {mean}"] = _norm_error(DTYPES[dtype], shape, mean)
        found[f"{dtype} sum"] = _sum_error(DTYPES[dtype])
    return found


def _random(*shape, mean=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))) + mean


def _norm_error(dtype, shape, mean):
    B, C, h, w, groups = shape
    x_BChw = _random(B, C, h, w, mean=mean).to(dtype, memory_format=torch.channels_last)
    x_BChw[:, :, 0, 0] -= 30  # the pixel that a part starts with is no better than others
    silu, offset_C = mean != 10, None if mean else _random(C)
    norm = _random(C, mean=1), _random(C), offset_C, groups, 1e-6, silu
    found_BChw = triton_kernels.group_norm(x_BChw, *norm)
    assert found_BChw.dtype == dtype and found_BChw.stride() == x_BChw.stride()
    return _error(found_BChw, plain_norm(x_BChw.double(), *norm))


def _sum_error(dtype):
    h_BChw, x_BChw = (
        _random(3, 20, 61, 67, mean=mean).to(dtype, memory_format=torch.channels_last) for mean in (0, 1)
    )
    exact_BChw = h_BChw.double() + x_BChw.double() + _random(20).double()[:, None, None]
    triton_kernels.add_(h_BChw, x_BChw, _random(20))
    return _error(h_BChw, exact_BChw)


def _error(found, exact):
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


def compiled(version):
    """The bits of the widest load of each kernel for a GPU, by type; 160 channels in 32 groups."""
    tile = triton_kernels._tile(160)
    part = tile["ROWS"] * triton_kernels.TILES.value
    sizes = {
        "channel_moments": {"CHANNELS": 160, **tile},
        "channel_factors": {
            **{"CHANNELS": 160, "GROUP": 5, "GROUP_WIDTH": 8, "PART": part, "EPS": 1e-6},
            "offset_ptr": None,
        },
        "scaled": {"CHANNELS": 160, "SILU": True, **tile},
        "summed": {"CHANNELS": 160, **tile},
    }
    bits = {}
    for dtype in DTYPES:
        for name, constants in sizes.items():
            kernel = getattr(triton_kernels, name)
            types = {"x_ptr": f"*{dtype}", "out_ptr": f"*{dtype}", "h_ptr": f"*{dtype}"}
            types |= {"pixels": "i32", "parts": "i32"} | dict.fromkeys(constants, "constexpr")
            signature = {each: types.get(each, "*fp32") for each in kernel.arg_names}
            aligned = {
                (i,): [["tt.divisibility", 16]]
                for i, each in enumerate(kernel.arg_names)
                if signature[each].startswith("*")
            }
            source = ASTSource(kernel, signature, constants, aligned)
            options = {"num_warps": triton_kernels.WARPS}
            ptx = triton.compile(source, target=GPUTarget("cuda", version, 32), options=options).asm[
                "ptx"
            ]
            loads = re.findall(r"ld\.global\.(?:v(\d)\.)?b(\d+)", ptx)
            bits[f"{dtype} {name}"] = max(int(many or 1) * int(each) for many, each in loads)
    return bits


if __name__ == "__main__":
    versions = [int(version) for version in sys.argv[1:]]
    sys.stdout.write(json.dumps({v: compiled(v) for v in versions} if versions else errors()))
