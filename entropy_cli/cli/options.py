"""Options that more than one command has, and the parsing of their values."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# Outside, float32 arithmetic on logits divided by a temperature leaves its range.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1e-30, 1e30


def parse_temperatures(text: str) -> tuple[float, ...] | Literal["auto"]:
    """`auto`, or distinct positive numbers with commas between."""
    if text == "auto":
        return "auto"
    values = tuple(_number(part) for part in text.split(","))
    if len(set(values)) != len(values):
        raise typer.BadParameter(f"{text}: a temperature is given twice.")
    return values


def _number(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if LOWEST_TEMPERATURE <= value <= HIGHEST_TEMPERATURE:
            return value
    raise typer.BadParameter(
        f"{text.strip() or 'nothing'}: expected auto, or numbers between {LOWEST_TEMPERATURE:g} and "
        f"{HIGHEST_TEMPERATURE:g} with commas between, such as 1 or 1,0.5."
    )


def parse_patch_nums(text: str) -> tuple[int, ...]:
    """Positive integers with commas between."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise typer.BadParameter(f"{text}: expected positive integers with commas between.")
    return values


def parse_count(text: str, least: int) -> int | None:
    """A whole number, or None for `auto`."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise typer.BadParameter(f"{text}: expected auto or a whole number, at least {least}.")
    return int(text)


def parse_device(text: str) -> str:
    """auto, cpu, cuda or cuda:i."""
    name, _, index = text.partition(":")
    if text in ("auto", "cpu") or (name == "cuda" and (text == "cuda" or index.isdecimal())):
        return text
    raise typer.BadParameter(f"{text}: expected auto, cpu, cuda or cuda:0, cuda:1, ...")


@contextlib.contextmanager
def tqdm_bar(words: str, total: int | None, unit: str, initial: int = 0) -> Iterator[Any]:
    """A progress bar on stderr that appears when there is something to wait for."""
    from tqdm import tqdm

    counts_images = unit == "img" and total is not None
    with tqdm(
        desc=words or None,
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=unit == "B",
        smoothing=0.05,
        delay=0 if counts_images else 1,
        leave=counts_images,
        mininterval=0.2 if sys.stderr.isatty() else 10,  # a job's log has no use for every step
        dynamic_ncols=True,
    ) as bar:
        yield bar


Data = Annotated[Path, typer.Option("--data", help="Folder of images.", metavar="DIR")]
Checkpoint = Annotated[
    Path, typer.Option("--ckpt", help="The tokenizer: .pth, .pt or .safetensors.", metavar="FILE")
]
