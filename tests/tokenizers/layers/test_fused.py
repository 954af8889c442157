"""The fused norm: its Triton kernels beside float64, its use by blocks, and what happens if it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from entropy_cli.tokenizers.layers import fused
from entropy_cli.tokenizers.layers.autoencoder import LDM, AttnBlock, ResnetBlock
from entropy_cli.tokenizers.precision import matmul_precision

ROOT = Path(__file__).parents[3]
triton = pytest.importorskip("triton", reason="Triton comes with torch for CUDA only")

MOST = {"fp32": 5e-6, "bf16": 2**-7, "fp16": 2**-10}  # the interpreter cuts bfloat16 off


def output_of(tmp_path, *argv, **environment):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), **environment}
    argv = [sys.executable, "-W", "ignore", "-m", "tests.triton_cases", *argv]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kernels_beside_float64(tmp_path):
    """Odd sizes, one part and many, with means of up to 100 standard deviations, up to 1024 px."""
    errors = output_of(tmp_path, TRITON_INTERPRET="1")
    assert len(errors) == 31
    assert not {case: error for case, error in errors.items() if not error <= MOST[case[:4]]}


def test_kernels_compile_for_gpus(tmp_path):
    """Reading 16 bytes at once, without which memory is not kept busy."""
    bits = output_of(tmp_path, "80", "90", TRITON_INTERPRET="")
    for by_kernel in bits.values():
        assert {bits for name, bits in by_kernel.items() if "factors" not in name} == {128}


def block(channels=(32, 64)):
    """A block whose weights are all random, for inference."""
    before, after = channels
    shapes = {
        "b.conv1.weight": (after, before, 3, 3),
        "b.conv2.weight": (after, after, 3, 3),
        "b.nin_shortcut.weight": (after, before, 1, 1),
    }
    made = ResnetBlock(shapes, "b", LDM).eval().requires_grad_(requires_grad=False)
    for weight in made.parameters():
        weight.copy_(torch.randn(weight.shape, generator=torch.manual_seed(weight.numel())) / 5)
    return made.to(memory_format=torch.channels_last)


@matmul_precision(tf32=False)
def run_on(device, dtype):
    made, x_BChw = block(), torch.randn(2, 32, 9, 7, generator=torch.manual_seed(0)) + 3
    exact_BChw = made.double()(x_BChw.double())
    made = made.float().to(device)
    for name in ("conv1", "conv2", "nin_shortcut"):
        getattr(made, name).to(dtype)
    x_BChw = x_BChw.to(device, dtype).contiguous(memory_format=torch.channels_last)
    return made(x_BChw).cpu().double(), exact_BChw


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_blocks_on_a_gpu_are_fused(gpu_device, dtype, caplog):
    found_BChw, exact_BChw = run_on(gpu_device, dtype)
    assert fused.ran(gpu_device) and not caplog.records
    bound = 1e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found_BChw, exact_BChw, rtol=bound, atol=bound * exact_BChw.abs().max())


@pytest.mark.parametrize("fault", ["fails", "differs"])
def test_a_kernel_that_can_not_be_used_is_replaced_and_said_once(
    pretended_gpu, monkeypatch, caplog, fault
):
    def norm(x_BChw, *others):
        if fault == "fails":
            raise RuntimeError("0 active drivers\nand more")
        return fused.plain_norm(x_BChw, *others) * 1.01

    with torch.library._scoped_library("entropy_cli", "IMPL") as library:
        library.impl("group_norm", norm, "CPU", allow_override=True)
        found_BChw, exact_BChw = run_on("cuda:0", torch.float32)
    assert fused.ran(torch.device("cuda", 0)) is False
    torch.testing.assert_close(found_BChw, exact_BChw, rtol=1e-5, atol=1e-4)
    reason = {"fails": "RuntimeError: 0 active drivers", "differs": "it differs from torch's"}[fault]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"cuda:0: the fused norm is not used, torch's own is slower: {reason}"


def test_attention_has_a_head_axis_without_which_older_torch_does_not_fuse_it(monkeypatch):
    attend, ranks = torch.nn.functional.scaled_dot_product_attention, []

    def attended(*qkv):
        ranks.extend(tensor.ndim for tensor in qkv)
        return attend(*qkv)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
    shapes = {"a.qkv.weight": (192, 64, 1, 1), "a.proj_out.weight": (64, 64, 1, 1)}
    AttnBlock(shapes, "a", LDM)(torch.randn(1, 64, 4, 4))
    assert ranks == [4, 4, 4]
