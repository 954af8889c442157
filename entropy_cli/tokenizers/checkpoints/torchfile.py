"""Files of torch.save: their pickle is read without running it, and tensors stay on disk until read.

Not by torch.load: that imports what a pickle names unless every class is known beforehand, hands
TorchScript to a loader of its own, and goes by environment variables and the file's name.

Source:
    pytorch torch/serialization.py (_load, _legacy_load, _legacy_save) and torch/_utils.py (_rebuild_*).
"""

import io
import math
import mmap
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from entropy_cli.tokenizers.checkpoints.pickles import InertUnpickler, Known, make
from entropy_cli.tokenizers.checkpoints.stored import (
    Contents,
    Stored,
    UnusableError,
    forget,
    map_file,
    of_buffer,
    record_start,
)

ZIP_HEAD = b"PK\x03\x04"
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MOST_NUMBERS = 2**48  # in a tensor
MOST_REPEATED = 2**26  # that an expanded tensor may have
MOST_METADATA = 2**30  # bytes that a compressed pickle may expand to


@dataclass(frozen=True)
class Storage:
    """A range of bytes in a file that holds tensors."""

    dtype: torch.dtype
    nbytes: int
    read: Callable[[int, int], bytes | memoryview]  # from byte, to byte
    forget: Callable[[], object]
    swapped: bool = False  # the other byte order


def read_torch(path: Path) -> Contents:
    """Read the names, shapes and offsets of a file of torch.save.

    Raises:
        UnusableError: another kind of file that torch writes.
        Exception: of any kind, if it is damaged or not torch's.
    """
    memory = map_file(path)
    if memory[:4] == ZIP_HEAD:
        return _read_zip(path, memory)
    if memory[257:262] == b"ustar":
        raise UnusableError(
            "is a tar archive, as torch wrote until 2017. Load it with an old torch and save it again."
        )
    return _read_legacy(memory)


def _read_zip(path: Path, memory: mmap.mmap) -> Contents:
    with zipfile.ZipFile(path) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "constants.pkl" in records:
        raise UnusableError(
            "is a TorchScript program, which is never run. Save its state dict alone: "
            "torch.save(torch.jit.load(file).state_dict(), other_file)."
        )
    swapped = "byteorder" in records and bytes(_record(memory, records["byteorder"], 0, 3)) == b"big"

    def refer(reference: Any) -> Storage:  # noqa: ANN401 - a pickle may hold anything
        what, dtype, key, _location, numel = reference
        if what != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"refers to a {what}")
        record, nbytes = records[f"data/{key}"], _natural(numel) * dtype.itemsize
        if nbytes > record.file_size or record_start(memory, record) + record.compress_size > len(
            memory
        ):
            raise pickle.UnpicklingError(f"record {key} is too short")
        return Storage(dtype, nbytes, partial(_record, memory, record), partial(forget, memory), swapped)

    size = records["data.pkl"].file_size
    if size > MOST_METADATA:
        raise pickle.UnpicklingError("more than names and shapes")
    source = io.BytesIO(_record(memory, records["data.pkl"], 0, size))
    unpickler = InertUnpickler(source, KNOWN, refer)
    return Contents(unpickler.load(), "torch-zip", frozenset(unpickler.classes))


def _record(memory: mmap.mmap, record: zipfile.ZipInfo, begin: int, end: int) -> bytes | memoryview:
    start = record_start(memory, record)
    if record.compress_type == zipfile.ZIP_STORED:
        return memoryview(memory)[start + begin : start + end]
    if record.compress_type != zipfile.ZIP_DEFLATED:
        raise ValueError(f"compressed by method {record.compress_type}")
    packed = memory[start : start + record.compress_size]
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(end, 1))[begin:]


def _read_legacy(memory: mmap.mmap) -> Contents:
    """Read the legacy format: four pickles, the keys of the storages, and the storages in that order."""
    declared: dict[str, tuple[torch.dtype, int]] = {}
    starts: dict[str, int] = {}

    def read(key: str, begin: int, end: int) -> memoryview:
        return memoryview(memory)[starts[key] + begin : starts[key] + end]

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
        begin = offset * dtype.itemsize
        return Storage(
            dtype,
            length * dtype.itemsize,
            lambda a, b: read(key, begin + a, begin + b),
            partial(forget, memory),
        )

    if _legacy_part(memory) != LEGACY_MAGIC or _legacy_part(memory) != LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("not of torch")
    _legacy_part(memory)  # about the machine; all that follows is little-endian on any
    unpickler = InertUnpickler(memory, KNOWN, refer)
    value = unpickler.load()
    for key in map(str, _legacy_part(memory)):
        dtype, numel = declared[key]
        held = int.from_bytes(memory.read(8), "little")
        starts[key] = memory.tell()
        end = starts[key] + numel * dtype.itemsize
        if held != numel or end > len(memory):
            raise pickle.UnpicklingError(f"storage {key} is too short")
        memory.seek(end)
    if declared.keys() - starts.keys():
        raise pickle.UnpicklingError("lacks storages")
    return Contents(value, "torch-legacy", frozenset(unpickler.classes))


def _legacy_part(memory: mmap.mmap) -> Any:  # noqa: ANN401
    return InertUnpickler(memory, {}).load()


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
    """Replace _rebuild_tensor_v2, whose arguments after the stride are ignored."""
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

    def read() -> Tensor:
        if not span:
            return torch.empty(shape, dtype=dtype)
        if math.prod(shape) > max(span, MOST_REPEATED):
            raise ValueError(f"repeats {span} numbers until they are {math.prod(shape)}")
        if storage.swapped:
            raw = of_buffer(storage.read(begin, end), torch.uint8)
            return raw.view(-1, dtype.itemsize).flip(1).flatten().view(dtype).as_strided(shape, steps)
        return of_buffer(storage.read(begin, end), dtype).as_strided(shape, steps)

    kind = "conjugated or negated" if metadata else "plain"
    kind = "quantised" if dtype in QUANTISED else kind
    return Stored(shape, _dtype_name(dtype), read, kind, storage.forget)


def _unreadable(kind: str, shape: Any, dtype: object) -> Stored:  # noqa: ANN401
    name = _dtype_name(dtype) if isinstance(dtype, torch.dtype) else "unknown"
    return Stored(_shape(shape), name, _unread, kind)


def _unread() -> NoReturn:
    raise ValueError("not plain numbers")


def _sparse(_layout: object, data: Any) -> Stored:  # noqa: ANN401 - indices (one or two), values, size
    parts = [part for part in data if isinstance(part, Stored)]
    size = [part for part in data if isinstance(part, tuple)]
    return _unreadable("sparse", size[0], getattr(torch, parts[-1].dtype, None))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ours() -> dict[str, object]:
    """Return the known globals: dtypes, storages, and functions of ours in place of torch's."""
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
