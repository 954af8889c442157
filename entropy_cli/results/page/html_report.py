"""The page of one result: one file that needs nothing but itself."""

from html import escape
from pathlib import Path

from entropy_cli.core.figures import inline_svg, new_figure, styled
from entropy_cli.core.page import definition_list, html_table, ordered_list, write_page
from entropy_cli.results.legend import legend
from entropy_cli.results.notes import notes
from entropy_cli.results.page.figures import HEIGHT, WIDTH, Draw, alt_text, pictures
from entropy_cli.results.page.report_tables import headline, result_name, tables
from entropy_cli.results.schema import Result
from entropy_cli.results.tables import provenance

MEANING = (
    "A token's latent z gives each code e the weight q = softmax(-|z - e|² / T). The assignment entropy "
    "is the mean of the entropy of q: what the latent leaves open about its code."
)


def write_html_report(path: Path, result: Result) -> None:
    """Write the page of a result.

    Raises:
        ResultError: it can't be written.
        EntropyCliError: matplotlib is not installed.
    """
    value, words = headline(result)
    sections = [
        f'<p class="headline">{escape(value)}</p><p>{escape(words)}. {escape(MEANING)}</p>',
        "<h2>Pictures</h2>" + panels(result),
        *(html_table(one) for one in tables(result)),
        "<h2>What the words mean</h2>" + definition_list(legend(result, "nats")),
        "<h2>Notes</h2>" + ordered_list(notes(result)),
        "<h2>Where it comes from</h2>" + definition_list(provenance(result)) + command(result),
    ]
    write_page(path, f"Assignment entropy of {result_name(result)}", sections)


def panels(result: Result) -> str:
    """Every picture, by itself, so that a small screen shows one below the other."""
    drawn = []
    with styled():
        for title, draw in pictures(result).items():
            drawn.append(f"<figure>{_panel(title, draw, result)}</figure>")
    return f'<div class="panels">{"".join(drawn)}</div>'


def _panel(title: str, draw: Draw, result: Result) -> str:
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    axes.set_title(title)
    draw(axes, result)
    return inline_svg(figure, alt_text(title, result))


def command(result: Result) -> str:
    """The command that made a result."""
    words = result.provenance.get("command")
    return "" if words is None else f"<p>Made by</p><pre>{escape(str(words))}</pre>"
