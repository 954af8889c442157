"""A report of one result: an HTML page, Markdown, or CSV with every estimate."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path

from entropy_cli.core.figures import inline_svg, new_figure, styled
from entropy_cli.core.page import definition_list, ordered_list, write_page
from entropy_cli.core.table import Cell, Table, escape_markdown, markdown_code
from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.legend import averages, legend
from entropy_cli.results.notes import notes
from entropy_cli.results.page.figures import HEIGHT, WIDTH, Draw, alt_text, figure_panels
from entropy_cli.results.provenance import provenance
from entropy_cli.results.schema import Result, SoftEstimates
from entropy_cli.results.tables import headline, result_name, tables

COLUMNS = ("temperature", "scale", "tokens", "quantity")
NUMBERS = ("value", "plug_in", "se", "ci95_low", "ci95_high", "estimator", "note", "bound")
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
    subject, value, details = headline(result)
    sections = [
        f'<p class="headline">{escape(value)}</p><p>{escape(f"{subject}; {details}. {MEANING}")}</p>',
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


def report_markdown(result: Result) -> str:
    """Return the headline, tables, notes and provenance of a result as Markdown."""
    subject, value, details = headline(result)
    name = escape_markdown(result_name(result))
    origin = {term: escape_markdown(text) for term, text in provenance(result).items()}
    command = result.provenance.get("command")
    if command is not None:
        origin["command"] = markdown_code(str(command))
    parts = [
        f"# Assignment entropy of {name}",
        f"**{value}**",
        f"{subject}; {details}.",
        *(table.markdown() for table in tables(result)),
        f"## Notes\n\n{markdown_list(notes(result))}",
        "## Provenance\n\n" + "\n".join(f"- **{term}**: {text}" for term, text in origin.items()),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_list(sentences: Sequence[str]) -> str:
    """Return a numbered list of sentences as Markdown."""
    return "\n".join(f"{i}. {escape_markdown(sentence)}" for i, sentence in enumerate(sentences, 1))


def report_csv(result: Result) -> str:
    """Return all estimates as CSV, a row each, in nats per token unless the name says otherwise."""
    rows = [
        [*keys, *numbers] for keys, estimates in _groups(result) for numbers in estimates_of(estimates)
    ]
    return Table("estimates", "", [*COLUMNS, *NUMBERS], rows).csv()


def estimates_of(estimates: SoftEstimates) -> Iterator[list[Cell]]:
    """Iterate over the estimates of a scale or an average: the name and the numbers of each."""
    for field in fields(estimates):
        one = getattr(estimates, field.name)
        if isinstance(one, Estimate):
            bound = "upper" if field.name == "marginal_entropy_bound" else one.bound
            low, high = one.ci95 or (None, None)
            yield [field.name, one.value, one.plug_in, one.se, low, high, one.estimator, one.note, bound]


def _groups(result: Result) -> Iterator[tuple[list[Cell], SoftEstimates]]:
    """Iterate over scales and averages, first of the headline's temperature, then of the others."""
    for scale in result.scales:
        yield [scale.temperature, scale.name, scale.tokens], scale
    for kind in averages(result):
        yield [result.settings.temperature, kind, ""], getattr(result.average, kind)
    for one in result.temperatures[1:]:
        for soft, scale in zip(one.scales, result.scales, strict=True):
            yield [soft.temperature, scale.name, scale.tokens], soft
        for kind in averages(result):
            yield [one.temperature, kind, ""], getattr(one.average, kind)
