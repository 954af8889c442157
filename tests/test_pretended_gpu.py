"""The pretended device itself: what it refuses, counts and computes."""

import pytest
import torch

from entropy_cli.tokenizers.precision import matmul_precision
from tests.pretended_gpu import OnDevice


def test_numbers_are_the_cpu_s_and_devices_do_not_mix(pretended_gpu):
    x, w = torch.randn(3, 4), torch.randn(4, 5)
    on_device = x.to("cuda") @ w.to("cuda")
    assert isinstance(on_device, OnDevice) and on_device.device == torch.device("cuda:0")
    assert torch.equal(on_device.cpu(), x @ w)
    assert torch.equal((on_device * torch.tensor(2.0)).cpu(), 2 * x @ w)  # a number may be the CPU's
    for mixes in (
        lambda: on_device + torch.ones(5),
        lambda: on_device @ torch.ones(5),
        lambda: torch.cat([on_device, torch.ones(1, 5)]),
        lambda: on_device.index_add_(0, torch.zeros(3, dtype=torch.int64), on_device),
        lambda: on_device.normal_(generator=torch.Generator()),
    ):
        with pytest.raises(RuntimeError, match=r"same device|generator.*test_pretended_gpu.py:"):
            mixes()
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        on_device.numpy()


def test_waits_and_copies_are_counted(pretended_gpu):
    counts = pretended_gpu.counts
    pinned = torch.ones(4).pin_memory().to("cuda", non_blocking=True)
    assert not counts.waits and counts.copies.total() == 1
    torch.zeros(4, device="cuda").add_(pinned).copy_(pinned)
    pinned[pinned > 2] = 0
    later, arrived = pinned.to("cpu", non_blocking=True), torch.cuda.Event()
    assert not counts.waits and later.isnan().all()
    arrived.record()
    after = pinned.to("cpu", non_blocking=True)
    arrived.synchronize()
    assert not counts.waits and later.tolist() == [1] * 4 and after.isnan().all()
    torch.ones(4).to("cuda", non_blocking=True)  # not pinned: waits all the same
    float(pinned.sum())
    pinned.tolist()
    pinned[pinned > 0]
    pinned.cpu()
    torch.tensor([1.0], device="cuda")
    torch.cuda.synchronize()
    assert counts.waits.total() == 7
    assert all(line.startswith("test_pretended_gpu.py:") for _, line in counts.waits)


def test_tf32_rounds_factors_to_10_bits_where_it_is_on(pretended_gpu):
    x, image, conv = torch.randn(3, 64), torch.randn(1, 4, 8, 8), torch.nn.Conv2d(4, 2, 3)
    x[0, :4] = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11, 1 + 2**-11 - 2**-23])  # ties
    mantissa, exponent = torch.frexp(x.double())
    x10 = torch.ldexp(x.sign() * (mantissa.abs() * 2**11 + 0.5).floor() / 2**11, exponent).float()
    for tf32 in (False, True):
        with matmul_precision(tf32=tf32), torch.no_grad():
            assert torch.equal((x.to("cuda") @ torch.eye(64).to("cuda")).cpu(), x10 if tf32 else x)
            on_device = conv.to("cuda")(image.to("cuda")).cpu()
            assert torch.equal(on_device, conv.to("cpu")(image)) != tf32


def test_gradients_are_computed(pretended_gpu):
    torch.manual_seed(0)
    model, x = (
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4)),
        torch.randn(2, 3, 8, 8),
    )
    model(x).square().mean().backward()
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    with matmul_precision(tf32=False):
        model.to("cuda")(x.to("cuda")).square().mean().backward()
    for weight, grad in zip(model.parameters(), expected, strict=True):
        assert weight.is_cuda and weight.grad.is_cuda and isinstance(weight, torch.nn.Parameter)
        torch.testing.assert_close(weight.grad.cpu(), grad)


def test_afterwards_there_is_no_device():
    assert not torch.cuda.is_available()
    with torch.inference_mode():
        assert torch.ones(1).is_inference()
