"""The page of a training run: its figures, findings and numbers."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from entropy_cli.commands.monitor.figure import Curve, inline_run
from entropy_cli.commands.monitor.result import MonitorResult, format_number, format_place
from entropy_cli.core.page import write_page
from entropy_cli.core.table import Table
from entropy_cli.results.findings import by_severity


def write_run_page(path: Path, result: MonitorResult, curves: Sequence[Curve]) -> None:
    """Write a run as a self-contained HTML page."""
    intro = (
        f"<p>{escape(result.log)}: format {result.format}, segments: {result.segments}; "
        f"entropy-cli {result.tool_version}</p>"
    )
    panels = f'<div class="panels">{"".join(inline_run(result, curves))}</div>'
    parts = [intro, panels, "<h2>Findings</h2>", _findings(result), _values(result)]
    if any(one.floor is not None for one in result.series):
        parts.append(_reducible(result))
    write_page(path, f"Training run {Path(result.log).name}", parts)


def _findings(result: MonitorResult) -> str:
    """Return the findings as a list, which suits small screens better than a table."""
    items = []
    for one in by_severity(result.findings):
        series = f" <b>{escape(one.series)}</b>" if one.series else ""
        items.append(
            f'<li><span class="{one.severity}">{one.severity}</span> <code>{one.id}</code>{series}: '
            f"{escape(one.message)}</li>"
        )
    return f"<ul>{''.join(items)}</ul>" if items else "<p>None.</p>"


def _values(result: MonitorResult) -> str:
    head = ["series", "split", "kind", "points", "first", "best", "at", "last", "noise"]
    rows = []
    for one in result.series:
        numbers = [
            format_number(one.first),
            format_number(one.best),
            format_place(one.best_at),
            format_number(one.last),
        ]
        row = [one.name, one.split, one.kind.replace("_", "-"), str(one.points)]
        rows.append([*row, *numbers, format_number(one.noise)])
    caption = "unsmoothed values; cross-entropies in nats per token"
    return Table("series", "Series", head, rows, caption, sortable=True).html()


def _reducible(result: MonitorResult) -> str:
    head = ["series", "split", "floor", "first", "best", "last", "share left", "power of time"]
    rows = []
    for one in result.series:
        if one.floor is not None:
            numbers = (one.floor, one.reducible_first, one.reducible_best, one.reducible_last)
            share = "" if one.share_left is None else f"{one.share_left:.1%}"
            slope = "" if one.slope is None else f"{one.slope[0]:.3f} ± {one.slope[1]:.3f}"
            rows.append([one.name, one.split, *map(format_number, numbers), share, slope])
    caption = f"above the floor, nats per token; {result.floor_source}"
    return Table("reducible", "Reducible loss", head, rows, caption).html()
