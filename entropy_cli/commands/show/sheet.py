"""The sheet that figures are drawn on, and the colours of entropies.

Sizes are in inches from the upper left corner, so that nothing moves with the length of a text.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from entropy_cli.core.extras import import_extra
from entropy_cli.core.figures import new_figure

ALPHA = 0.72  # of the colours of a map, over the image in grey
GREY = 0.62  # background of the colour bar


@dataclass(frozen=True)
class Sheet:
    """A figure with coordinates in inches from its upper left corner.

    Attributes:
        max_entropy: end of the colour scale in nats, the same in all figures of a call.
    """

    figure: Any
    width: float
    height: float
    max_entropy: float

    def axes(self, x: float, y: float, width: float, height: float) -> Any:  # noqa: ANN401
        """Add axes without ticks."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(self, x: float, y: float, content: str, **style: Any) -> None:  # noqa: ANN401
        """Write text whose upper left corner is at x, y, unless the style says otherwise."""
        style = {"va": "top", "ha": "left", "parse_math": False} | style
        self.figure.text(x / self.width, 1 - y / self.height, _printable(content), **style)


def new_sheet(width: float, height: float, max_entropy: float) -> Sheet:
    """Create an empty sheet; width and height in inches, max_entropy in nats."""
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    return Sheet(figure, width, height, max(max_entropy, 1e-9))


def entropy_colours(sheet: Sheet, entropies: Any) -> np.ndarray:  # noqa: ANN401
    """Return the sRGB colours of entropies, before they are blended with an image."""
    viridis = import_extra("matplotlib", "plots", "a figure").colormaps["viridis"]
    colours: np.ndarray = viridis(np.asarray(entropies) / sheet.max_entropy)[..., :3]
    return colours


def over_grey(colours: np.ndarray, grey: Any = GREY) -> np.ndarray:  # noqa: ANN401
    """Blend colours over a grey level or a grey image."""
    blended: np.ndarray = ALPHA * colours + (1 - ALPHA) * grey
    return blended


def colour_bar(sheet: Sheet, x: float, y: float, width: float) -> None:
    """Draw the colours of entropies over a medium grey, with their scale."""
    axes, top = sheet.axes(x, y, width, 0.13), sheet.max_entropy
    colours_1n3 = over_grey(entropy_colours(sheet, np.linspace(0, top, 256)))[None]
    axes.imshow(colours_1n3, extent=(0, top, 0, 1), aspect="auto")
    ticker = import_extra("matplotlib.ticker", "plots", "a figure")
    inner = [tick for tick in ticker.MaxNLocator(5).tick_values(0, top) if tick < 0.88 * top]
    axes.set_xticks([*inner, top], [f"{tick:.3g}" for tick in (*inner, top)])
    axes.set_xlim(0, top)
    axes.tick_params(length=2, pad=1.5, labelsize=8)
    axes.set_xlabel("assignment entropy, nats per token", size=8.5, labelpad=2)


def _printable(text: str) -> str:
    """Replace characters that no font has: undecodable bytes, control characters."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
