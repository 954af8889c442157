"""What the pictures of tokens are drawn on: a sheet, and the colours of entropies.

Sizes are in inches, from the upper left corner, so that nothing moves with the length of a text.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from entropy_cli.core.extras import import_extra
from entropy_cli.core.figures import new_figure

SHARE = 0.72  # of the colour in a map, over the image in grey
BACK = 0.62  # the grey of the colour bar's paper


@dataclass(frozen=True)
class Sheet:
    """A figure that is drawn on by inches from its upper left corner.

    Attributes:
        top: largest entropy of the colour scale, the same in all pictures of a call.
    """

    figure: Any
    width: float
    height: float
    top: float

    def axes(self, x: float, y: float, width: float, height: float) -> Any:  # noqa: ANN401
        """Axes without ticks."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(self, x: float, y: float, words: str, **style: Any) -> None:  # noqa: ANN401
        """Text whose upper left corner is there, unless its style says otherwise."""
        style = {"va": "top", "ha": "left", "parse_math": False} | style
        self.figure.text(x / self.width, 1 - y / self.height, _drawable(words), **style)


def new_sheet(width: float, height: float, top: float) -> Sheet:
    """An empty sheet of so many inches, whose colours end at so many nats."""
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    return Sheet(figure, width, height, max(top, 1e-9))


def colours(sheet: Sheet, entropies: Any) -> np.ndarray:  # noqa: ANN401
    """Colours (sRGB) of entropies, without the image behind."""
    viridis = import_extra("matplotlib", "plots", "a picture").colormaps["viridis"]
    colours: np.ndarray = viridis(np.asarray(entropies) / sheet.top)[..., :3]
    return colours


def on_paper(colours: np.ndarray, back: Any = BACK) -> np.ndarray:  # noqa: ANN401
    """Colours as they look over a grey image; `back` is its grey."""
    mixed: np.ndarray = SHARE * colours + (1 - SHARE) * back
    return mixed


def colour_bar(sheet: Sheet, x: float, y: float, width: float) -> None:
    """The colours of entropies, as they look on the grey of a middling image."""
    axes = sheet.axes(x, y, width, 0.13)
    colours_1n3 = on_paper(colours(sheet, np.linspace(0, sheet.top, 256)))[None]
    axes.imshow(colours_1n3, extent=(0, sheet.top, 0, 1), aspect="auto")
    ticker = import_extra("matplotlib.ticker", "plots", "a picture")
    inner = [tick for tick in ticker.MaxNLocator(5).tick_values(0, sheet.top) if tick < 0.88 * sheet.top]
    axes.set_xticks([*inner, sheet.top], [f"{tick:.3g}" for tick in (*inner, sheet.top)])
    axes.set_xlim(0, sheet.top)
    axes.tick_params(length=2, pad=1.5, labelsize=8)
    axes.set_xlabel("assignment entropy, nats per token", size=8.5, labelpad=2)


def _drawable(words: str) -> str:
    """Text without what a font can't have: bytes of no character, control characters."""
    words = words.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in words)
