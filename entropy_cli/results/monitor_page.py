"""The page of a training run: its picture, what there is to do about it, and its numbers."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from entropy_cli.results.finding import by_severity
from entropy_cli.results.monitor import Monitor, number, place
from entropy_cli.results.monitor_figure import Curve, inline_run
from entropy_cli.results.page import table, write_page


def write_run_page(path: Path, found: Monitor, curves: Sequence[Curve]) -> None:
    """Write a page that shows a run; it needs nothing beside itself."""
    floor = f"<p>Floors: {escape(found.floor_source)}</p>" if found.floor_source else ""
    intro = (
        f"<p>{escape(found.log)}: format {found.format}, segments: {found.segments}; "
        f"entropy-cli {found.tool_version}</p>{floor}"
    )
    parts = [intro, inline_run(found, curves), "<h2>Findings</h2>", _findings(found)]
    parts += ["<h2>Series</h2>", _series(found)]
    write_page(path, f"Training run {Path(found.log).name}", parts)


def _findings(found: Monitor) -> str:
    rows = [[one.severity, one.id, one.series or "", one.message] for one in by_severity(found.findings)]
    head = ["severity", "finding", "series", "what it is and what to do"]
    return table(head, rows, "The worst first", words=True) if rows else "<p>None.</p>"


def _series(found: Monitor) -> str:
    head = ["series", "split", "kind", "points", "first", "best", "at", "last", "noise"]
    head += ["floor", "reducible first", "best", "last", "left of the start"]
    rows = []
    for one in found.series:
        row = [one.name, one.split, one.kind.replace("_", "-"), str(one.points)]
        row += [
            number(one.first),
            number(one.best),
            place(one.best_at),
            number(one.last),
            number(one.noise),
        ]
        row += [
            number(one.floor),
            *map(number, (one.reducible_first, one.reducible_best, one.reducible_last)),
        ]
        row.append("" if one.share_left is None else f"{one.share_left:.1%}")
        rows.append(row)
    return table(head, rows, "Unsmoothed values; cross-entropies in nats per token")
