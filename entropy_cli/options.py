"""Options that more than one command has, and the parsing of their values."""

import contextlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from entropy_cli.entropy.quantity import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    MOST_TEMPERATURES,
    TemperatureChoice,
)
from entropy_cli.tokenizers.limits import MOST_PIXELS, MOST_SCALES, MOST_SIDE

logger = logging.getLogger(__name__)

MAX_FAILED = 0.01  # share of unreadable images that is nothing to worry about
# The most of what several commands have, far above what is of use.
MOST_IMAGES, MOST_BATCH, MOST_WORKERS = 10**9, 2**16, 1024
MOST_CODES, MOST_WIDTH, MOST_HEADS = 2**20, 2**12, 2**10
MOST_SEED, MOST_NATS, MOST_SECONDS = 2**63 - 1, 10**6, 10**6
INCOMPLETE = 4  # exit code: done, but too many images could not be read


class BadValue(typer.BadParameter):
    """A value that a parser or callback refuses; typer adds the option."""

    def format_message(self) -> str:
        """Return the message, after the option's long name."""
        self.param_hint = self.param.opts[0] if self.param else None
        return super().format_message()


def number_parser(
    least: float, most: float, *, whole: bool = True, word: str | None = None
) -> Callable[[Any], Any]:
    """Return a parser of numbers in a range, and of a word, if there is one, as None.

    Args:
        least: the least that is allowed.
        most: the most that is allowed, so that no computation overflows; never infinite.
        whole: whether only whole numbers are allowed.
        word: stands for None.
    """
    number: type[float] = int if whole else float
    ends = [f"{end:,}" if whole else f"{end:g}" for end in (least, most)]
    expected = f"{f'{word} or ' if word else ''}a {'whole ' * whole}number from {' to '.join(ends)}"

    def parse_number(given: Any) -> float | None:  # noqa: ANN401 - text, or a default
        if given == word:
            return None
        with contextlib.suppress(ValueError):  # also of Python's limit of digits
            if least <= (value := number(given)) <= most:
                return value
        raise BadValue(f"{str(given)[:40]}: expected {expected}.")

    parse_number.limits = (least, most)  # type: ignore[attr-defined]  # for the test of all options
    return parse_number


def whole(least: int, most: int, help_text: str, metavar: str = "N", **more: Any) -> Any:  # noqa: ANN401
    """Return an option that takes a whole number in a range; `more` is typer's."""
    return typer.Option(metavar=metavar, parser=number_parser(least, most), help=help_text, **more)


def number(least: float, most: float, help_text: str, metavar: str = "F", **more: Any) -> Any:  # noqa: ANN401
    """Return an option that takes a number in a range; `more` is typer's."""
    parser = number_parser(least, most, whole=False)
    return typer.Option(metavar=metavar, parser=parser, help=help_text, **more)


def whole_or_auto(least: int, most: int, help_text: str) -> Any:  # noqa: ANN401 - typer's
    """Return an option that takes a whole number in a range, or auto as None."""
    parser = number_parser(least, most, word="auto")
    shown = f"{help_text}  [default: auto]"  # of typer itself, it would be (auto)
    return typer.Option(metavar="N|auto", parser=parser, show_default=False, help=shown)


class Sides(tuple[int, ...]):
    """Whole numbers, such as the sides of the grids of all scales."""


def list_parser(least: int, most: int, length: int) -> Callable[[str], Sides]:
    """Return a parser of at most so many whole numbers in a range, separated by commas."""
    parse = number_parser(least, most)

    def parse_list(text: str) -> Sides:
        parts = text.split(",")
        if len(parts) > length:
            raise BadValue(f"got {len(parts)} numbers, expected at most {length}.")
        try:
            return Sides(map(parse, parts))
        except BadValue as error:
            raise BadValue(f"{error.message.rstrip('.')}, and others after commas.") from error

    parse_list.limits = (least, most)  # type: ignore[attr-defined]  # for the test of all options
    return parse_list


parse_sides = list_parser(1, MOST_SIDE, MOST_SCALES)


class Temperatures(tuple[TemperatureChoice, ...]):
    """Temperatures, the headline first: numbers, and "auto" for one fitted to each scale."""


def parse_temperatures(text: str) -> Temperatures:
    """Parse distinct positive numbers, or `auto`, separated by commas."""
    values = Temperatures(_temperature(part) for part in text.split(","))
    if len(values) > MOST_TEMPERATURES:
        raise BadValue(f"got {len(values)} temperatures, expected at most {MOST_TEMPERATURES}.")
    if len(set(values)) != len(values):
        raise BadValue(f"{text}: a temperature is given twice.")
    return values


def _temperature(text: str) -> TemperatureChoice:
    if text.strip() == "auto":
        return "auto"
    with contextlib.suppress(ValueError):
        value = float(text)
        if LOWEST_TEMPERATURE <= value <= HIGHEST_TEMPERATURE:
            return value
    raise BadValue(
        f"{text.strip() or 'nothing'}: expected numbers between {LOWEST_TEMPERATURE:g} and "
        f"{HIGHEST_TEMPERATURE:g}, or auto, separated by commas, such as 1,auto."
    )


def parse_keyed_file(text: str) -> str:
    """Check that no part of `FILE[:KEY,...]` is empty."""
    if text.partition(":")[0].strip() and all(part.strip() for part in keyed_file(text)[1]):
        return text
    raise BadValue(f"{text}: a part is empty; is a variable unset? Expected FILE[:KEY,...].")


def keyed_file(text: str) -> tuple[Path, list[str]]:
    """Return the file and the keys of `FILE[:KEY,...]`."""
    from entropy_cli.tokenizers.checkpoints.arrays import split_keys

    return split_keys(text)


def suffix_parser(*suffixes: str) -> Callable[[str], Path]:
    """Return a parser of paths that end in one of some suffixes."""

    def parse_output(text: str) -> Path:
        if Path(text).suffix.lower() in suffixes:
            return Path(text)
        expected = f"a name that ends in {', '.join(suffixes)}" if suffixes[1:] else f"FILE{suffixes[0]}"
        raise BadValue(f"{text}: expected {expected}.")

    return parse_output


def parse_device(text: str) -> str:
    """Check that a device is auto, cpu, cuda or cuda:i."""
    if re.fullmatch("auto|cpu|cuda(:[0-9]{1,2})?", text):
        return text
    raise BadValue(f"{text}: expected auto, cpu, cuda or cuda:0, cuda:1, ...")


def parse_family(name: str) -> str:
    """Check that a family is auto or a known one."""
    if name == "auto":
        return name
    from entropy_cli.tokenizers.registry import FAMILIES

    if name in FAMILIES:
        return name
    raise BadValue(f"{name}: expected auto, {', '.join(FAMILIES)}.")


def exit_code(used: int, failed: int, max_failed: float) -> int:
    """Return the exit code of a command that has finished; say why if it is not 0, as the last line."""
    if failed <= max_failed * (used + failed):
        return 0
    logger.error(  # --quiet shows errors alone, and who reads a job's log must see why it failed
        "%s of %s images could not be read, a larger share than --max-failed %g: exit code %d",
        *(f"{failed:,}", f"{used + failed:,}", max_failed, INCOMPLETE),
    )
    return INCOMPLETE


Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR|FILES",
        help="Folder of images or of archives with images, archives such as 'v-{000..063}.tar', or an "
        "address such as hf://datasets/ORG/NAME; see `guide places`.",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--ckpt",
        help="The tokenizer: .pth, .pt, .ckpt, .bin or .safetensors, their index, a folder, or an "
        "address such as hf://ORG/REPO/FILE; see `guide places`.",
        metavar="FILE",
    ),
]
Family = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        parser=parse_family,
        help="Family of the tokenizer: auto finds it by names and shapes in the checkpoint; see "
        "`guide checkpoints`.",
    ),
]
PatchNums = Annotated[
    Sides | None,
    typer.Option(
        metavar="1,2,3,...",
        parser=parse_sides,
        help="Side of each scale's grid, in tokens; default: from config.json beside the checkpoint, "
        "else by family and image size.",
    ),
]
ImageSize = Annotated[
    int | None,
    whole(
        1,
        MOST_PIXELS,
        "Side of the images in pixels; default: from config.json beside the checkpoint, else the "
        "family's.",
    ),
]
Weights = Annotated[
    Literal["raw", "ema"] | None,
    typer.Option(
        help="Copy of the weights: raw, as last trained, or ema, averaged over the training; default: "
        "the family's."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME", parser=parse_device, help="Device to compute on: auto, cpu, cuda, cuda:0, ..."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result as JSON.")
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace output files even where entropy-cli did not write them."),
]
MaxFailed = Annotated[float, number(0, 1, "Share of unreadable images above which the exit code is 4.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of text.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Print the legend, the provenance and the notes.")
]
WholeTable = Annotated[bool, typer.Option("--table", help="Print the full tables.")]
Units = Annotated[
    Literal["nats", "bits"], typer.Option(help="Unit of what is printed; files are in nats.")
]
