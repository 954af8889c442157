"""The picture of one image's tokens: how undecided they are, their codes, and what these keep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from textwrap import fill
from typing import Any

import numpy as np

from entropy_cli.commands.show.result import ShownImage, ShownScale, ShowResult
from entropy_cli.commands.show.sheet import Sheet, colour_bar, colours, new_sheet, on_paper
from entropy_cli.core.extras import import_extra
from entropy_cli.core.figures import FAINT, INK, styled

MARGIN, GAP, HEAD = 0.3, 0.14, 0.85
ABOVE, BELOW = 0.27, 0.3  # of a panel, for its title and its caption
LABELS = 0.5  # beside the first panel of a row
MOST_IN_A_ROW = 7  # scales
MOST_WRITTEN = 5  # codes on a side that still have room for their numbers
PIXELS = 512  # of a panel, at least
KINDS = {
    "entropy": "assignment entropy,\nnats per token",
    "codes": "most probable codes\nand their probability",
    "decoded": "decoded from the codes\nof the scales so far",
}
CODES_NOTE = "Codes of like colour have like vectors. "
ORDER_NOTE = "Tokens are in their order, row by row."
MARK_NOTE = "A frame marks the most undecided token."


@dataclass(frozen=True)
class Panel:
    """What is drawn of a scale beside its numbers.

    Attributes:
        colours_l3: of each token's most probable code, sRGB in [0, 1]; None where codes have no number.
        decoded_HW3: the picture decoded up to this scale, uint8; None without a decoder.
    """

    colours_l3: np.ndarray | None
    decoded_HW3: np.ndarray | None


def draw(shown: ShowResult, index: int, crop_HW3: np.ndarray, panels: Sequence[Panel]) -> Any:  # noqa: ANN401
    """One image: its crop and totals, and of each scale entropies, codes, and what is decoded so far.

    Args:
        shown: all images of the call, which share the colours of entropies.
        index: of this one.
        crop_HW3: what the tokenizer sees, uint8.
        panels: of each scale.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    image = shown.images[index]
    kinds = [kind for kind in KINDS if kind != "decoded" or panels[0].decoded_HW3 is not None]
    top = max(scale.largest for one in shown.images for scale in one.scales)
    with styled():
        if len(panels) == 1:
            return _draw_one(shown, image, crop_HW3, panels[0], kinds, top)
        return _draw_several(shown, image, crop_HW3, panels, kinds, top)


def _draw_one(
    shown: ShowResult,
    image: ShownImage,
    crop_HW3: np.ndarray,
    panel: Panel,
    kinds: Sequence[str],
    top: float,
) -> Any:  # noqa: ANN401
    """A single scale: its panels side by side."""
    side, below = 3.1, 0.95
    width = 2 * MARGIN + (len(kinds) + 1) * (side + 2 * GAP) - 2 * GAP
    sheet = new_sheet(width, HEAD + ABOVE + side + below + MARGIN, top)
    _head(sheet, shown, image)
    y = HEAD + ABOVE
    _crop(sheet, crop_HW3, MARGIN, y, side)
    _facts(sheet, shown, image, y + side + 0.08, 44)
    for k, kind in enumerate(kinds):
        x = MARGIN + (k + 1) * (side + 2 * GAP)
        sheet.text(x, y - ABOVE, KINDS[kind].replace("\n", " "), size=9.5, weight="bold")
        _panel(sheet, kind, (x, y, side), image.scales[0], panel, crop_HW3)
        if kind == "entropy":
            colour_bar(sheet, x, y + side + 0.42, side)
        if kind == "codes":
            sheet.text(
                x,
                y + side + 0.3,
                fill(CODES_NOTE + (ORDER_NOTE if image.scales[0].grid[0] == 1 else MARK_NOTE), 50),
                size=8,
                color=FAINT,
            )
    return sheet.figure


def _draw_several(
    shown: ShowResult,
    image: ShownImage,
    crop_HW3: np.ndarray,
    panels: Sequence[Panel],
    kinds: Sequence[str],
    top: float,
) -> Any:  # noqa: ANN401
    """A column for each scale, in one or more rows of columns."""
    side, left = 1.75, 2.7
    rows = math.ceil(len(panels) / MOST_IN_A_ROW)
    in_a_row = math.ceil(len(panels) / rows)
    deep = ABOVE + len(kinds) * (side + BELOW) + GAP
    start = MARGIN + left + LABELS + 2 * GAP
    width = start + in_a_row * (side + GAP) - GAP + MARGIN
    sheet = new_sheet(width, HEAD + max(rows * deep, ABOVE + left + 2.4) + MARGIN / 2, top)
    _head(sheet, shown, image)
    y = HEAD + ABOVE
    _crop(sheet, crop_HW3, MARGIN, y, left)
    _facts(sheet, shown, image, y + left + 0.1, 38)
    colour_bar(sheet, MARGIN, y + left + 1.2, left)
    sheet.text(MARGIN, y + left + 1.8, fill(CODES_NOTE + MARK_NOTE, 42), size=8, color=FAINT)
    for s, (scale, panel) in enumerate(zip(image.scales, panels, strict=True)):
        row, column = divmod(s, in_a_row)
        x, y = start + column * (side + GAP), HEAD + row * deep
        grid = " x ".join(map(str, scale.grid))
        name = scale.name if scale.patch_num or scale.grid[0] == 1 else f"{scale.name}: {grid}"
        sheet.text(x, y, name, size=10.5, weight="bold")
        for k, kind in enumerate(kinds):
            y_panel = y + ABOVE + k * (side + BELOW)
            _panel(sheet, kind, (x, y_panel, side), scale, panel, crop_HW3)
            if column == 0:
                place = {"rotation": 90, "va": "center", "ha": "center", "size": 9, "linespacing": 1.3}
                sheet.text(start - LABELS / 2, y_panel + side / 2, KINDS[kind], **place)
    return sheet.figure


def _head(sheet: Sheet, shown: ShowResult, image: ShownImage) -> None:
    sheet.text(
        MARGIN,
        0.22,
        _shortened(PurePath(image.image).name, int(8.2 * sheet.width)),
        size=13,
        weight="bold",
    )
    tokenizer, side = shown.tokenizer, shown.settings["image_size"]
    temperatures = sorted({scale.temperature for scale in image.scales})
    words = [f"{tokenizer['family']}, V = {tokenizer['vocab_size']}"]
    ends = temperatures[:1] + temperatures[1:][-1:]
    words.append("T = " + " to ".join(f"{temperature:g}" for temperature in ends))
    words += [f"{side} x {side} px", f"{image.tokens} tokens"]
    sheet.text(MARGIN, 0.52, "   ·   ".join(words), size=10)


def _facts(sheet: Sheet, shown: ShowResult, image: ShownImage, y: float, characters: int) -> None:
    """The image's totals."""
    top = math.log(shown.tokenizer["vocab_size"])
    lines = [
        f"{image.assignment_entropy:.3f} nats per token (ln V = {top:.3f})",
        f"{image.nats_per_image:.4g} nats per image",
        f"{image.bits_per_pixel:.3g} bits per pixel",
    ]
    if shown.settings["no_decoder"]:
        lines.append(fill(f"Nothing decoded: {shown.settings['no_decoder']}.", characters))
    sheet.text(MARGIN, y, "\n".join(lines), size=9.5, linespacing=1.35)


def _crop(sheet: Sheet, crop_HW3: np.ndarray, x: float, y: float, side: float) -> None:
    sheet.text(x, y - ABOVE, "what the tokenizer sees", size=9.5, weight="bold")
    _imshow(sheet.axes(x, y, side, side), crop_HW3)


def _imshow(axes: Any, img_HW3: np.ndarray) -> None:  # noqa: ANN401
    """A square picture, each pixel a small square."""
    factor = max(1, -(-PIXELS // img_HW3.shape[0]))
    img_HW3 = img_HW3.repeat(factor, 0).repeat(factor, 1)
    axes.imshow(img_HW3, extent=(0, 1, 1, 0), interpolation="antialiased")


def _panel(
    sheet: Sheet,
    kind: str,
    place: tuple[float, float, float],
    scale: ShownScale,
    panel: Panel,
    crop_HW3: np.ndarray,
) -> None:
    """One of the panels of a scale, and what is written below it."""
    x, y, side = place
    caption = f"mean {scale.assignment_entropy:.3f}, largest {scale.largest:.3f}"
    if kind == "entropy" and scale.grid[0] == 1 and scale.tokens > 1:
        _bars(sheet, place, scale)
        caption = ""
    elif kind == "entropy":
        _entropies(sheet, sheet.axes(x, y, side, side), scale, crop_HW3)
    elif kind == "codes":
        mean = sum(best[0] for best in scale.probabilities) / scale.tokens
        caption = f"mean probability {_short(mean)}"
        _codes(sheet.axes(x, y, side, side), scale, panel.colours_l3, side)
    else:
        assert panel.decoded_HW3 is not None
        caption = f"PSNR {scale.psnr_db:.1f} dB"
        _imshow(sheet.axes(x, y, side, side), panel.decoded_HW3)
    sheet.text(x, y + side + 0.05, caption, size=8.5)


def _entropies(sheet: Sheet, axes: Any, scale: ShownScale, crop_HW3: np.ndarray) -> None:  # noqa: ANN401
    """Each token's entropy over the part of the image that it stands for."""
    grey_HW = crop_HW3 @ np.array([0.299, 0.587, 0.114]) / 255
    grey_HW1 = (0.2 + 0.8 * grey_HW)[:, :, None]
    factor = max(1, -(-PIXELS // len(grey_HW)))
    grey_HW1 = grey_HW1.repeat(factor, 0).repeat(factor, 1)
    rows, columns = scale.grid
    entropy_hw = np.reshape(scale.token_entropy, scale.grid)
    row_H, column_W = (np.arange(len(grey_HW1)) * n // len(grey_HW1) for n in (rows, columns))
    _imshow(axes, on_paper(colours(sheet, entropy_hw[row_H][:, column_W]), grey_HW1))
    if scale.tokens > 1:
        patches = import_extra("matplotlib.patches", "plots", "a picture")
        row, column = scale.most_undecided
        corner = column / columns, row / rows
        for colour, width in ((INK, 2.0), ("white", 1.0)):
            style = {"fill": False, "ec": colour, "lw": width, "clip_on": False}
            axes.add_patch(patches.Rectangle(corner, 1 / columns, 1 / rows, **style))


def _bars(sheet: Sheet, place: tuple[float, float, float], scale: ShownScale) -> None:
    """Entropies of tokens that have no place in the image, in their order."""
    x, y, side = place
    axes = sheet.axes(x + 0.3, y, side - 0.3, side - 0.15)
    number_l = np.arange(scale.tokens)
    axes.bar(number_l, scale.token_entropy, 0.9, color=on_paper(colours(sheet, scale.token_entropy)))
    axes.axhline(scale.assignment_entropy, color=INK, lw=1, ls="--")
    ticker = import_extra("matplotlib.ticker", "plots", "a picture")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.set_xlim(-0.6, scale.tokens - 0.4)
    axes.set_ylim(0, 1.05 * sheet.top)
    axes.tick_params(length=2, pad=1.5, labelsize=8)
    for edge in ("left", "bottom"):
        axes.spines[edge].set_visible(True)
    words = f"token; mean {scale.assignment_entropy:.3f} (dashed), largest {scale.largest:.3f}"
    axes.set_xlabel(words, size=8.5, labelpad=2)


def _codes(axes: Any, scale: ShownScale, colours_l3: np.ndarray | None, side: float) -> None:  # noqa: ANN401
    """The most probable code of each token: its colour, and its number where there is room."""
    if colours_l3 is None:
        axes.text(0.5, 0.5, "too many codes\nto number", ha="center", va="center", color=FAINT)
        return
    rows, columns = scale.grid
    if rows == 1:  # a row of tokens goes on in the next line
        columns = math.ceil(math.sqrt(scale.tokens))
        rows = math.ceil(scale.tokens / columns)
    cells_n3 = np.ones((rows * columns, 3))
    cells_n3[: scale.tokens] = colours_l3
    cells_hw3 = cells_n3.reshape(rows, columns, 3)
    axes.imshow(cells_hw3, extent=(0, 1, 1, 0), interpolation="nearest", aspect="auto")
    if max(rows, columns) > MOST_WRITTEN * side / 1.75:
        return
    size = min(9.0, 72 * side / columns / 3.2)
    for i, (code, probability) in enumerate(zip(scale.codes, scale.probabilities, strict=True)):
        row, column = divmod(i, columns)
        ink = "black" if colours_l3[i] @ [0.299, 0.587, 0.114] > 0.5 else "white"
        words = f"{code[0]}\n{_short(probability[0])}"
        middle = (column + 0.5) / columns, (row + 0.5) / rows
        axes.text(*middle, words, size=size, color=ink, ha="center", va="center", linespacing=1.1)


def _short(probability: float) -> str:
    """.73, .041, .002, or 1 of what rounds to it."""
    text = f"{probability:.3f}" if probability < 0.0995 else f"{probability:.2f}"
    return text.removeprefix("0") if text < "1" else "1"


def _shortened(name: str, characters: int) -> str:
    return name if len(name) <= characters else f"...{name[3 - characters :]}"
