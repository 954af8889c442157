"""The norm of 16-bit tensors in training: the numbers of float64, and what is kept for backward."""

import pytest
import torch
from torch.nn import functional

from entropy_cli.commands.train.sizes import make_recipe
from entropy_cli.commands.train.trainer import build_model
from entropy_cli.tokenizers.layers.norms import GroupNorm

CHANNELS, GROUPS = 12, 3
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("silu", [True, False], ids=["SiLU", "alone"])
@pytest.mark.parametrize("mean", [0, 20])
def test_value_and_gradients_are_those_of_float64(dtype, layout, silu, mean):
    torch.manual_seed(0)
    norm = GroupNorm(CHANNELS, GROUPS)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    shape = 2, CHANNELS, 6, 5
    x_BChw = (mean + torch.randn(shape)).to(dtype, memory_format=LAYOUTS[layout]).requires_grad_()
    grad_BChw = torch.randn(shape).to(dtype)
    y_BChw = norm.then_silu(x_BChw) if silu else norm(x_BChw)
    y_BChw.backward(grad_BChw)
    assert y_BChw.dtype == x_BChw.grad.dtype == dtype and norm.weight.grad.dtype == torch.float32
    assert y_BChw.is_contiguous(memory_format=LAYOUTS[layout])

    x, weight, bias = (t.detach().double().requires_grad_() for t in (x_BChw, norm.weight, norm.bias))
    y = functional.group_norm(x, GROUPS, weight, bias, norm.eps)
    y = functional.silu(y) if silu else y
    y.backward(grad_BChw.double())
    rounding = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(y_BChw.double(), y, rtol=1.01 * rounding, atol=1e-5)
    torch.testing.assert_close(x_BChw.grad.double(), x.grad, rtol=1.01 * rounding, atol=1e-4)
    for found, expected in ((norm.weight, weight), (norm.bias, bias)):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-5, atol=1e-4)


def test_a_flat_image_has_no_gradient_that_is_infinite():
    norm, x_BChw = GroupNorm(4, 2), torch.full((1, 4, 3, 3), 0.7, dtype=torch.float16)
    norm.then_silu(x_BChw.requires_grad_()).sum().backward()
    assert x_BChw.grad.isfinite().all() and norm.weight.grad.isfinite().all()


def kept_bytes(model, images, size, dtype):
    """Return the bytes that are kept for the backward pass, but for weights."""
    kept, weights = {}, {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        output = model(torch.zeros(images, 3, size, size))
    del output
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights)


def test_an_image_in_16_bits_keeps_two_fifths_of_what_float32_keeps():
    """Of the preset `var`, made narrow."""
    recipe = make_recipe("var", {"image_size": 32, "width": 32, "vocab_size": 16})
    model = build_model(recipe, torch.device("cpu"))
    exact, rounded = (
        kept_bytes(model, 2, 32, dtype) - kept_bytes(model, 1, 32, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0.3 * exact < rounded < 0.4 * exact
