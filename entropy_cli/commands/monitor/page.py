"""The page of a training run: its picture, what there is to do about it, and its numbers."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from entropy_cli.commands.monitor.figure import Curve, inline_run
from entropy_cli.commands.monitor.result import Monitor, number, place
from entropy_cli.core.page import Table, html_table, write_page
from entropy_cli.results.findings import by_severity


def write_run_page(path: Path, found: Monitor, curves: Sequence[Curve]) -> None:
    """Write a page that shows a run; it needs nothing beside itself."""
    intro = (
        f"<p>{escape(found.log)}: format {found.format}, segments: {found.segments}; "
        f"entropy-cli {found.tool_version}</p>"
    )
    pictures = f'<div class="panels">{"".join(inline_run(found, curves))}</div>'
    parts = [intro, pictures, "<h2>Findings</h2>", _findings(found), _values(found)]
    if any(one.floor is not None for one in found.series):
        parts.append(_reducible(found))
    write_page(path, f"Training run {Path(found.log).name}", parts)


def _findings(found: Monitor) -> str:
    """A list: sentences want the whole width of a small screen."""
    items = []
    for one in by_severity(found.findings):
        of = f" <b>{escape(one.series)}</b>" if one.series else ""
        items.append(
            f'<li><span class="{one.severity}">{one.severity}</span> <code>{one.id}</code>{of}: '
            f"{escape(one.message)}</li>"
        )
    return f"<ul>{''.join(items)}</ul>" if items else "<p>None.</p>"


def _values(found: Monitor) -> str:
    head = ["series", "split", "kind", "points", "first", "best", "at", "last", "noise"]
    rows = []
    for one in found.series:
        numbers = [number(one.first), number(one.best), place(one.best_at), number(one.last)]
        row = [one.name, one.split, one.kind.replace("_", "-"), str(one.points)]
        rows.append([*row, *numbers, number(one.noise)])
    caption = "unsmoothed values; cross-entropies in nats per token"
    return html_table(Table("series", "Series", caption, head, rows, sortable=True))


def _reducible(found: Monitor) -> str:
    head = ["series", "split", "floor", "first", "best", "last", "left of the start", "power of time"]
    rows = []
    for one in found.series:
        if one.floor is not None:
            numbers = (one.floor, one.reducible_first, one.reducible_best, one.reducible_last)
            share = "" if one.share_left is None else f"{one.share_left:.1%}"
            slope = "" if one.slope is None else f"{one.slope[0]:.3f} ± {one.slope[1]:.3f}"
            rows.append([one.name, one.split, *map(number, numbers), share, slope])
    caption = f"above the floor, nats per token; {found.floor_source}"
    return html_table(Table("reducible", "Reducible loss", caption, head, rows))
