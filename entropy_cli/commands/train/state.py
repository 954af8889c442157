"""The state that a training resumes from: save it, read it, and compare it with the training."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entropy_cli.commands.train.log import is_begun
from entropy_cli.commands.train.recipe import JSON_KEYS, Recipe
from entropy_cli.commands.train.result import CONFIG, FIGURE, METRICS, MODEL, TRAINER
from entropy_cli.core.errors import CheckpointError, StateError
from entropy_cli.core.files import write_atomically
from entropy_cli.tokenizers.checkpoints.contents import open_file, read_contents
from entropy_cli.tokenizers.checkpoints.stored import Stored

MOST_PARTS = 100_000  # of a state
MOST_COPIES = 4  # of each byte of its file
CHANGEABLE = ("preset", "steps", "warmup", "grad_accum_steps")  # fields that may change on resume


def save_trainer(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state that a training resumes from."""

    def write(path: Path) -> None:
        try:
            torch.save(dict(state), path)
        except RuntimeError as error:  # a full disk, for example
            raise OSError(0, str(error).splitlines()[0]) from error

    write_atomically(folder / TRAINER, write, announced=False)


def load_trainer(folder: Path, *, resume: bool) -> dict[str, Any] | None:
    """Read the state to resume from, or None without one; no code in it is run.

    Raises:
        StateError: it can't be read, or exists although `resume` is false.
    """
    path = folder / TRAINER
    if not path.exists():
        for name in (MODEL, CONFIG, FIGURE, METRICS):
            if (folder / name).exists() and not (name == METRICS and is_begun(folder / name)):
                raise StateError(
                    f"--output {folder}: holds {name}, but no {TRAINER} to resume from. Give another "
                    "--output."
                )
        return None
    if not resume:
        raise StateError(
            f"--output {folder}: holds {path.name} of an earlier training. Give --resume to resume it, "
            "or another --output."
        )
    try:
        file = open_file(path)
        value = _load_tensors(read_contents(file).value, MOST_COPIES * file.size)
    except CheckpointError as error:
        raise StateError(f"{error}; train again with another --output.") from error
    except Exception as error:  # what a damaged file raises has no limit
        raise StateError(
            f"{path}: can't be read: {error}. Train again with another --output."
        ) from error
    if not _is_state(value):
        raise StateError(f"{path}: not the state of a training. Give the --output of a training.")
    return value


def _is_state(value: Any) -> bool:  # noqa: ANN401 - any content of a pickle
    """Return whether a value has the parts of a state, of the right types."""
    try:
        done, seconds = value["trainer"]["done"], value["seconds"]
        right = isinstance(value["recipe"], dict) and isinstance(value["data"], str)
        return right and type(done) is int and done >= 0 and 0 <= seconds < math.inf
    except (KeyError, TypeError):
        return False


def _load_tensors(value: Any, most_bytes: int) -> Any:  # noqa: ANN401 - any content of a pickle
    """Replace stored tensors by tensors, recursively; a small pickle may hold one part many times."""
    parts, nbytes = 0, 0

    def load(value: Any) -> Any:  # noqa: ANN401
        nonlocal parts, nbytes
        parts += 1
        nbytes += math.prod(value.shape) * value.torch_dtype.itemsize if isinstance(value, Stored) else 0
        if parts > MOST_PARTS or nbytes > most_bytes:
            raise ValueError("it repeats its parts until they are more than any training has")
        if isinstance(value, Stored):
            return value.read().clone()
        if isinstance(value, Mapping):
            return {key: load(item) for key, item in value.items()}
        return [load(item) for item in value] if isinstance(value, list) else value

    return load(value)


def check_resumable(state: Mapping[str, Any], recipe: Recipe, data: str) -> None:
    """Raise StateError unless recipe and data are those of the state, except for CHANGEABLE fields."""
    values = recipe.to_json()
    for field in fields(recipe):
        key = JSON_KEYS.get(field.name, field.name)
        if field.name not in CHANGEABLE and (was := state["recipe"].get(key)) != values[key]:
            option = f"--{field.name.replace('_', '-')}"
            raise StateError(
                f"--resume: {TRAINER} was trained with {option} {was!s:.200}, this command has "
                f"{values[key]}. Give the same options, or another --output."
            )
    if state["data"] != data:
        raise StateError(
            f"--resume: {TRAINER} was trained on other images. Give the same --data, or another "
            "--output."
        )


def check_alike(part: str, state: Mapping[str, Any], fresh: Mapping[str, Tensor] | None) -> None:
    """Raise StateError unless a part's tensors have the names, shapes and types of fresh ones."""
    found: Any = state.get(part, {})
    if fresh is None and found is None:
        return
    got, expected = _kinds(found), _kinds(fresh)
    if fresh is None or got != expected or not all(tensor.isfinite().all() for tensor in found.values()):
        names = sorted(name for name in {*got, *expected} if got.get(name) != expected.get(name))
        which = f", {names[0]} for one" if names else ""
        raise StateError(
            f"--resume: the state's {part} is not that of this model{which}. Give another --output."
        )


def _kinds(tensors: Any) -> dict[str, Any]:  # noqa: ANN401 - any content of a pickle
    """Return the shape and type of each tensor; None for what is not one."""
    items = tensors.items() if isinstance(tensors, Mapping) else ()
    return {key: (t.shape, t.dtype) if isinstance(t, Tensor) else None for key, t in items}


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:  # noqa: ANN401
    """Load a saved optimizer's moments; raise StateError if they are damaged or of another model."""
    try:
        optimizer.load_state_dict(state)
        alike = all(
            moment.shape == weight.shape
            for weight, moments in optimizer.state.items()
            for name, moment in moments.items()
            if name != "step"
        )
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise StateError(f"--resume: the optimizer's state can't be used: {error!r}.") from error
    if not alike:
        raise StateError("--resume: the optimizer's state is of another model.")
