"""A pretended CUDA device, for tests of GPU code where there is no GPU.

Its tensors say that they are on cuda:0, and are computed on the CPU. As CUDA does, it refuses an
operator whose operands are on two devices; whatever would make the host wait is counted, with the line
of the program that caused it. TF32 rounds factors where it is on. A copy to the host that nobody waits
for has no numbers yet. Not pretended: a GPU's other rounding, memory and order of work.
"""

import contextlib
import os
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from entropy_cli.tokenizers.layers import fused
from tests import python_backward
from tests.device_counts import Counts, program_line
from tests.tf32 import with_rounded_factors

aten = torch.ops.aten
DEVICE = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # of this process
HOST = torch.device("cpu")
# The size of their result, or the result itself, has to come back to the host.
WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "histc"),
    *("_unique2", "unique_dim", "unique_consecutive"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Besides elementwise operators, which take a number from the CPU beside tensors of a GPU.
TAKING_NUMBERS = {"masked_fill", "masked_fill_", "fill", "fill_", *INDEXING}


class OnDevice(torch.Tensor):
    """A tensor of the pretended device: `host` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host):
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=DEVICE,
        )
        self.host = host
        return self

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return PretendedGPU.running.dispatch(operator, args, kwargs or {})

    def __repr__(self):
        return f"OnDevice({self.host})"

    def __deepcopy__(self, memo):
        with torch.no_grad():
            copied = OnDevice(self.host.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        return memo.setdefault(id(self), copied)

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self):
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol):
        return self.host.__reduce_ex__(protocol)

    def record_stream(self, stream):
        """Do nothing: there is one stream."""


class Mode(TorchDispatchMode):
    """Sees operators without operands on the device, such as those that make tensors there."""

    @classmethod
    def _should_skip_dynamo(cls):
        """Whether torch is to import its compiler, to turn it off: seconds for nothing."""
        return False

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return PretendedGPU.running.dispatch(operator, args, kwargs or {})


class PretendedGPU:
    """The device, and torch as it is where there is one. One at a time."""

    running = None

    def __init__(self, capability=(9, 0)):
        self.capability, self.counts = capability, Counts()
        self.on_their_way, self.sent = [], 0  # copies to the host: number, tensor, and its content

    def dispatch(self, operator, args, kwargs):
        """Compute an operator on the host; refuse and count what a GPU would."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        name, target = operator.overloadpacket.__name__, kwargs.get("device")
        to_device = there[0].device if target is None and there else torch.device(target or HOST)
        if not there and to_device.type != "cuda":
            return operator(*args, **kwargs)
        if name == "copy_":
            return self._copy_into(*args, **kwargs)
        if name == "_to_copy":
            return self._copied(operator, args[0], to_device, kwargs)
        self._check_operands(operator, name, tensors, args, kwargs)
        if name in WAITING or (name == "repeat_interleave" and len(tensors) == 1):
            self._wait(name)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": HOST, "pin_memory": False}
        args, kwargs = tree_map(_host, (args, kwargs))
        args = with_rounded_factors(name, args)
        if name.startswith("native_group_norm"):  # CUDA's gives NCHW for any layout
            args = [_contiguous(argument) for argument in args]
        result = operator(*args, **kwargs)
        if to_device.type == "cpu":
            return result
        given = {id(tensor.host): tensor for tensor in there}  # operators in place return an operand
        return tree_map(lambda leaf: given.get(id(leaf), _on_device(leaf)), result)

    def _check_operands(self, operator, name, tensors, args, kwargs):
        there = [isinstance(tensor, OnDevice) for tensor in tensors]
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError(f"{name}: Expected a 'cuda' generator but found 'cpu' ({program_line()})")
        if name in INDEXING and isinstance(args[0], OnDevice):
            indices = [index for index in args[1] if index is not None]
            tensors = [tensor for tensor in tensors if all(tensor is not index for index in indices)]
            filled = len(args) > 2 and args[2].ndim == 0  # which needs no number of places
            for index in indices:
                if not isinstance(index, OnDevice):
                    self._copy("index from the host")
                elif index.dtype in (torch.bool, torch.uint8) and not filled:
                    self._wait("index by a mask")
        takes_numbers = torch.Tag.pointwise in operator.tags or name in TAKING_NUMBERS
        lost = [t for t in tensors if not isinstance(t, OnDevice) and not (takes_numbers and not t.ndim)]
        if lost and any(there):
            raise RuntimeError(
                f"{name}: Expected all tensors to be on the same device, but found cuda:0 and cpu "
                f"({program_line()})"
            )

    def _copy_into(self, target, source, non_blocking=False):  # noqa: FBT002 - aten's own
        if isinstance(target, OnDevice) != isinstance(source, OnDevice):
            pinned = target if isinstance(source, OnDevice) else source
            self._copy(_way(source), waits=not (non_blocking and getattr(pinned, "pinned", False)))
        _host(target).copy_(_host(source))
        return target

    def _copied(self, operator, source, device, kwargs):
        kept = {key: kwargs[key] for key in ("dtype", "memory_format") if key in kwargs}
        result, asynchronous = operator(_host(source), **kept), kwargs.get("non_blocking", False)
        if device.type == "cpu":
            self._copy(_way(source), waits=not asynchronous)
            if asynchronous:
                self.sent += 1
                self.on_their_way.append((self.sent, result, result.clone()))
                result.fill_(torch.nan if result.is_floating_point() else 0)
            result.pinned = asynchronous
            return result
        if not isinstance(source, OnDevice):
            self._copy(_way(source), waits=not (asynchronous and getattr(source, "pinned", False)))
        return OnDevice(result)

    def _copy(self, what, *, waits=True):
        self.counts.copies[what, program_line()] += 1
        if waits:
            self._wait(what)

    def _wait(self, what):
        self.counts.waits[what, program_line()] += 1
        self.arrive(self.sent)

    def arrive(self, last):
        """Fill the copies to the host up to the one of this number."""
        while self.on_their_way and self.on_their_way[0][0] <= last:
            _, target, content = self.on_their_way.pop(0)
            target.copy_(content)

    @staticmethod
    def enter_thread():
        """Begin to pretend in a thread that makes tensors on the device; for the rest of its life."""
        Mode().__enter__()
        torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003 - torch.tensor(..., device=...) by a copy

    @contextlib.contextmanager
    def installed(self, patch):
        """Let torch believe in the device; `patch` is a pytest.MonkeyPatch that ends with the test."""
        torch._C._ensureCUDADeviceGuardSet()  # one that does nothing, where there is no CUDA
        patch.setattr(PretendedGPU, "running", self)
        patch.setattr(fused, "_AGREE", {})  # what was found of kernels on a device of this name
        for name, value in self._cuda().items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.Tensor, "pin_memory", _pinned)
        patch.setattr(torch.Tensor, "backward", python_backward.backward)
        patch.setattr(torch.Tensor, "to", _in_every_thread(torch.Tensor.to))
        # Wrapped tensors can't be inference tensors.
        patch.setattr(torch.inference_mode, "__enter__", _no_grad_instead)
        patch.setattr(torch.inference_mode, "__exit__", _grad_as_before)
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003
        try:
            with Mode():
                yield self
        finally:
            torch._C._set_only_lift_cpu_tensors(False)  # noqa: FBT003
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)

    def _cuda(self):
        """Return what takes the place of functions of torch.cuda."""
        stream = Stream()
        nothing = {"_lazy_init", "empty_cache", "set_device", "manual_seed", "manual_seed_all"}
        zero = {"memory_allocated", "max_memory_allocated", "current_device"}
        return {
            **{name: lambda *_: None for name in (*nothing, "reset_peak_memory_stats")},
            **{name: lambda *_: 0 for name in zero},
            "is_available": lambda: True,
            "is_current_stream_capturing": lambda: False,
            "is_bf16_supported": lambda *_: True,
            "device_count": lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            "get_device_name": lambda *_: "pretended",
            "get_device_capability": lambda *_: self.capability,
            "synchronize": lambda *_: self._wait("synchronize"),
            "Stream": Stream,
            "Event": Event,
            "current_stream": lambda *_: stream,
            "default_stream": lambda *_: stream,
            "stream": lambda _: contextlib.nullcontext(),
        }


class Stream:
    """A stream whose work is done when it is given."""

    def __init__(self, device=None):
        self.device = DEVICE

    def record_event(self, event=None):
        event = event or Event()
        event.record()
        return event

    def wait_event(self, event):
        assert event.recorded

    def wait_stream(self, stream):
        """Do nothing: its work is done."""

    def synchronize(self):
        PretendedGPU.running._wait("Stream.synchronize")


class Event:
    """An event that has happened once it is recorded, and copies to the host before it."""

    def __init__(self, *, blocking=False, **_):
        self.recorded, self.blocking, self.sent = False, blocking, 0

    def record(self, stream=None):
        self.recorded = True
        if PretendedGPU.running is not None:
            self.sent = PretendedGPU.running.sent

    def query(self):
        PretendedGPU.running.arrive(self.sent)
        return self.recorded

    def synchronize(self):
        assert self.recorded
        PretendedGPU.running.arrive(self.sent)
        how = "blocks" if self.blocking else "spins"  # a spinning host keeps a core busy
        PretendedGPU.running.counts.event_waits[how, program_line()] += 1


def _host(leaf):
    return leaf.host if isinstance(leaf, OnDevice) else leaf


def _on_device(leaf):
    return OnDevice(leaf) if isinstance(leaf, torch.Tensor) else leaf


def _contiguous(argument):
    return argument.contiguous() if isinstance(argument, torch.Tensor) else argument


def _way(source):
    return "to the host" if isinstance(source, OnDevice) else "to the device"


def _pinned(self):
    assert not isinstance(self, OnDevice), "only tensors on the CPU can be pinned"
    copied = self.clone()
    copied.pinned = True
    return copied


def _in_every_thread(to):
    """Give `to` the mode, which belongs to one thread, for copies that another makes."""

    def with_mode(self, *args, **kwargs):
        with Mode():
            return to(self, *args, **kwargs)

    return with_mode


def _no_grad_instead(context):
    context.before = torch.is_grad_enabled()
    torch.set_grad_enabled(context.before and not context.mode)


def _grad_as_before(context, *_):
    torch.set_grad_enabled(context.before)


if __name__ == "__main__":  # the program on it, for processes that torchrun starts
    from entropy_cli.cli import main
    from tests.pretended_gpu import PretendedGPU

    with pytest.MonkeyPatch.context() as patch, PretendedGPU().installed(patch):
        sys.exit(main())
