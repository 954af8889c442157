"""The weights of a module that was pickled whole, or saved as TorchScript: read, and never run."""

from collections.abc import Iterator, Mapping
from typing import Any

from entropy_cli.tokenizers.checkpoints.pickles import Placeholder
from entropy_cli.tokenizers.checkpoints.stored import Stored, UnusableError

PARTS = ("_parameters", "_buffers", "_modules")  # of a pickled module
SCRIPT = "__torch__."  # how the names of TorchScript's classes begin
MOST_NAMES, MOST_DEPTH = 100_000, 50


def unpacked(content: Any) -> Any:  # noqa: ANN401 - a file may hold anything
    """Return a file's contents with state dicts in place of modules, at the top or right below it."""
    if _is_module(content):
        return _state_dict(content)
    if not isinstance(content, Mapping):
        return content
    modules = {name: _state_dict(value) for name, value in content.items() if _is_module(value)}
    return {**content, **modules} if modules else content


def _is_module(content: object) -> bool:
    """Return whether it is what is left of a pickled module, or of a TorchScript one."""
    if not isinstance(content, Placeholder):
        return False
    return "_modules" in content or content.kind.startswith(SCRIPT)


def _state_dict(module: Placeholder) -> dict[str, Stored]:
    """Return the tensors of a module by their names in its state dict, and TorchScript's constants.

    Raises:
        UnusableError: it has more names, or is nested deeper, than any model.
    """
    found: dict[str, Stored] = {}
    for name, tensor in _tensors(module, "", 0):
        found[name] = tensor
        if len(found) > MOST_NAMES:
            raise UnusableError(
                f"holds more than {MOST_NAMES:,} tensors. Save the state dict by itself."
            )
    return found


def _tensors(module: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Stored]]:
    if depth > MOST_DEPTH:
        raise UnusableError(f"is nested more than {MOST_DEPTH} deep. Save the state dict by itself.")
    parts = [module[part] for part in PARTS if isinstance(module.get(part), Mapping)] or [module]
    for part in parts:
        for name, value in part.items():
            if isinstance(value, Stored):
                yield f"{prefix}{name}", value
            elif isinstance(value, Mapping):
                yield from _tensors(value, f"{prefix}{name}.", depth + 1)
