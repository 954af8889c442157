"""The figure and the page of several runs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from entropy_cli.commands.monitor.compare import Comparison, Curve, comparison_table
from entropy_cli.commands.monitor.figure import (
    COLOURS,
    draw_level,
    excess_axes,
    loss_label,
    plot_curve,
)
from entropy_cli.commands.monitor.page import findings_html
from entropy_cli.commands.monitor.panels import draw_panels, inline_panels
from entropy_cli.commands.monitor.result import finding_lines, format_number
from entropy_cli.core.escaping import escape_html
from entropy_cli.core.figures import INK, Axes, legend_below
from entropy_cli.core.files import write_text
from entropy_cli.core.page import write_page

MOST_LINES, COLUMNS = 8, 116  # of findings, of a run


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write several runs as an image, a page or JSON, by the suffix of the path.

    Raises:
        ResultError: it can't be written, or the suffix is unknown.
        EntropyCliError: matplotlib is not installed.
    """
    kind, runs = path.suffix.lower(), list(zip(comparison.names, comparison.outputs, strict=True))
    draws = [
        partial(_draw, comparison, curves, is_excess=i > 0)
        for i, curves in enumerate(_panels(comparison))
    ]
    if kind == ".json":
        write_text(path, comparison.to_json() + "\n")
    elif kind == ".html":
        images = "".join(inline_panels(draws, "; over training"))
        parts = [f'<div class="panels">{images}</div>', comparison_table(comparison).html()]
        for name, output in runs:
            parts += [f"<h2>Findings: {escape_html(name)}</h2>", findings_html(output.result)]
        write_page(path, f"Training runs {', '.join(comparison.names)}", parts)
    else:
        lines: list[str] = []
        for name, output in runs:
            found = finding_lines(output.result, COLUMNS, MOST_LINES)
            lines += [name, *(f"  {line}" for line in found)]
        draw_panels(path, draws, lines)


def _panels(comparison: Comparison) -> list[Sequence[Curve]]:
    """Return the curves of each panel: all, and those with a floor that they lie above."""
    curves = [curve for curve in comparison.curves if len(curve.series) > 1] or comparison.curves
    above = [
        curve
        for curve in curves
        if curve.series.level is not None and (curve.series.value_n > curve.series.level.floor).any()
    ]
    return [curves, above] if above else [curves]


def _draw(comparison: Comparison, curves: Sequence[Curve], axis: Axes, *, is_excess: bool) -> str:
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
    label = loss_label([curve.series for curve in curves])
    axis.set_ylabel(f"{what} (nats per token)" if is_excess else label)
    if is_excess:
        excess_axes(axis)
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
