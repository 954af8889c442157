"""The figure of one image: its tokens' entropies, their codes, and the decoded images.

Sizes are in inches from the upper left corner, so that nothing moves with the length of a text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from textwrap import wrap
from typing import Any

import numpy as np

from entropy_cli.commands.show.result import ShownImage, ShownScale, ShowResult
from entropy_cli.core.extras import import_extra
from entropy_cli.core.figures import FAINT, INK, Axes, Figure, new_figure, styled

MARGIN, GAP, HEAD = 0.3, 0.14, 0.85
ABOVE, BELOW = 0.27, 0.3  # a panel, for its title and its caption
LABELS = 0.5  # left of the first panel of a row
SINGLE, SIDE, LEFT = 3.3, 1.75, 2.7  # sides of a panel, alone and of several scales; of their input
LEAST_WIDTH, LEFT_BELOW = 9.3, 2.4  # of the figure, for its title; height of the texts below the input
LINE, LINE_CHARACTERS = 0.18, 42  # height and length of the lines below the input
MAX_COLUMNS = 7  # scales in a row
MAX_LABELLED = 5  # codes on a side that still have room for their index
KINDS = {
    "entropy": "assignment entropy,\nnats per token",
    "codes": "most probable codes\nand their probability",
    "decoded": "decoded from the codes\nup to this scale",
}
CODES_NOTE = "Similar colours of codes mean similar code vectors."
FRAME_NOTE, ROW_NOTE = "A frame marks the token of highest entropy.", "Tokens are in order, row by row."


@dataclass(frozen=True)
class _Sheet:
    """A figure with coordinates in inches, and the colours of entropies, a ScalarMappable."""

    figure: Figure
    colours: Any

    @property
    def size(self) -> Any:  # noqa: ANN401 - an array
        """The width and height."""
        return self.figure.get_size_inches()

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Add axes without ticks."""
        box = np.array([[x, self.size[1] - y - height], [width, height]]) / self.size
        axes = self.figure.add_axes(box.ravel())
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        return axes

    def text(self, x: float, y: float, content: str, **style: Any) -> None:  # noqa: ANN401
        """Write text whose upper left corner is at x, y, unless the style says otherwise."""
        style = {"va": "top", "ha": "left"} | style
        self.figure.text(x / self.size[0], 1 - y / self.size[1], content, **style)


def draw(
    shown: ShowResult,
    index: int,
    crop_HW3: np.ndarray,
    colours: Sequence[np.ndarray | None],
    recons: Sequence[np.ndarray],
) -> Figure:
    """Draw one image: its crop and totals, and the entropies, codes and decoded image of each scale.

    Args:
        shown: all images of the call, which share the colours of entropies.
        index: index of the image to draw.
        crop_HW3: the tokenizer's input, uint8.
        colours: of the most probable code of each token, for each scale sRGB in [0, 1], (l, 3); None
            where codes have no index.
        recons: the image decoded up to each scale, uint8 (H, W, 3); none without a decoder.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    image, several = shown.images[index], len(colours) > 1
    kinds = list(KINDS) if recons else [kind for kind in KINDS if kind != "decoded"]
    side, left = (SIDE, LEFT) if several else (SINGLE, SINGLE)
    rows = math.ceil(len(colours) / MAX_COLUMNS)
    columns = math.ceil(len(colours) / rows) if several else len(kinds)
    row_height = ABOVE + (len(kinds) if several else 1) * (side + BELOW) + GAP
    start, top = MARGIN + left + (LABELS if several else 0) + 2 * GAP, HEAD + ABOVE
    width = max(LEAST_WIDTH, start + columns * (side + GAP) - GAP + MARGIN)
    height = HEAD + max(rows * row_height, ABOVE + left + LEFT_BELOW) + MARGIN / 2
    with styled():
        sheet = _new_sheet(shown, width, height)
        _write_header(sheet, shown, image)
        _draw_left(sheet, shown, image, crop_HW3, left)
        for s, scale in enumerate(image.scales):
            row, column = divmod(s, columns)
            for k, kind in enumerate(kinds):
                x = start + (column if several else k) * (side + GAP)
                y = top + (row * row_height + k * (side + BELOW) if several else 0)
                if k == 0 or not several:
                    title = _name(scale) if several else KINDS[kind].replace("\n", " ")
                    sheet.text(x, y - ABOVE, title, size=10, weight="bold")
                if several and column == 0:
                    style = {"rotation": 90, "va": "center", "ha": "center", "linespacing": 1.3}
                    sheet.text(start - LABELS / 2, y + side / 2, KINDS[kind], size=9, **style)
                if kind == "entropy":
                    caption = _draw_entropies(sheet, x, y, side, scale)
                elif kind == "codes":
                    caption = _draw_codes(sheet.axes(x, y, side, side), scale, colours[s], side)
                else:
                    sheet.axes(x, y, side, side).imshow(recons[s])
                    caption = f"PSNR {scale.psnr_db:.1f} dB"
                sheet.text(x, y + side + 0.05, caption, size=8.5)
    return sheet.figure


def _new_sheet(shown: ShowResult, width: float, height: float) -> _Sheet:
    """Create an empty sheet, with one colour scale for the entropies of all images of the call."""
    entropies = [h for image in shown.images for scale in image.scales for h in scale.token_entropy]
    ticker = import_extra("matplotlib.ticker", "plots", "a figure")
    ticks = ticker.MaxNLocator(5).tick_values(max(0.0, min(entropies)), max(1e-3, max(entropies)))
    colours = import_extra("matplotlib.cm", "plots", "a figure").ScalarMappable(cmap="viridis")
    colours.set_clim(ticks[0], ticks[-1])
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    return _Sheet(figure, colours)


def _write_header(sheet: _Sheet, shown: ShowResult, image: ShownImage) -> None:
    """Write what was found, and of which image with which tokenizer."""
    tokenizer, side = shown.tokenizer, shown.settings["image_size"]
    share = image.assignment_entropy / math.log(tokenizer["vocab_size"])
    finding = f"{image.assignment_entropy:.3f} nats per token, {share:.0%} of ln V"
    by_entropy = sorted(image.scales, key=lambda scale: scale.assignment_entropy)
    if by_entropy[1:]:
        finding += f"; least at {by_entropy[0].name}, most at {by_entropy[-1].name}"
    else:
        finding += f"; {by_entropy[0].share_above_1_nat:.0%} of the tokens above 1 nat"
    sheet.text(MARGIN, 0.22, finding, size=13, weight="bold")
    temperatures = sorted({scale.temperature for scale in image.scales})
    ends = dict.fromkeys(f"{temperature:g}" for temperature in (temperatures[0], temperatures[-1]))
    facts = [f"{tokenizer['family']}, V = {tokenizer['vocab_size']}", f"T = {' to '.join(ends)}"]
    facts += [f"{side} x {side} px", f"{image.tokens} tokens"]
    name, room = PurePath(image.image).name, int(6 * sheet.size[0]) - 10
    name = name if len(name) <= room else f"...{name[3 - room :]}"
    sheet.text(MARGIN, 0.52, "   ·   ".join([name, *facts]), size=10)


def _draw_left(
    sheet: _Sheet, shown: ShowResult, image: ShownImage, crop_HW3: np.ndarray, side: float
) -> None:
    """Draw the tokenizer's input, and below it the totals, the colour bar and the notes."""
    y, uniform = HEAD + ABOVE, math.log(shown.tokenizer["vocab_size"])
    sheet.text(MARGIN, y - ABOVE, "the tokenizer's input", size=10, weight="bold")
    sheet.axes(MARGIN, y, side, side).imshow(crop_HW3)
    lines = [
        f"at most ln V = {uniform:.3f} nats per token",
        f"{image.nats_per_image:.4g} nats per image",
        f"{image.bits_per_pixel:.3g} bits per pixel",
    ]
    if shown.settings["no_decoder"]:
        lines += wrap(f"No decoded images: {shown.settings['no_decoder']}.", LINE_CHARACTERS - 4)
    sheet.text(MARGIN, y + side + 0.1, "\n".join(lines), size=9.5, linespacing=1.35)
    y += side + 0.2 + LINE * len(lines)
    lowest, highest = sheet.colours.get_clim()
    bar = sheet.figure.colorbar(
        sheet.colours,
        cax=sheet.axes(MARGIN, y, side, 0.13),
        orientation="horizontal",
        ticks=[lowest, (lowest + highest) / 2, highest],
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, pad=1.5, labelsize=8)
    bar.set_label("assignment entropy, nats per token", size=8.5, labelpad=2)
    notes = f"{CODES_NOTE} {FRAME_NOTE if image.scales[-1].grid[0] > 1 else ROW_NOTE}"
    sheet.text(MARGIN, y + 0.6, "\n".join(wrap(notes, LINE_CHARACTERS)), size=8, color=FAINT)


def _name(scale: ShownScale) -> str:
    grid = " x ".join(map(str, scale.grid))
    return scale.name if scale.patch_num or scale.grid[0] == 1 else f"{scale.name}: {grid}"


def _draw_entropies(sheet: _Sheet, x: float, y: float, side: float, scale: ShownScale) -> str:
    """Draw the entropies of the tokens on their grid, or as bars without one; return the caption."""
    if scale.grid[0] == 1 < scale.tokens:
        _draw_bars(sheet, sheet.axes(x + 0.35, y, side - 0.35, side - 0.3), scale)
        return f"mean {scale.assignment_entropy:.3f} (dashed), largest {scale.largest:.3f}"
    axes, (rows, columns) = sheet.axes(x, y, side, side), scale.grid
    colours_hw4 = sheet.colours.to_rgba(np.reshape(scale.token_entropy, scale.grid))
    axes.imshow(colours_hw4, extent=(0, columns, rows, 0), interpolation="nearest")
    if scale.tokens > 1:
        patches = import_extra("matplotlib.patches", "plots", "a figure")
        row, column = scale.most_undecided
        for colour, width in ((INK, 2.0), ("white", 1.0)):
            style = {"fill": False, "ec": colour, "lw": width, "clip_on": False}
            axes.add_patch(patches.Rectangle((column, row), 1, 1, **style))
    return f"mean {scale.assignment_entropy:.3f}, largest {scale.largest:.3f}"


def _draw_bars(sheet: _Sheet, axes: Axes, scale: ShownScale) -> None:
    """Draw the entropies of tokens without a grid, in their order."""
    colours_l4 = sheet.colours.to_rgba(scale.token_entropy)
    axes.bar(np.arange(scale.tokens), scale.token_entropy, 0.9, color=colours_l4)
    axes.axhline(scale.assignment_entropy, color=INK, lw=1, ls="--")
    ticker = import_extra("matplotlib.ticker", "plots", "a figure")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.set_xlim(-0.6, scale.tokens - 0.4)
    axes.set_ylim(0, 1.05 * sheet.colours.get_clim()[1])
    axes.tick_params(length=2, pad=1.5, labelsize=8)
    axes.spines[["left", "bottom"]].set_visible(True)
    axes.set_xlabel("token", size=8.5, labelpad=2)


def _draw_codes(axes: Axes, scale: ShownScale, colours_l3: np.ndarray | None, side: float) -> str:
    """Draw each token's most probable code: its colour, and its index where there is room."""
    best = [probabilities[0] for probabilities in scale.probabilities]
    caption = f"mean probability {_format_probability(sum(best) / scale.tokens)}"
    if colours_l3 is None:
        axes.text(0.5, 0.5, "too many codes\nto number", ha="center", va="center", color=FAINT)
        return caption
    rows, columns = scale.grid
    if rows == 1:  # wrap the row of tokens
        columns = math.ceil(math.sqrt(scale.tokens))
        rows = math.ceil(scale.tokens / columns)
    cells_n3 = np.ones((rows * columns, 3))
    cells_n3[: scale.tokens] = colours_l3
    cells_hw3 = cells_n3.reshape(rows, columns, 3)
    axes.imshow(cells_hw3, extent=(0, columns, rows, 0), interpolation="nearest", aspect="auto")
    if max(rows, columns) > MAX_LABELLED * side / SIDE:
        return caption
    size = min(9.0, 72 * side / columns / 3.2)
    for i, (code, probability) in enumerate(zip(scale.codes, best, strict=True)):
        row, column = divmod(i, columns)
        ink = "black" if colours_l3[i] @ [0.299, 0.587, 0.114] > 0.5 else "white"
        label, style = f"{code[0]}\n{_format_probability(probability)}", {"ha": "center", "va": "center"}
        axes.text(column + 0.5, row + 0.5, label, size=size, color=ink, linespacing=1.1, **style)
    return caption


def _format_probability(probability: float) -> str:
    """Format a probability without its leading zero, as .73, .041 or .002; 1 where it rounds to 1."""
    text = f"{probability:.3f}" if probability < 0.0995 else f"{probability:.2f}"
    return text.removeprefix("0") if text < "1" else "1"
