"""The figure and the page of several runs."""

from collections.abc import Sequence
from pathlib import Path

from entropy_cli.commands.monitor.compare import Comparison, Curve, comparison_table
from entropy_cli.commands.monitor.figure import (
    COLOURS,
    LINE_HEIGHT,
    PANEL_HEIGHT,
    WIDTH,
    draw_level,
    plot_curve,
    write_lines,
)
from entropy_cli.commands.monitor.page import findings_html
from entropy_cli.commands.monitor.result import finding_lines, format_number
from entropy_cli.core.escaping import escape_html
from entropy_cli.core.figures import (
    INK,
    Axes,
    inline_svg,
    legend_below,
    new_figure,
    plain_log_ticks,
    styled,
    write_figure,
)
from entropy_cli.core.files import write_text
from entropy_cli.core.page import write_page

MOST_LINES, COLUMNS = 8, 116  # of findings, of a run


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write several runs as an image, a page or JSON, by the suffix of the path.

    Raises:
        ResultError: it can't be written, or the suffix is unknown.
        EntropyCliError: matplotlib is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".json":
        write_text(path, comparison.to_json() + "\n")
    elif kind == ".html":
        write_comparison_page(path, comparison)
    else:
        draw_comparison(path, comparison)


def draw_comparison(path: Path, comparison: Comparison) -> None:
    """Draw the losses of several runs, and what lies above their floors, with the findings below."""
    panels = _panels(comparison)
    lines: list[str] = []
    for name, output in zip(comparison.names, comparison.outputs, strict=True):
        lines += [name, *(f"  {line}" for line in finding_lines(output.result, COLUMNS, MOST_LINES))]
    below = LINE_HEIGHT * len(lines)
    with styled():
        figure = new_figure(WIDTH, PANEL_HEIGHT + below)
        grid = figure.add_gridspec(2, len(panels), height_ratios=[PANEL_HEIGHT, below])
        for i, curves in enumerate(panels):
            _draw(figure.add_subplot(grid[0, i]), comparison, curves, is_excess=i > 0)
        write_lines(figure.add_subplot(grid[1, :]), lines)
        write_figure(figure, path)


def write_comparison_page(path: Path, comparison: Comparison) -> None:
    """Write several runs as a self-contained HTML page."""
    images = []
    with styled():
        for i, curves in enumerate(_panels(comparison)):
            figure = new_figure(WIDTH / 2, PANEL_HEIGHT)
            title = _draw(figure.add_subplot(), comparison, curves, is_excess=i > 0)
            images.append(inline_svg(figure, f"{title}; over training"))
    parts = [f'<div class="panels">{"".join(images)}</div>', comparison_table(comparison).html()]
    for name, output in zip(comparison.names, comparison.outputs, strict=True):
        parts += [f"<h2>Findings: {escape_html(name)}</h2>", findings_html(output.result)]
    write_page(path, f"Training runs {', '.join(comparison.names)}", parts)


def _panels(comparison: Comparison) -> list[Sequence[Curve]]:
    """Return the curves of each panel: all, and those with a floor that they lie above."""
    curves = [curve for curve in comparison.curves if len(curve.series) > 1] or comparison.curves
    above = [
        curve
        for curve in curves
        if curve.series.level is not None and (curve.series.value_n > curve.series.level.floor).any()
    ]
    return [curves, above] if above else [curves]


def _draw(axis: Axes, comparison: Comparison, curves: Sequence[Curve], *, is_excess: bool) -> str:
    """Draw one panel, a colour for each run; return its title."""
    is_hard = any(output.result.is_hard for output in comparison.outputs)
    for curve in curves:
        one = curve.series
        colour = COLOURS[comparison.names.index(curve.run) % len(COLOURS)]
        label = ", ".join([curve.run, one.metric.name, *(["val"] if one.metric.split == "val" else [])])
        floor = one.level.floor if is_excess and one.level is not None else 0.0
        plot_curve(axis, one, colour, floor, label)
    with_level = {curve.series.level: curve.series for curve in reversed(curves)}
    for level, one in with_level.items() if not is_excess else ():
        if level is not None:
            draw_level(axis, one, level, INK, is_hard=is_hard)
    if comparison.common < max(float(curve.series.step_n[-1]) for curve in curves):
        axis.axvline(comparison.common, color=INK, linewidth=0.7, alpha=0.5)
    what = ("CE - A" if is_hard else "loss above the floor") if is_excess else "loss"
    title = what[0].upper() + what[1:] if is_excess else _lowest(comparison)
    axis.set_title(title)
    axis.set_xlabel(f"training time ({comparison.unit}s)")
    axis.set_ylabel(f"{what} (nats per token)" if is_excess else "loss")
    if is_excess:
        axis.set(xscale="log", yscale="log")
        plain_log_ticks(axis.xaxis, (1,))
        plain_log_ticks(axis.yaxis, (1, 1.5, 2, 3, 5, 7))
    legend_below(axis)
    return title


def _lowest(comparison: Comparison) -> str:
    """Say which run is lowest where the shortest ends, if their main training losses have one name."""
    main = [curve for curve in comparison.curves if curve.is_main and curve.at_common is not None]
    names = {curve.series.metric.name for curve in main}
    if len(names) != 1 or len(main) < len(comparison.names):
        return f"Losses to {comparison.common_text} and beyond"
    best = min(main, key=lambda curve: curve.at_common or 0.0)
    return f"Lowest at {comparison.common_text}: {best.run}, {format_number(best.at_common)}"
