"""Convert JSON documents to dataclasses, checked in every part."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

Document = TypeVar("Document")


def from_json(
    content: Any,  # noqa: ANN401 - any JSON value
    kind: type[Document],
    *,
    unknown: bool = False,
) -> Document:
    """Convert a JSON value to a dataclass.

    Args:
        content: the value; keys are the dataclass's fields, and its annotations are checked down to
            lengths of tuples and to ranges given with `msgspec.Meta`.
        kind: the dataclass, or a TypedDict.
        unknown: whether to ignore keys that it does not have.

    Raises:
        ValueError: naming the path of the first part that is missing, unknown, of another type, out of
            range, NaN or infinite.
    """
    import msgspec

    if path := _nonfinite(content, "$"):
        raise ValueError(f"a number is not finite - at `{path}`")
    try:
        found = msgspec.convert(content, kind)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if not unknown and (path := _unknown(content, msgspec.to_builtins(found), "$")):
        raise ValueError(f"unknown key - at `{path}`")
    return found


def _nonfinite(value: Any, path: str) -> str | None:  # noqa: ANN401 - any JSON value
    """Return the path of the first number that no finite float can hold."""
    if isinstance(value, float | int):
        return None if abs(value) <= sys.float_info.max else path
    return _first(_nonfinite(inner, f"{path}{key}") for key, inner in _parts(value))


def _unknown(value: Any, known: Any, path: str) -> str | None:  # noqa: ANN401 - any JSON value
    """Return the path of the first key that the dataclass does not have."""
    inner = dict(_parts(known))
    return _first(
        _unknown(part, inner[key], f"{path}{key}") if key in inner else f"{path}{key}"
        for key, part in _parts(value)
    )


def _parts(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON value
    """Iterate over the parts of an object or a list, each with its step in a path."""
    if isinstance(value, Mapping):
        yield from ((f".{key}", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))


def _first(paths: Iterable[str | None]) -> str | None:
    return next((path for path in paths if path is not None), None)
