"""The look of every picture, and writing it: one style, for print and for a screen.

Colours are told apart by the colour-blind, and have enough contrast on white and on near-black.

Source:
    Okabe & Ito, Color Universal Design, 2008: the palette, without its yellow.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entropy_cli.core.errors import ResultError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.files import write_atomically

INK, PAPER, FAINT = "#24292f", "#ffffff", "#8b949e"
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
)
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
FORMATS = (".png", ".svg", ".pdf")
DOTS_PER_INCH = 160
ARROW_SCALE = 3.4  # times the size of a marker, the size of one with an arrow on it
LEGEND_CHARACTERS = 52  # in a line below axes of some five inches
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same widths everywhere
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.6,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.8,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "entropy-cli",  # the same picture is the same file
}


def styled() -> Any:  # noqa: ANN401 - a context manager of matplotlib
    """The style, for as long as a `with` lasts: for drawing and for writing alike.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib", "plots", "a picture")
    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float) -> Any:  # noqa: ANN401 - a figure of matplotlib
    """An empty figure of so many inches, whose parts make room for each other.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    figure = import_extra("matplotlib.figure", "plots", "a picture")
    return figure.Figure(figsize=(width, height), layout="constrained")


def colour_ramp(number: int) -> list[str]:
    """So many colours in a row, from blue to orange: for what has an order."""
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (BLUE, ORANGE)]
    shares = [i / max(1, number - 1) for i in range(number)]
    mixed = [[round(a + share * (b - a)) for a, b in zip(*ends, strict=True)] for share in shares]
    return ["#" + "".join(f"{part:02x}" for part in parts) for parts in mixed]


def plain_log_ticks(axis: Any, parts: Sequence[float] = (1,)) -> None:  # noqa: ANN401 - an axis of matplotlib
    """On a logarithmic axis, numbers as they are spoken, at these parts of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, subs=parts))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(axis: Any, lines: int = 1) -> None:  # noqa: ANN401 - axes of matplotlib
    """Name what is drawn, where it hides nothing: below the axes and so many lines of tick labels."""
    from matplotlib.transforms import ScaledTranslation

    names = axis.get_legend_handles_labels()[1]
    if not names:
        return
    columns = max(1, min(5, LEGEND_CHARACTERS // (max(map(len, names)) + 3)))
    down = ScaledTranslation(0, -(0.34 + 0.16 * lines), axis.figure.dpi_scale_trans)
    axis.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axis.transAxes + down,
        ncols=columns,
        borderaxespad=0,
        columnspacing=1.2,
    )


def arrow_marker(marker: str, bound: str, *, sideways: bool = False) -> Any:  # noqa: ANN401 - a path
    """A marker of matplotlib, or none, with an arrow to where the value may be that has this bound.

    Args:
        marker: "o", "s" or "D", or "" for the arrow alone; it is drawn with ARROW_SCALE times its size.
        bound: "lower" or "upper", whether the value may be larger or smaller.
        sideways: whether values grow to the right, not upwards.
    """
    from matplotlib.markers import MarkerStyle
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import Affine2D

    style = MarkerStyle(marker)
    shape = style.get_path().transformed(style.get_transform())
    begin, end, wing = 0.5 if marker else 0.0, ARROW_SCALE / 2, 0.4
    points = [(0, begin), (0, end), (-wing, end - wing), (0, end), (wing, end - wing)]
    arrow = Outline(points, [Outline.MOVETO, Outline.LINETO, Outline.MOVETO, *[Outline.LINETO] * 2])
    turn = Affine2D().rotate_deg((180 if bound == "upper" else 0) - (90 if sideways else 0))
    return Outline.make_compound_path(*([shape] if marker else []), arrow.transformed(turn))


def write_figure(figure: Any, path: Path) -> None:  # noqa: ANN401 - a figure of matplotlib
    """Write a figure in the format that the file's name ends in, whole or not at all.

    Raises:
        ResultError: it ends otherwise, or can't be written.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ResultError(
            f"{path}: a picture can't be {kind or 'of no kind'}. Give {', '.join(FORMATS)}."
        )
    content = _drawn(figure, kind.removeprefix("."))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def inline_svg(figure: Any, words: str) -> str:  # noqa: ANN401 - a figure of matplotlib
    """A figure as an element of an HTML page, whose ink and paper are those of the page.

    Args:
        figure: what to show.
        words: what it shows, for those who can't see it.
    """
    from html import escape

    text = _drawn(figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = text.replace(INK, "var(--ink)").replace(PAPER, "var(--paper)")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(words)}"', 1)


def _drawn(figure: Any, kind: str) -> bytes:  # noqa: ANN401 - a figure of matplotlib
    file = io.BytesIO()
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same picture, the same file
    with styled():
        smaller = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
        figure.savefig(file, format=kind, dpi=DOTS_PER_INCH, metadata=dates.get(kind), **smaller)
    return file.getvalue()
