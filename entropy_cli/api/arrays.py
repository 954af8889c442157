"""Convert what the Python functions take as tensors: those of torch, and numpy arrays."""

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from entropy_cli.core.errors import ShapeError
from entropy_cli.tokenizers.latents import describe_tensor

Array: TypeAlias = Tensor | np.ndarray


def to_tensor(name: str, array: Array) -> Tensor:
    """Return a tensor as it is, a numpy array as a tensor with memory of its own.

    Raises:
        ShapeError: torch has no such type of numbers, some are masked, or the tensor is not a dense one
            in memory; `name` is what holds them.
    """
    if isinstance(array, Tensor):
        if array.is_meta or array.layout != torch.strided or array.is_quantized or array.is_nested:
            kind = "meta" if array.is_meta else str(array.layout).removeprefix("torch.")
            raise ShapeError(f"{name}: got {describe(array)} ({kind}), expected a dense tensor.")
        return array.detach()
    if np.ma.is_masked(array):
        raise ShapeError(f"{name}: got {describe(array)} with masked numbers, expected all numbers.")
    try:
        # A copy: torch takes no other byte orders or negative strides, and warns of read-only memory.
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise ShapeError(f"{name}: got {describe(array)}, expected a type that torch has.") from error


def shown(value: object) -> str:
    """Return a value as Python writes it, cut to a part of a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of too many digits
        text = describe(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def describe(value: object) -> str:
    """Return shape and type of a tensor or array, the type of anything else, for display."""
    if isinstance(value, Array):
        return describe_tensor(value)
    return f"a value of type {type(value).__name__}"


def check_batch(batch: object) -> None:
    """Raise ShapeError if a batch is no tensor with a row for each image."""
    if not isinstance(batch, Array) or not batch.ndim:
        got = describe(batch)
        raise ShapeError(f"images: got {got}, expected batches, tensors with a row for each image.")
