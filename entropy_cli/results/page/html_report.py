"""The self-contained HTML page of one result."""

from html import escape
from pathlib import Path

from entropy_cli.core.figures import inline_svg, new_figure, styled
from entropy_cli.core.page import definition_list, ordered_list, write_page
from entropy_cli.results.legend import legend
from entropy_cli.results.notes import notes
from entropy_cli.results.page.figures import HEIGHT, WIDTH, Draw, alt_text, figure_panels
from entropy_cli.results.page.report_tables import headline, result_name, tables
from entropy_cli.results.schema import Result
from entropy_cli.results.tables import provenance

MEANING = (
    "A token's latent z gives each code e the weight q = softmax(-|z - e|² / T). The assignment entropy "
    "is the mean of the entropy of q: the uncertainty about a token's code given its latent."
)


def write_html_report(path: Path, result: Result) -> None:
    """Write the HTML page of a result.

    Raises:
        ResultError: it can't be written.
        EntropyCliError: matplotlib is not installed.
    """
    value, description = headline(result)
    sections = [
        f'<p class="headline">{escape(value)}</p><p>{escape(description)}. {escape(MEANING)}</p>',
        "<h2>Figures</h2>" + _figures(result),
        *(table.html() for table in tables(result)),
        "<h2>Terms</h2>" + definition_list(legend(result, "nats")),
        "<h2>Notes</h2>" + ordered_list(notes(result)),
        "<h2>Provenance</h2>" + definition_list(provenance(result)) + _command(result),
    ]
    write_page(path, f"Assignment entropy of {result_name(result)}", sections)


def _figures(result: Result) -> str:
    """Return the HTML of every panel as a figure of its own, so that a small screen stacks them."""
    figures = []
    with styled():
        for title, draw in figure_panels(result).items():
            figures.append(f"<figure>{_figure(title, draw, result)}</figure>")
    return f'<div class="panels">{"".join(figures)}</div>'


def _figure(title: str, draw: Draw, result: Result) -> str:
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    axes.set_title(title)
    draw(axes, result)
    return inline_svg(figure, alt_text(title, result))


def _command(result: Result) -> str:
    """Return the HTML of the command that made a result, if it is known."""
    command = result.provenance.get("command")
    return "" if command is None else f"<p>Command</p><pre>{escape(str(command))}</pre>"
