"""The page of a training run: its figures, findings and numbers."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from entropy_cli.commands.monitor.figure import Curve, inline_run
from entropy_cli.commands.monitor.result import MonitorResult, tables
from entropy_cli.core.page import write_page
from entropy_cli.results.findings import by_severity


def write_run_page(path: Path, result: MonitorResult, curves: Sequence[Curve]) -> None:
    """Write a run as a self-contained HTML page."""
    intro = (
        f"<p>{escape(result.log)}: format {result.format}, segments: {result.segments}; "
        f"entropy-cli {result.tool_version}</p>"
    )
    panels = f'<div class="panels">{"".join(inline_run(result, curves))}</div>'
    numbers = (table.html() for table in tables(result))
    parts = [intro, panels, "<h2>Findings</h2>", _findings(result), *numbers]
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
