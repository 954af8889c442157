"""Inputs from a Python program: check them and cut them into blocks."""

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from entropy_cli.api.arrays import Array, check_batch, describe, shown, to_tensor
from entropy_cli.core.errors import EntropyCliError, ShapeError
from entropy_cli.entropy.quantity import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, TemperatureChoice
from entropy_cli.images.image_set import group_of
from entropy_cli.images.loader import Batch
from entropy_cli.images.plan import BLOCK


def checked_temperatures(
    given: TemperatureChoice | Sequence[TemperatureChoice] | None,
) -> tuple[TemperatureChoice, ...] | None:
    """Return temperatures as a tuple, or None for the default.

    Raises:
        EntropyCliError: they are not distinct positive numbers that float32 can hold.
    """
    if given is None:
        return None
    is_one = isinstance(given, (str, Real)) and not isinstance(given, bool)  # numpy's numbers are Real
    values: Any = [given] if is_one else given
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        found = tuple(_checked_temperature(value) for value in values)
        if found and len(set(found)) == len(values):
            return found
    raise EntropyCliError(
        f"temperature {shown(given)}: expected distinct numbers between {LOWEST_TEMPERATURE:g} and "
        f"{HIGHEST_TEMPERATURE:g}, or auto."
    )


def _checked_temperature(value: Any) -> TemperatureChoice:  # noqa: ANN401 - whatever was given
    if value == "auto":
        return "auto"
    if isinstance(value, str) or not LOWEST_TEMPERATURE <= float(value) <= HIGHEST_TEMPERATURE:
        raise ValueError(value)
    return float(value)


def whole_numbers(
    name: str, given: Sequence[int] | None, most: int, least: int = 1
) -> tuple[int, ...] | None:
    """Return whole numbers in a range as a tuple, or None.

    Raises:
        EntropyCliError: something else was given.
    """
    if given is None:
        return None
    with contextlib.suppress(TypeError):
        found = tuple(given)
        if found and all(type(number) is int and least <= number <= most for number in found):
            return found
    raise EntropyCliError(f"{name} {shown(given)}: expected whole numbers from {least} to {most:,}.")


def checked_images(batch: Array, size: int | None) -> Tensor:
    """Return a batch of images as a tensor.

    Raises:
        ShapeError: they are not what a loaded tokenizer takes.
    """
    check_batch(batch)
    images_B3HW = to_tensor("images", batch)
    if images_B3HW.dtype != torch.uint8 or images_B3HW.shape[1:] != (3, size, size):
        raise ShapeError(
            f"images: got {describe(batch)}, expected uint8 images (B, 3, {size}, {size}) "
            "of the tokenizer's size."
        )
    return images_B3HW


def to_blocks(inputs: Iterable[Tensor], seed: int) -> Generator[Batch, None, None]:
    """Cut batches of any size into blocks of images, named by their numbers."""
    images = 0
    for input_B in _blocks(inputs):
        places = list(range(images, images + len(input_B)))
        names = [str(place) for place in places]
        images += len(names)
        group_B = torch.tensor([group_of(name, seed) for name in names])
        yield Batch(input_B, group_B, names, places, [], (0,))


def _blocks(inputs: Iterable[Tensor]) -> Iterator[Tensor]:
    held: list[Tensor] = []
    for input_B in inputs:
        held.append(input_B)
        whole = sum(map(len, held)) // BLOCK * BLOCK
        if whole:
            together_B = torch.cat(held)
            yield from (together_B[b : b + BLOCK] for b in range(0, whole, BLOCK))
            held = [together_B[whole:].clone()]
    if sum(map(len, held)):
        yield torch.cat(held)
