"""Read what torch.save wrote: the pickle inertly, and each tensor when it is needed.

Not by torch.load: that imports what a pickle names unless every class is known beforehand, hands
TorchScript to a loader of its own, and goes by environment variables and the file's name.

Source:
    pytorch torch/serialization.py (_load, _legacy_load, _legacy_save) and torch/_utils.py (_rebuild_*).
"""

import io
import math
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from entropy_cli.core.reading import OpenFile
from entropy_cli.tokenizers.checkpoints.pickles import InertUnpickler, Known, make
from entropy_cli.tokenizers.checkpoints.stored import (
    BytesReader,
    Contents,
    Stored,
    UnusableError,
    dtype_name,
    unreadable,
)
from entropy_cli.tokenizers.checkpoints.zips import ZipRecords

ZIP_HEAD = b"PK\x03\x04"
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MOST_NUMBERS = 2**48  # in a tensor
MOST_METADATA = 2**30  # bytes that a compressed pickle may expand to


@dataclass(frozen=True)
class Storage:
    """The bytes of a file that tensors lie in."""

    dtype: torch.dtype
    nbytes: int
    read: BytesReader
    is_swapped: bool = False
    verify: Callable[[], object] = lambda: None


def read_torch(file: OpenFile, records: ZipRecords | None) -> Contents:
    """Describe the tensors that torch.save wrote, with the names they have.

    Args:
        file: the file.
        records: those of the file, if it is a zip.

    Raises:
        UnusableError: another kind of file that torch writes.
        Exception: of any kind, if it is damaged or not torch's.
    """
    if records is not None:
        return _read_zip(records)
    if file.size > 262 and file.read(257, 262) == b"ustar":
        raise UnusableError(
            "is a tar archive, as torch wrote until 2017. Load it with an old torch and save it again."
        )
    return _read_legacy(file)


def _read_zip(records: ZipRecords) -> Contents:
    names = {name.partition("/")[2]: name for name in records.infos}
    if "constants.pkl" in names:
        raise UnusableError(
            "is a TorchScript program, which is never run. Save its state dict alone: "
            "torch.save(torch.jit.load(file).state_dict(), other_file)."
        )
    is_swapped = "byteorder" in names and records.read(names["byteorder"]) == b"big"

    def refer(reference: Any) -> Storage:  # noqa: ANN401 - a pickle may hold anything
        what, dtype, key, _location, numel = reference
        if what != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"refers to a {what}")
        name, nbytes = names[f"data/{key}"], _natural(numel) * dtype.itemsize
        if nbytes > records.infos[name].file_size:
            raise pickle.UnpicklingError(f"record {key} is too short")
        records.start(name)  # that it lies within the file
        read, verify = partial(records.read, name), partial(records.verify, name)
        return Storage(dtype, nbytes, read, is_swapped, verify)

    if records.infos[names["data.pkl"]].file_size > MOST_METADATA:
        raise pickle.UnpicklingError("more than names and shapes")
    source = io.BytesIO(records.read(names["data.pkl"]))
    unpickler = InertUnpickler(source, KNOWN, refer)
    return Contents(unpickler.load(), "torch-zip", frozenset(unpickler.classes))


def _read_legacy(file: OpenFile) -> Contents:
    """Read four pickles, the keys of the storages, and where the storages lie, in that order."""
    stream = file.reader()
    declared: dict[str, tuple[torch.dtype, int]] = {}
    starts: dict[str, int] = {}

    def refer(reference: Any) -> object:  # noqa: ANN401 - a pickle may hold anything
        what, *rest = reference
        if what == "module":
            return rest[0]  # a class, with its source code, which is of no interest
        dtype, key, _location, numel, view = rest
        if what != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError(f"refers to a {what}")
        declared.setdefault(key, (dtype, _natural(numel)))
        offset, length = (0, numel) if view is None else view[1:]
        if _natural(offset) + _natural(length) > declared[key][1]:
            raise pickle.UnpicklingError("a view beyond its storage")
        shift = offset * dtype.itemsize

        def read(begin: int, end: int) -> bytearray:  # once it is known where the storage starts
            start = starts[key] + shift
            return file.read(start + begin, start + end)

        return Storage(dtype, length * dtype.itemsize, read)

    if _legacy_part(stream) != LEGACY_MAGIC or _legacy_part(stream) != LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("not of torch")
    _legacy_part(stream)  # about the machine; all that follows is little-endian on any
    unpickler = InertUnpickler(stream, KNOWN, refer)
    value = unpickler.load()
    for key in map(str, _legacy_part(stream)):
        dtype, numel = declared[key]
        held = int.from_bytes(stream.read(8), "little")
        starts[key] = stream.tell()
        end = starts[key] + numel * dtype.itemsize
        if held != numel or end > file.size:
            raise pickle.UnpicklingError(f"storage {key} is too short")
        stream.seek(end)
    if declared.keys() - starts.keys():
        raise pickle.UnpicklingError("lacks storages")
    return Contents(value, "torch-legacy", frozenset(unpickler.classes))


def _legacy_part(stream: io.BufferedReader) -> Any:  # noqa: ANN401
    return InertUnpickler(stream, {}).load()


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise pickle.UnpicklingError(f"a size of {value!r:.40}")
    return value


def _shape(size: Iterable[object]) -> tuple[int, ...]:
    shape = tuple(map(_natural, size))
    if math.prod(max(n, 1) for n in shape) > MOST_NUMBERS:
        raise pickle.UnpicklingError("more numbers than any tensor has")
    return shape


def _tensor(storage: Storage, offset: int, size: Any, stride: Any, *rest: Any) -> Stored:  # noqa: ANN401
    """Replace _rebuild_tensor_v2: requires_grad, backward hooks and metadata follow the stride."""
    metadata = rest[2] if len(rest) > 2 else None
    return _typed_tensor(storage, offset, size, stride, None, None, storage.dtype, metadata)


def _typed_tensor(
    storage: Storage,
    offset: int,
    size: Any,  # noqa: ANN401
    stride: Any,  # noqa: ANN401
    _requires_grad: object,
    _hooks: object,
    dtype: torch.dtype,
    metadata: object = None,
) -> Stored:
    """Replace _rebuild_tensor_v3."""
    shape, steps = _shape(size), tuple(map(_natural, stride))
    if len(shape) != len(steps):
        raise pickle.UnpicklingError("a shape without strides")
    span = 1 + sum((n - 1) * step for n, step in zip(shape, steps, strict=True)) if all(shape) else 0
    begin = _natural(offset) * dtype.itemsize
    end = begin + span * dtype.itemsize
    if end > storage.nbytes and span:
        raise pickle.UnpicklingError("a tensor beyond its storage")

    kind = "conjugated or negated" if metadata else "plain"
    kind = "quantised" if dtype in QUANTISED else kind
    return Stored(
        shape, dtype_name(dtype), storage.read, begin, steps, kind, storage.is_swapped, storage.verify
    )


def _unreadable(kind: str, shape: Any, dtype: object) -> Stored:  # noqa: ANN401
    return unreadable(
        _shape(shape), dtype_name(dtype) if isinstance(dtype, torch.dtype) else "unknown", kind
    )


def _sparse(_layout: object, data: Any) -> Stored:  # noqa: ANN401 - indices (one or two), values, size
    parts = [part for part in data if isinstance(part, Stored)]
    size = [part for part in data if isinstance(part, tuple)]
    return _unreadable("sparse", size[0], getattr(torch, parts[-1].dtype, None))


def _ours() -> dict[str, object]:
    """Return what a pickle finds by name: types, storages, and our functions in place of torch's."""
    known: dict[str, object] = {
        f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
    }
    for name, dtype in STORAGES.items():
        for module in ("torch", "torch.cuda", "torch.storage"):
            known[f"{module}.{name}Storage"] = dtype
    for name, function in REBUILDING.items():
        known[f"torch._utils._rebuild_{name}"] = Known(function)
    known["torch._tensor._rebuild_from_type_v2"] = Known(
        lambda function, _type, args, _: make(function, args)
    )
    known["torch.Size"] = Known(tuple)
    return known


QUANTISED = (torch.qint8, torch.quint8, torch.qint32)
STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "Untyped": torch.uint8,
}
REBUILDING: dict[str, Callable[..., Stored]] = {
    "tensor": _tensor,
    "tensor_v2": _tensor,
    "tensor_v3": _typed_tensor,
    "parameter": lambda data, *_: data,
    "parameter_with_state": lambda data, *_: data,
    "sparse_tensor": _sparse,
    "qtensor": lambda storage, _offset, size, *_: _unreadable("quantised", size, storage.dtype),
    "meta_tensor_no_storage": lambda dtype, size, *_: _unreadable("meta", size, dtype),
}
KNOWN = _ours()
