"""A page that needs nothing but itself: no network, no scripts from elsewhere; for print and screen."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from entropy_cli.files import write_atomically

CSS = """
:root { color-scheme: light dark; --ink: #24292f; --paper: #ffffff; --faint: #8b949e; --shade: #f3f5f7;
  --error: #b3261e; --warning: #8a5300; --info: #0a5a96; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --shade: #161b22;
  --error: #ff8f86; --warning: #f0b35a; --info: #79c0ff; } }
@media print { :root { --ink: #24292f; --paper: #ffffff; --shade: #ffffff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p, li { max-width: 46rem; }
.wide { overflow-x: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr));
  gap: 1rem; margin: 1rem 0; align-items: start; }
.panels svg { width: 100%; height: auto; }
li { margin: .4rem 0; }
code { font-size: .9em; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--ink); opacity: .8; padding: .3rem 0; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--faint);
  white-space: nowrap; vertical-align: top; }
thead th { background: var(--shade); }
th:first-child { text-align: left; }
tbody th { font-weight: normal; }
.error { color: var(--error); font-weight: 600; } .warning { color: var(--warning); font-weight: 600; }
.info { color: var(--info); }
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of text: the first column names, the others are numbers or short.

    Args:
        head: names of the columns.
        rows: cells, not yet escaped.
        caption: what it shows.
    """
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table><caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of parts in HTML below a title, whole or not at all."""
    text = "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            '<link rel="icon" href="data:,">',  # or a browser asks for one
            f"<style>{CSS}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
