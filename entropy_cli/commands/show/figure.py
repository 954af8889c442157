"""The figure of one image: its tokens' entropies, their codes, and the decoded images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from textwrap import fill
from typing import Any

import numpy as np

from entropy_cli.commands.show.result import ShownImage, ShownScale, ShowResult
from entropy_cli.commands.show.sheet import Sheet, colour_bar, entropy_colours, new_sheet, over_grey
from entropy_cli.core.extras import import_extra
from entropy_cli.core.figures import FAINT, INK, styled

MARGIN, GAP, HEAD = 0.3, 0.14, 0.85
ABOVE, BELOW = 0.27, 0.3  # a panel, for its title and its caption
LABELS = 0.5  # left of the first panel of a row
MAX_COLUMNS = 7  # scales in a row
MAX_LABELLED = 5  # codes on a side that still have room for their index
PIXELS = 512  # on a side of a panel, at least
KINDS = {
    "entropy": "assignment entropy,\nnats per token",
    "codes": "most probable codes\nand their probability",
    "decoded": "decoded from the codes\nup to this scale",
}
CODES_NOTE = "Similar colours mean similar code vectors. "
ORDER_NOTE = "Tokens are in order, row by row."
MARK_NOTE = "A frame marks the token of highest entropy."


@dataclass(frozen=True)
class Panel:
    """The colours and the decoded image of a scale.

    Attributes:
        colours_l3: of each token's most probable code, sRGB in [0, 1]; None where codes have no index.
        recon_HW3: the image decoded up to this scale, uint8; None without a decoder.
    """

    colours_l3: np.ndarray | None
    recon_HW3: np.ndarray | None


def draw(shown: ShowResult, index: int, crop_HW3: np.ndarray, panels: Sequence[Panel]) -> Any:  # noqa: ANN401
    """Draw one image: its crop and totals, and the entropies, codes and decoded image of each scale.

    Args:
        shown: all images of the call, which share the colours of entropies.
        index: index of the image to draw.
        crop_HW3: the tokenizer's input, uint8.
        panels: of each scale.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    image = shown.images[index]
    kinds = [kind for kind in KINDS if kind != "decoded" or panels[0].recon_HW3 is not None]
    max_entropy = max(scale.largest for image in shown.images for scale in image.scales)
    with styled():
        if len(panels) == 1:
            return _draw_one(shown, image, crop_HW3, panels[0], kinds, max_entropy)
        return _draw_several(shown, image, crop_HW3, panels, kinds, max_entropy)


def _draw_one(
    shown: ShowResult,
    image: ShownImage,
    crop_HW3: np.ndarray,
    panel: Panel,
    kinds: Sequence[str],
    max_entropy: float,
) -> Any:  # noqa: ANN401
    """Draw a single scale: its panels side by side."""
    side, below = 3.1, 0.95
    width = 2 * MARGIN + (len(kinds) + 1) * (side + 2 * GAP) - 2 * GAP
    sheet = new_sheet(width, HEAD + ABOVE + side + below + MARGIN, max_entropy)
    _header(sheet, shown, image)
    y = HEAD + ABOVE
    _crop(sheet, crop_HW3, MARGIN, y, side)
    _totals(sheet, shown, image, y + side + 0.08, 44)
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
    max_entropy: float,
) -> Any:  # noqa: ANN401
    """Draw a column for each scale, in one or more rows."""
    side, left = 1.75, 2.7
    rows = math.ceil(len(panels) / MAX_COLUMNS)
    columns = math.ceil(len(panels) / rows)
    row_height = ABOVE + len(kinds) * (side + BELOW) + GAP
    start = MARGIN + left + LABELS + 2 * GAP
    width = start + columns * (side + GAP) - GAP + MARGIN
    height = HEAD + max(rows * row_height, ABOVE + left + 2.4) + MARGIN / 2
    sheet = new_sheet(width, height, max_entropy)
    _header(sheet, shown, image)
    y = HEAD + ABOVE
    _crop(sheet, crop_HW3, MARGIN, y, left)
    _totals(sheet, shown, image, y + left + 0.1, 38)
    colour_bar(sheet, MARGIN, y + left + 1.2, left)
    sheet.text(MARGIN, y + left + 1.8, fill(CODES_NOTE + MARK_NOTE, 42), size=8, color=FAINT)
    for s, (scale, panel) in enumerate(zip(image.scales, panels, strict=True)):
        row, column = divmod(s, columns)
        x, y = start + column * (side + GAP), HEAD + row * row_height
        grid = " x ".join(map(str, scale.grid))
        name = scale.name if scale.patch_num or scale.grid[0] == 1 else f"{scale.name}: {grid}"
        sheet.text(x, y, name, size=10.5, weight="bold")
        for k, kind in enumerate(kinds):
            y_panel = y + ABOVE + k * (side + BELOW)
            _panel(sheet, kind, (x, y_panel, side), scale, panel, crop_HW3)
            if column == 0:
                style = {"rotation": 90, "va": "center", "ha": "center", "size": 9, "linespacing": 1.3}
                sheet.text(start - LABELS / 2, y_panel + side / 2, KINDS[kind], **style)
    return sheet.figure


def _header(sheet: Sheet, shown: ShowResult, image: ShownImage) -> None:
    sheet.text(
        MARGIN,
        0.22,
        _truncate(PurePath(image.image).name, int(8.2 * sheet.width)),
        size=13,
        weight="bold",
    )
    tokenizer, side = shown.tokenizer, shown.settings["image_size"]
    temperatures = sorted({scale.temperature for scale in image.scales})
    facts = [f"{tokenizer['family']}, V = {tokenizer['vocab_size']}"]
    ends = temperatures[:1] + temperatures[1:][-1:]
    facts.append("T = " + " to ".join(f"{temperature:g}" for temperature in ends))
    facts += [f"{side} x {side} px", f"{image.tokens} tokens"]
    sheet.text(MARGIN, 0.52, "   ·   ".join(facts), size=10)


def _totals(sheet: Sheet, shown: ShowResult, image: ShownImage, y: float, characters: int) -> None:
    """Write the image's totals."""
    uniform = math.log(shown.tokenizer["vocab_size"])
    lines = [
        f"{image.assignment_entropy:.3f} nats per token (ln V = {uniform:.3f})",
        f"{image.nats_per_image:.4g} nats per image",
        f"{image.bits_per_pixel:.3g} bits per pixel",
    ]
    if shown.settings["no_decoder"]:
        lines.append(fill(f"No decoded images: {shown.settings['no_decoder']}.", characters))
    sheet.text(MARGIN, y, "\n".join(lines), size=9.5, linespacing=1.35)


def _crop(sheet: Sheet, crop_HW3: np.ndarray, x: float, y: float, side: float) -> None:
    sheet.text(x, y - ABOVE, "the tokenizer's input", size=9.5, weight="bold")
    _imshow(sheet.axes(x, y, side, side), crop_HW3)


def _imshow(axes: Any, img_HW3: np.ndarray) -> None:  # noqa: ANN401
    """Draw a square image without smoothing its pixels."""
    factor = max(1, -(-PIXELS // img_HW3.shape[0]))
    img_HW3 = img_HW3.repeat(factor, 0).repeat(factor, 1)
    axes.imshow(img_HW3, extent=(0, 1, 1, 0), interpolation="antialiased")


def _panel(
    sheet: Sheet,
    kind: str,
    box: tuple[float, float, float],
    scale: ShownScale,
    panel: Panel,
    crop_HW3: np.ndarray,
) -> None:
    """Draw one panel of a scale and its caption; `box` is its left, top and side."""
    x, y, side = box
    caption = f"mean {scale.assignment_entropy:.3f}, largest {scale.largest:.3f}"
    if kind == "entropy" and scale.grid[0] == 1 and scale.tokens > 1:
        _entropy_bars(sheet, box, scale)
        caption = ""
    elif kind == "entropy":
        _entropy_map(sheet, sheet.axes(x, y, side, side), scale, crop_HW3)
    elif kind == "codes":
        mean = sum(best[0] for best in scale.probabilities) / scale.tokens
        caption = f"mean probability {_format_probability(mean)}"
        _code_map(sheet.axes(x, y, side, side), scale, panel.colours_l3, side)
    else:
        assert panel.recon_HW3 is not None
        caption = f"PSNR {scale.psnr_db:.1f} dB"
        _imshow(sheet.axes(x, y, side, side), panel.recon_HW3)
    sheet.text(x, y + side + 0.05, caption, size=8.5)


def _entropy_map(sheet: Sheet, axes: Any, scale: ShownScale, crop_HW3: np.ndarray) -> None:  # noqa: ANN401
    """Draw each token's entropy over its part of the image."""
    grey_HW = crop_HW3 @ np.array([0.299, 0.587, 0.114]) / 255
    grey_HW1 = (0.2 + 0.8 * grey_HW)[:, :, None]
    factor = max(1, -(-PIXELS // len(grey_HW)))
    grey_HW1 = grey_HW1.repeat(factor, 0).repeat(factor, 1)
    rows, columns = scale.grid
    entropy_hw = np.reshape(scale.token_entropy, scale.grid)
    row_H, column_W = (np.arange(len(grey_HW1)) * n // len(grey_HW1) for n in (rows, columns))
    _imshow(axes, over_grey(entropy_colours(sheet, entropy_hw[row_H][:, column_W]), grey_HW1))
    if scale.tokens > 1:
        patches = import_extra("matplotlib.patches", "plots", "a figure")
        row, column = scale.most_undecided
        corner = column / columns, row / rows
        for colour, width in ((INK, 2.0), ("white", 1.0)):
            style = {"fill": False, "ec": colour, "lw": width, "clip_on": False}
            axes.add_patch(patches.Rectangle(corner, 1 / columns, 1 / rows, **style))


def _entropy_bars(sheet: Sheet, box: tuple[float, float, float], scale: ShownScale) -> None:
    """Draw the entropies of tokens without a grid, in their order."""
    x, y, side = box
    axes = sheet.axes(x + 0.3, y, side - 0.3, side - 0.15)
    colours_l3 = over_grey(entropy_colours(sheet, scale.token_entropy))
    axes.bar(np.arange(scale.tokens), scale.token_entropy, 0.9, color=colours_l3)
    axes.axhline(scale.assignment_entropy, color=INK, lw=1, ls="--")
    ticker = import_extra("matplotlib.ticker", "plots", "a figure")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.set_xlim(-0.6, scale.tokens - 0.4)
    axes.set_ylim(0, 1.05 * sheet.max_entropy)
    axes.tick_params(length=2, pad=1.5, labelsize=8)
    for edge in ("left", "bottom"):
        axes.spines[edge].set_visible(True)
    label = f"token; mean {scale.assignment_entropy:.3f} (dashed), largest {scale.largest:.3f}"
    axes.set_xlabel(label, size=8.5, labelpad=2)


def _code_map(axes: Any, scale: ShownScale, colours_l3: np.ndarray | None, side: float) -> None:  # noqa: ANN401
    """Draw each token's most probable code: its colour, and its index where there is room."""
    if colours_l3 is None:
        axes.text(0.5, 0.5, "too many codes\nto number", ha="center", va="center", color=FAINT)
        return
    rows, columns = scale.grid
    if rows == 1:  # wrap the row of tokens
        columns = math.ceil(math.sqrt(scale.tokens))
        rows = math.ceil(scale.tokens / columns)
    cells_n3 = np.ones((rows * columns, 3))
    cells_n3[: scale.tokens] = colours_l3
    cells_hw3 = cells_n3.reshape(rows, columns, 3)
    axes.imshow(cells_hw3, extent=(0, 1, 1, 0), interpolation="nearest", aspect="auto")
    if max(rows, columns) > MAX_LABELLED * side / 1.75:
        return
    size = min(9.0, 72 * side / columns / 3.2)
    for i, (code, probability) in enumerate(zip(scale.codes, scale.probabilities, strict=True)):
        row, column = divmod(i, columns)
        ink = "black" if colours_l3[i] @ [0.299, 0.587, 0.114] > 0.5 else "white"
        label = f"{code[0]}\n{_format_probability(probability[0])}"
        centre = (column + 0.5) / columns, (row + 0.5) / rows
        axes.text(*centre, label, size=size, color=ink, ha="center", va="center", linespacing=1.1)


def _format_probability(probability: float) -> str:
    """Format a probability without its leading zero, as .73, .041 or .002; 1 where it rounds to 1."""
    text = f"{probability:.3f}" if probability < 0.0995 else f"{probability:.2f}"
    return text.removeprefix("0") if text < "1" else "1"


def _truncate(name: str, characters: int) -> str:
    return name if len(name) <= characters else f"...{name[3 - characters :]}"
