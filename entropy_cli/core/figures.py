"""One style for all figures, in print and on a screen, and writing them to files.

Source:
    Okabe & Ito, Color Universal Design, 2008: hues that colour-blind readers can tell apart. Their
    lightness is changed for the contrast.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from entropy_cli.core.errors import ResultError
from entropy_cli.core.escaping import escape_html, escape_terminal
from entropy_cli.core.extras import import_extra
from entropy_cli.core.files import write_atomically

# Of matplotlib, which is imported only where something is drawn.
Axes: TypeAlias = Any
Figure: TypeAlias = Any
Colour: TypeAlias = Any

# Each colour on white paper, and on the dark page of a screen. All but the paper have a contrast of 3:1
# or more there, and the text colours, ink and faint, of 4.5:1.
PALETTE = {
    "ink": ("#24292f", "#e6edf3"),
    "paper": ("#ffffff", "#0d1117"),
    "faint": ("#6e7781", "#8b949e"),
    "blue": ("#005f9e", "#56a8e8"),
    "vermilion": ("#ad3200", "#ff7043"),
    "green": ("#00916a", "#2fd09c"),
    "purple": ("#c76ba0", "#e08fc0"),
    "sky": ("#3d96d6", "#a5dcff"),
    "orange": ("#bd8600", "#f5c04a"),
}
INK, PAPER, FAINT, BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = (light for light, _ in PALETTE.values())
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
RAMP = ("#1f77c0", "#b8468f", "#c07800")  # with 3:1 on both papers
FORMATS = (".png", ".svg", ".pdf")
DOTS_PER_INCH = 160
FEW_DECADES = 300  # ratio of values on an axis below which three ticks a decade have room
ARROW_SCALE = 3.4  # size of a marker with an arrow, in sizes of the marker alone
MOST_CHARACTERS = 120  # of a line
LEGEND_CHARACTERS = 52  # that fit in a line below axes about five inches wide
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
    "text.parse_math": False,  # names may hold dollars
    "svg.fonttype": "path",
    "svg.hashsalt": "entropy-cli",  # the same figure gives the same file
}


def styled() -> Any:  # noqa: ANN401 - a context manager of matplotlib
    """Return a context manager that applies the style; draw and write figures inside it.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib", "plots", "a figure")
    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of this size in inches, with matplotlib's constrained layout.

    Raises:
        EntropyCliError: matplotlib is not installed.
    """
    figure = import_extra("matplotlib.figure", "plots", "a figure")
    return figure.Figure(figsize=(width, height), layout="constrained")


def colour_ramp(count: int) -> list[str]:
    """Return a sequence of colours from blue over purple to orange, for ordered categories."""
    colors = import_extra("matplotlib.colors", "plots", "a figure")
    ramp = colors.LinearSegmentedColormap.from_list("ramp", RAMP)
    return [colors.to_hex(ramp(i / max(1, count - 1))) for i in range(count)]


def plain_log_ticks(axis: Axes, parts: Sequence[float] = ()) -> None:
    """Label a logarithmic axis with plain decimal numbers, at these multiples in each decade.

    By default they are 1, or, if what is drawn spans few decades, 1, 2 and 5.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    spans_few = axis.get_data_interval()[1] < FEW_DECADES * axis.get_minpos()
    parts = parts or ((1, 2, 5) if spans_few else (1,))
    axis.set_major_locator(LogLocator(10, subs=parts))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(axes: Axes, lines: int = 1) -> None:
    """Put the legend below the axes, under this many lines of tick labels."""
    from matplotlib.transforms import ScaledTranslation

    names = axes.get_legend_handles_labels()[1]
    if not names:
        return
    columns = max(1, min(5, LEGEND_CHARACTERS // (max(map(len, names)) + 3)))
    down = ScaledTranslation(0, -(0.34 + 0.16 * lines), axes.figure.dpi_scale_trans)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + down,
        ncols=columns,
        borderaxespad=0,
        columnspacing=1.2,
    )


def arrow_marker(marker: str, bound: str, *, sideways: bool = False) -> Any:  # noqa: ANN401 - a path
    """Return a marker with an arrow that points from a bound to where the value may be.

    Args:
        marker: "o", "s" or "D", or "" for the arrow alone; draw the result ARROW_SCALE times as large.
        bound: "lower" if the value may be larger, "upper" if it may be smaller.
        sideways: whether values grow to the right instead of upwards.
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


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, in the format of the file's suffix.

    Raises:
        ResultError: the suffix is not one of FORMATS, or the file can't be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ResultError(
            f"{path}: got {suffix or 'no suffix'}, expected a figure: {', '.join(FORMATS)}. Rename it."
        )
    content = _render(figure, suffix.removeprefix("."))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def inline_svg(figure: Figure, alt_text: str) -> str:
    """Return a figure as an SVG element for an HTML page, whose variables give it the page's colours."""
    text = _render(figure, "svg").decode()
    text = text[text.index("<svg") :]
    for name, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{name})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape_html(alt_text)}"', 1)


def legend_name(name: str) -> str:
    """Return a name for a legend, in which matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def _shown(line: str) -> str:
    """Return a line as it is drawn: axes have no room beside a name of any length."""
    half = MOST_CHARACTERS // 2
    return escape_terminal(line if len(line) <= 2 * half else f"{line[:half]} ... {line[-half:]}")


def _escape_texts(figure: Figure) -> None:
    """Make all texts harmless and short enough; names of ticks are made anew at each drawing."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    for text in figure.findobj(Text):
        text.set_text("\n".join(map(_shown, text.get_text().split("\n"))))
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        if isinstance(ticks := axis.get_major_formatter(), FuncFormatter):
            ticks.func = lambda *at, name=ticks.func: escape_terminal(name(*at))


def _render(figure: Figure, file_format: str) -> bytes:
    _escape_texts(figure)
    file = io.BytesIO()
    # The program's name, by which it knows its own files; no date: the same figure, the same file.
    metadata = {
        "png": {"Software": "entropy-cli"},
        "svg": {"Creator": "entropy-cli", "Date": None},
        "pdf": {"Creator": "entropy-cli", "CreationDate": None},
    }[file_format]
    options = {"pil_kwargs": {"optimize": True}} if file_format == "png" else {}
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # missing from the font, drawn as a box
        warnings.filterwarnings("ignore", "constrained_layout")  # no room is left beside long names
        figure.savefig(file, format=file_format, dpi=DOTS_PER_INCH, metadata=metadata, **options)
    return file.getvalue()
