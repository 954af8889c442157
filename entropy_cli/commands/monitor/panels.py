"""Panels of a figure: beside and below each other in a file, or one by one on a page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from entropy_cli.core.figures import Axes, inline_svg, new_figure, styled, write_figure

WIDTH, PANEL_HEIGHT, LINE_HEIGHT = 11.2, 4.1, 0.17  # inches
Draw = Callable[[Axes], str]  # draws a panel and returns its title


def draw_panels(path: Path, draws: Sequence[Draw], lines: Sequence[str]) -> None:
    """Draw two panels per row, and lines of text below, as PNG, SVG or PDF by the suffix of the path."""
    wide = max(1, min(2, len(draws)))
    rows, below = -(-len(draws) // wide), LINE_HEIGHT * max(len(lines), 1)
    with styled():
        figure = new_figure(WIDTH, PANEL_HEIGHT * rows + below)
        grid = figure.add_gridspec(rows + 1, wide, height_ratios=[PANEL_HEIGHT] * rows + [below])
        for i, draw in enumerate(draws):
            alone = i == len(draws) - 1 and i % wide == 0
            draw(figure.add_subplot(grid[i // wide, :] if alone else grid[i // wide, i % wide]))
        axis = figure.add_subplot(grid[rows, :])
        axis.axis("off")
        text = {"va": "top", "size": 8.5, "family": "monospace", "transform": axis.transAxes}
        axis.text(0, 1, "\n".join(lines), **text)
        write_figure(figure, path)


def inline_panels(draws: Sequence[Draw], about: str) -> list[str]:
    """Return panels as inline SVG; what they are about is said to those who can't see them."""
    images = []
    with styled():
        for draw in draws:
            figure = new_figure(WIDTH / 2, PANEL_HEIGHT)
            images.append(inline_svg(figure, f"{draw(figure.add_subplot())}{about}"))
    return images
