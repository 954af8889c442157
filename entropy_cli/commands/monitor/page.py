"""The page of a training run: its figures, findings and numbers."""

from collections.abc import Sequence
from pathlib import Path

from entropy_cli.commands.monitor.figure import inline_run
from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.result import MonitorResult, RunFinding, no_findings, tables
from entropy_cli.core.escaping import escape_html
from entropy_cli.core.page import definition_list, write_page
from entropy_cli.results.findings import by_severity


def write_run_page(path: Path, result: MonitorResult, series: Sequence[Series]) -> None:
    """Write a run as a self-contained HTML page."""
    images, notes = inline_run(result, series)
    parts = [
        f"<p>{escape_html(f'{result.headline}, entropy-cli {result.tool_version}')}</p>",
        f'<div class="panels">{"".join(images)}</div>',
        *(f"<p>{note}</p>" for note in notes),
        "<h2>Findings</h2>",
        findings_html(result),
        *(table.html() for table in tables(result)),
    ]
    if result.descriptions:
        parts += ["<h2>Notes on the series</h2>", definition_list(result.descriptions)]
    write_page(path, f"Training run {Path(result.log).name}", parts)


def findings_html(result: MonitorResult) -> str:
    """Return the findings of a run, the worst first, as a list: it suits small screens better."""
    findings = "".join(map(_finding, by_severity(result.findings)))
    return "".join([f"<ul>{findings}</ul>", *(f"<p>{escape_html(x)}</p>" for x in no_findings(result))])


def _finding(one: RunFinding) -> str:
    series = f" <b>{escape_html(one.series)}</b>" if one.series else ""
    kind = f'<span class="{one.severity}">{one.severity}</span> <code>{one.id}</code>'
    return f"<li>{kind}{series}: {escape_html(one.message)}</li>"
