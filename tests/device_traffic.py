"""Bytes and kernels of a batch on a GPU, by a model of torch's CUDA kernels; no arithmetic is done.

The real code runs on fake tensors of a CUDA device. For every operator the model has what its kernels
read and write, each tensor once: `python -m tests.device_traffic 64 fp16 1,2` prints it, in MB an image,
for VAR's sizes at 256 px.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.tally import Tally
from entropy_cli.images.image_set import GROUPS
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.tokenizers.base import sums_layout
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.families.var import VAR
from entropy_cli.tokenizers.layers import fused
from entropy_cli.tokenizers.layers.var_layout import VARSizes, var_shapes
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.pretended_gpu import DEVICE, PretendedGPU

# That make another view of the same memory, or memory that nothing is written to.
FREE = {
    *("view", "_unsafe_view", "_reshape_alias", "expand", "transpose", "permute", "t", "numpy_T"),
    *("slice", "select", "unsqueeze", "squeeze", "detach", "alias", "as_strided", "split", "unbind"),
    *("split_with_sizes", "chunk", "narrow", "lift_fresh", "unfold", "view_as", "expand_as", "flatten"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "unflatten", "reshape"),
    *("contiguous", "_fused_sdp_choice"),
}
FILLS = {"zeros", "new_zeros", "zeros_like", "ones", "ones_like", "full", "fill", "fill_", "zero_"}


class Traffic(TorchDispatchMode):
    """Collects what operators on the device cost while it is entered, by the operator's name."""

    def __init__(self, images):
        super().__init__()
        self.images, self.bytes, self.kernels = images, Counter(), Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "out"}
        ins, outs = _tensors((args, kwargs)), _tensors(out)
        if any(tensor.device.type == "cuda" for tensor in (*ins, *outs)):
            for part, (moved, kernels) in _cost(operator, ins, outs).items():
                self.bytes[part] += moved
                self.kernels[part] += kernels
        return out

    @property
    def mb_per_image(self):
        return self.bytes.total() / self.images / 1e6

    def lines(self, most=14):
        """The total, and the operators that move most."""
        yield f"{self.mb_per_image:.0f} MB an image, {self.kernels.total()} kernels a batch"
        for part, moved in self.bytes.most_common(most):
            yield f"  {part:36s} {moved / self.images / 1e6:8.1f} MB {self.kernels[part]:5d} kernels"


def _cost(operator, ins, outs):
    """Bytes moved and kernels of an operator, by part."""
    name = operator.overloadpacket.__name__
    if operator.namespace == "entropy_cli":  # moments, factors, and the result; a sum in place
        x = _size(ins[0])
        return {f"fused {name}": (3 * x, 3 if name == "group_norm" else 1)}
    if name in FREE or not outs or (name in ("to", "_to_copy") and outs[0] is ins[0]):
        return {}
    if name == "native_group_norm":  # in NCHW, as NHWC is read only by a copy
        layout = {"layout before group norm": (2 * _size(ins[0]), 1)} if _is_nhwc(ins[0]) else {}
        return {**layout, name: (2 * _size(ins[0]) + _size(outs[0]), 3)}
    if name in ("convolution", "conv2d"):
        return _cost_of_convolution(*ins, out=outs[0])
    if name == "gather":  # reads what it was asked for
        return {name: (_size(ins[1]) + 2 * _size(outs[0]), 1)}
    distinct = {} if name in FILLS else {id(tensor): _size(tensor) for tensor in ins}
    return {name: (sum(distinct.values()) + sum(map(_size, outs)), 1)}


def _cost_of_convolution(x, weight, *bias, out):
    parts = {"convolution": (_size(x) + _size(weight) + _size(out), 1)}
    if bias:
        parts["bias of convolutions"] = (2 * _size(out), 1)
    if _is_nhwc(weight) and not _is_nhwc(x) and x.is_contiguous():
        parts["layout before convolution"] = (2 * _size(x), 1)
    return parts


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _size(tensor):
    return tensor.numel() * tensor.element_size()


def _is_nhwc(tensor):
    if tensor.ndim != 4 or tensor.is_contiguous():
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last)


def measure(images, precision, temperatures=(1.0,)):
    """The traffic of a batch of so many images: of the encoder, the quantiser and the tally."""
    weights = {name: torch.zeros(shape) for name, shape in var_shapes(VARSizes()).items()}
    cpu = VAR().build(Checkpoint.of_tensors(Path("random"), weights), TokenizerSettings(256, None))
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        torch._C._ensureCUDADeviceGuardSet()
        torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003 - torch.tensor(..., device=...) by a copy
        for name, value in PretendedGPU()._cuda().items():
            patch.setattr(torch.cuda, name, value)
        with fake:
            _apply(cpu.network, fake.from_tensor)
            patch.setattr(torch.nn.Module, "_apply", _apply)
            patch.setattr(fused, "_AGREE", {})
            patch.setattr(fused, "_find_fault", lambda *_: None)
            cpu.codebooks = [Codebook(fake.from_tensor(c.codes_VC), c.rule) for c in cpu.codebooks]
            patch.setattr("copy.deepcopy", lambda network: network)
            tokenizer = cpu.to(DEVICE, precision)
            img_BHW3 = torch.empty(images, 256, 256, 3, dtype=torch.uint8, device=DEVICE)
            parts = {name: Traffic(images) for name in ("encoder", "quantiser", "tally")}
            with parts["encoder"]:
                rest_BChw = tokenizer.encode(img_BHW3.permute(0, 3, 1, 2))
            layout = sums_layout(tokenizer.spec.scales, GROUPS, len(temperatures))
            tally, processor = Tally.zeros(layout, DEVICE), BatchProcessor(tokenizer, DEVICE, images)
            at_ST = [temperatures] * len(tokenizer.spec.scales)
            with parts["quantiser"]:
                quantized = list(processor.quantize_scales(rest_BChw, [""] * images, at_ST))
            with parts["tally"]:
                group_B = torch.zeros(images, dtype=torch.int64, device=DEVICE)
                tally.add(group_B, [sums.first(images) for _, sums in quantized])
        torch._C._set_only_lift_cpu_tensors(False)  # noqa: FBT003
    return parts


def _apply(network, function, recurse=True):  # noqa: FBT002 - torch's own
    """Replace every weight, as Module._apply can't with fake ones."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                new = torch.nn.Parameter(function(weight.detach()), requires_grad=False)
                module._parameters[name] = new
    return network


if __name__ == "__main__":
    B, with_precision, at = (*sys.argv[1:], *("64", "fp16", "1")[len(sys.argv) - 1 :])
    for which, traffic in measure(int(B), with_precision, tuple(map(float, at.split(",")))).items():
        sys.stdout.write(f"{which}: " + "\n".join(traffic.lines()) + "\n")
