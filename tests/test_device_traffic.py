"""The traffic on a GPU by the model: its figures by hand, and the most that a batch may move."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.device_traffic import Traffic, measure


def test_layers_cost_what_their_kernels_read_and_write():
    x_bytes, weight_bytes = 2 * 8 * 16 * 16 * 2, 8 * 8 * 3 * 3 * 2
    with FakeTensorMode(), torch.no_grad(), Traffic(2) as traffic:
        x = torch.empty(2, 8, 16, 16, dtype=torch.float16, device="cuda")
        conv, norm = torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.GroupNorm(4, 8)
        weight, bias = (
            each.detach().to("cuda", torch.float16, memory_format=layout)
            for each, layout in ((conv.weight, torch.channels_last), (conv.bias, torch.preserve_format))
        )
        traffic.bytes.clear()
        h = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        torch.nn.functional.group_norm(h, norm.num_groups).view(-1)
    assert traffic.bytes == {
        "layout before convolution": 2 * x_bytes,
        "convolution": 2 * x_bytes + weight_bytes,
        "bias of convolutions": 2 * x_bytes,
        "layout before group norm": 2 * x_bytes,
        "native_group_norm": 3 * x_bytes,
    }
    assert (
        traffic.kernels["native_group_norm"] == 3 and traffic.mb_per_image * 2e6 == traffic.bytes.total()
    )


@pytest.mark.parametrize(("precision", "encoder"), [("fp16", 1020), ("tf32", 1990)])
def test_a_batch_moves_at_most(precision, encoder):
    """MB an image of VAR's tokenizer; the convolutions themselves have a known share."""
    traffic = measure(64, precision)
    convolutions = traffic["encoder"].bytes["convolution"] / 64e6
    assert convolutions == pytest.approx({"fp16": 310.4, "tf32": 620.7}[precision], abs=0.1)
    most = {"encoder": encoder, "quantiser": 165, "tally": 5.1}
    for part, mb in most.items():
        assert mb / 2 < traffic[part].mb_per_image <= mb, part
    assert traffic["quantiser"].kernels.total() < 600


def test_further_temperatures_cost_about_five_passes_each():
    """MB an image of the quantiser at nine temperatures, where one matrix of distances is 11."""
    quantiser = measure(64, "fp16", tuple(map(float, range(1, 10))))["quantiser"]
    assert 500 < quantiser.mb_per_image < 625 and quantiser.kernels.total() < 1100
    assert quantiser.kernels["bmm"] == quantiser.kernels["addmm"]  # distances once, then all moments
    assert quantiser.bytes["copy_"] < 2e6  # of hard tokens, not of sums onto themselves
