"""Self-contained HTML pages for screen and print: no network, no external scripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from entropy_cli.core.escaping import escape_html
from entropy_cli.core.figures import PALETTE
from entropy_cli.core.files import write_text

# On white and on the dark paper, like the figures'.
COLOURS = {
    **PALETTE,
    "shade": ("#f3f5f7", "#161b22"),
    "error": ("#b3261e", "#ff8f86"),
    "warning": ("#8a5300", "#f0b35a"),
    "info": ("#0a5a96", "#79c0ff"),
}
LIGHT, DARK = (" ".join(f"--{name}: {pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1))
CSS = (
    f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1, h2, h3, p, li, dd { overflow-wrap: anywhere; }
h1 { font-size: 1.5em; line-height: 1.25; }
h2 { font-size: 1.15em; margin: 2em 0 .5em; }
h3 { font-size: 1em; margin: 1.5em 0 .5em; }
p, li { max-width: 46rem; }
.wide { overflow-x: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr));
  gap: 1rem; margin: 1rem 0; align-items: start; }
.panels svg { width: 100%; height: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
.pictures figure { width: 10rem; } .pictures figcaption { font-size: .85em; overflow-wrap: anywhere; }
.pictures img { max-width: 100%; height: auto; }
li { margin: .4em 0; }
code { font-size: .9em; }
table { border-collapse: separate; border-spacing: 0; font-size: .9em;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .3em 0; position: sticky; left: 0; width: max-content;
  max-width: min(46rem, 100vw - 3rem); }
th, td { padding: .3em .6em; text-align: right; border-bottom: 1px solid var(--faint);
  white-space: nowrap; vertical-align: top; }
thead th { background: var(--shade); white-space: normal; vertical-align: bottom; }
th:first-child, .left { text-align: left; }
tbody th { font-weight: normal; background: var(--paper); white-space: normal; max-width: 22em;
  overflow-wrap: break-word; }
th:first-child { position: sticky; left: 0; }
td.left { white-space: normal; }
.below-rule > * { border-top: 2px solid var(--faint); }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  text-align: inherit; cursor: pointer; text-decoration: underline dotted; }
th[aria-sort] button { text-decoration: underline; }
.headline { max-width: none; font-size: 1.6em; line-height: 1.25; font-weight: 600; margin: .5em 0; }
figure { margin: 0; min-width: 0; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3em 1em; }
dt { font-weight: 600; } dd { margin: 0; max-width: 46rem; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5em; }
  table { font-size: .8em; } tbody th { max-width: 9em; }
  th:first-child { border-right: 1px solid var(--faint); } }
@media print { body { max-width: none; font-size: 11px; } .panels { grid-template-columns: 1fr 1fr; }
  figure, table, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .wide { overflow: visible; } th, td { padding: .3em .4em; }
  tbody th { max-width: 12em; } }
.error { color: var(--error); font-weight: 600; } .warning { color: var(--warning); font-weight: 600; }
.info { color: var(--info); }
"""
)

# Browsers see to it that a page loads nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
# A click on a column's header sorts the rows by the numbers at the start of its cells, else by text.
SORTING = """
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const text = row.cells[column].textContent.trim();
        const number = parseFloat(text.replace(/^[≥≤] /, ""));
        return Number.isNaN(number) ? text : number;
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const compared = x < y ? -1 : x > y ? 1 : 0;
        const order = typeof x === typeof y ? compared : typeof x === "number" ? -1 : 1;
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
"""


def definition_list(terms: Mapping[str, str]) -> str:
    """Return the HTML of a list of terms and their definitions."""
    pairs = [map(escape_html, pair) for pair in terms.items()]
    items = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in pairs)
    return f"<dl>{items}</dl>"


def ordered_list(sentences: Sequence[str]) -> str:
    """Return the HTML of a numbered list of sentences."""
    return "<ol>" + "".join(f"<li>{escape_html(sentence)}</li>" for sentence in sentences) + "</ol>"


def write_page(path: Path, title: str, parts: Sequence[str], heading: str = "") -> None:
    """Write an HTML page atomically.

    Args:
        path: the file.
        title: the title of the browser's window.
        parts: what follows the heading, in HTML.
        heading: the heading, if it is not the title.
    """
    body = "\n".join([f"<h1>{escape_html(heading or title)}</h1>", *filter(None, parts)])
    sorting = f"<script>{SORTING}</script>\n" if 'class="sortable"' in body else ""
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="entropy-cli">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape_html(title)}</title>
<link rel="icon" href="data:,"><!-- or browsers request one -->
<style>{CSS}</style></head><body>
{body}
{sorting}</body></html>
"""
    write_text(path, text)
