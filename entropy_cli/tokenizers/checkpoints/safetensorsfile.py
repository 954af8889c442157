"""Read safetensors files: names, shapes and types first, numbers when they are needed.

Not by the safetensors package: it maps the file, and a file that shrinks under a map kills the process.

Source:
    huggingface/safetensors README.md, "Format"; the types of its tensor.rs.
"""

import math
from typing import Any

import torch

from entropy_cli.core.reading import OpenFile, parse_json
from entropy_cli.tokenizers.checkpoints.stored import Contents, Stored, dtype_name, is_shape, unreadable

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def read_safetensors(file: OpenFile) -> Contents:
    """Describe the tensors of a safetensors file, in the order of the file.

    Raises:
        ValueError: its header contradicts itself or the file.
        OSError: it can't be read.
    """
    header, start = _read_header(file)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"its metadata is {metadata!r:.80}")
    found: dict[str, Stored] = {}
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        begin, end = _offsets(name, entry)
        shape = entry.get("shape")
        if not is_shape(shape):
            raise ValueError(f"{name:.80} has shape {shape!r:.80}")
        dtype = DTYPES.get(str(entry.get("dtype")))
        if begin != at or (dtype and end - begin != math.prod(shape) * dtype.itemsize):
            raise ValueError(f"{name:.80} of shape {shape} lies at bytes {begin} to {end}")
        found[name] = (
            Stored(tuple(shape), dtype_name(dtype), file.read, start + begin)
            if dtype
            else unreadable(tuple(shape), str(entry.get("dtype")), "other")
        )
        at = end
    if start + at != file.size:
        raise ValueError(f"its tensors take {at} bytes, but it has {file.size - start}")
    return Contents(found, "safetensors", metadata=metadata)


def _read_header(file: OpenFile) -> tuple[dict[str, Any], int]:
    """Read the header, and the byte where the numbers begin."""
    length = int.from_bytes(file.read(0, 8), "little") if file.size >= 8 else file.size
    if length > min(MAX_HEADER_BYTES, file.size - 8):
        raise ValueError(f"its header of {length} bytes does not fit in a file of {file.size}")
    header = parse_json(bytes(file.read(8, 8 + length)))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, 8 + length


def _offsets(name: str, entry: Any) -> tuple[int, int]:  # noqa: ANN401 - JSON
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    match offsets:
        case [int(begin), int(end)] if bool not in map(type, offsets) and 0 <= begin <= end:
            return begin, end
    raise ValueError(f"{name:.80} lies at {offsets!r:.80}")
