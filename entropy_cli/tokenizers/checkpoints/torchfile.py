"""Read what torch.save wrote: the pickle inertly, and each tensor when it is needed.

Not by torch.load: that imports what a pickle names unless every class is known beforehand, hands
TorchScript to a loader of its own, and goes by environment variables and the file's name.

Source:
    pytorch torch/serialization.py (_load, _legacy_load, _legacy_save) and torch/_utils.py (_rebuild_*).
"""

import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from entropy_cli.core.reading import OpenFile
from entropy_cli.tokenizers.checkpoints.pickles import MOST_EXPANDED, InertUnpickler, Known
from entropy_cli.tokenizers.checkpoints.stored import (
    BytesReader,
    Contents,
    Stored,
    UnusableError,
    dtype_name,
    is_shape,
    span,
    unreadable,
)
from entropy_cli.tokenizers.checkpoints.zips import ZipRecords

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class Storage:
    """The bytes of a file that tensors lie in."""

    dtype: torch.dtype
    nbytes: int
    read: BytesReader
    is_swapped: bool = False
    verify: Callable[[], object] = lambda: None


def read_torch(file: OpenFile, records: ZipRecords | None) -> Contents:
    """Describe the tensors that torch.save wrote, from the file's zip records if it has any.

    Raises:
        UnusableError: another kind of file that torch writes.
        Exception: of any kind, if it is damaged or not torch's.
    """
    if records is not None:
        return _read_zip(file, records)
    if file.size > 262 and file.read(257, 262) == b"ustar":
        raise UnusableError(
            "is a tar archive, as torch wrote until 2017. Load it with an old torch and save it again."
        )
    return _read_legacy(file)


def _read_zip(file: OpenFile, records: ZipRecords) -> Contents:
    names = {name.partition("/")[2]: name for name in records.infos}
    is_swapped = "byteorder" in names and records.read(names["byteorder"]) == b"big"

    def refer(reference: Any) -> Storage:  # noqa: ANN401 - a pickle may hold anything
        what, dtype, key, _location, numel = reference
        _check_storage(what, dtype, key)
        name, nbytes = names[f"data/{key}"], _natural(numel) * dtype.itemsize
        if nbytes > records.infos[name].file_size:
            raise pickle.UnpicklingError(f"record {key} is too short")
        records.start(name)  # that it lies within the file
        read, verify = partial(records.read, name), partial(records.verify, name)
        return Storage(dtype, nbytes, read, is_swapped, verify)

    if records.infos[names["data.pkl"]].file_size > file.size + MOST_EXPANDED:
        raise pickle.UnpicklingError("more than names and shapes")
    source = io.BytesIO(records.read(names["data.pkl"]))
    unpickler = InertUnpickler(source, file.size, KNOWN, refer)
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
        _check_storage(what, dtype, key)
        declared.setdefault(key, (dtype, _natural(numel)))
        offset, length = (0, numel) if view is None else view[1:]
        if _natural(offset) + _natural(length) > declared[key][1]:
            raise pickle.UnpicklingError("a view beyond its storage")
        shift = offset * dtype.itemsize

        def read(begin: int, end: int) -> bytearray:  # once it is known where the storage starts
            start = starts[key] + shift
            return file.read(start + begin, start + end)

        return Storage(dtype, length * dtype.itemsize, read)

    def part() -> Any:  # noqa: ANN401 - a pickle may hold anything
        return InertUnpickler(stream, file.size, {}).load()

    if part() != LEGACY_MAGIC or part() != LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("not of torch")
    part()  # about the machine; all that follows is little-endian on any
    unpickler = InertUnpickler(stream, file.size, KNOWN, refer)
    value = unpickler.load()
    starts.update(_storage_starts(stream, file.size, part(), declared))
    return Contents(value, "torch-legacy", frozenset(unpickler.classes))


def _storage_starts(
    stream: io.BufferedReader,
    file_size: int,
    keys: Iterable[object],
    declared: dict[str, tuple[torch.dtype, int]],
) -> dict[str, int]:
    """Return the byte at which each storage begins, from where the stream is."""
    starts = {}
    for key in keys:
        if not isinstance(key, str):  # to hash a deep tuple overflows the stack
            raise pickle.UnpicklingError("a storage without a name")
        dtype, numel = declared[key]
        held = int.from_bytes(stream.read(8), "little")
        starts[key] = stream.tell()
        end = starts[key] + numel * dtype.itemsize
        if held != numel or end > file_size:
            raise pickle.UnpicklingError(f"storage {key} is too short")
        stream.seek(end)
    if declared.keys() - starts.keys():
        raise pickle.UnpicklingError("lacks storages")
    return starts


def _check_storage(what: object, dtype: object, key: object) -> None:
    if what != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
        raise pickle.UnpicklingError("refers to something else than a storage")


# Messages below don't show what they got: a small pickle may hold what takes for ever to print.
def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise pickle.UnpicklingError("a size that is no natural number")
    return value


def _shape(size: Any) -> tuple[int, ...]:  # noqa: ANN401
    if not is_shape(size):
        raise pickle.UnpicklingError("a shape that no tensor has")
    return tuple(size)


def _tensor(
    storage: Storage,
    offset: int,
    size: Any,  # noqa: ANN401
    stride: Any,  # noqa: ANN401
    *rest: Any,  # noqa: ANN401
    is_typed: bool = False,
) -> Stored:
    """Replace _rebuild_tensor_v2, and v3 which is typed.

    Requires_grad and backward hooks follow the stride, then the type and the metadata.
    """
    shape, steps = _shape(size), tuple(map(_natural, stride))
    if len(shape) != len(steps):
        raise pickle.UnpicklingError("a shape without strides")
    dtype = rest[2] if is_typed else storage.dtype
    numbers, begin = span(shape, steps), _natural(offset) * dtype.itemsize
    if begin + numbers * dtype.itemsize > storage.nbytes and numbers:
        raise pickle.UnpicklingError("a tensor beyond its storage")
    kind = "conjugated or negated" if any(rest[2 + is_typed :]) else "plain"
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
    size = next(part for part in data if isinstance(part, tuple))
    return _unreadable("sparse", size, getattr(torch, parts[-1].dtype, None))


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
    "tensor_v3": partial(_tensor, is_typed=True),
    "parameter": lambda data, *_: data,
    "parameter_with_state": lambda data, *_: data,
    "sparse_tensor": _sparse,
    "qtensor": lambda storage, _offset, size, *_: _unreadable("quantised", size, storage.dtype),
    "meta_tensor_no_storage": lambda dtype, size, *_: _unreadable("meta", size, dtype),
}
# What a pickle finds by name: types, storages, and our functions in place of torch's.
KNOWN: dict[str, object] = {
    **{f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
    **{
        f"{module}.{name}Storage": dtype
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, dtype in STORAGES.items()
    },
    **{f"torch._utils._rebuild_{name}": Known(function) for name, function in REBUILDING.items()},
    "torch._tensor._rebuild_from_type_v2": Known(
        lambda function, _type, args, _: (function, args), forwards=True
    ),
    "torch.Size": Known(tuple),
}
