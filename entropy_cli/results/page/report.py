"""A report of one or several results as an HTML page, a figure, Markdown or CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from entropy_cli.core.escaping import escape_html, escape_markdown, markdown_code
from entropy_cli.core.figures import FORMATS as FIGURES
from entropy_cli.core.figures import styled, write_figure
from entropy_cli.core.files import write_text
from entropy_cli.core.page import definition_list, ordered_list, write_page
from entropy_cli.core.remote.address import recorded_name
from entropy_cli.core.table import Cell, Table
from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.evaluation import Evaluation, SoftLosses, estimate_in
from entropy_cli.results.legend import averages
from entropy_cli.results.page.figures import Draw, panels_figure, panels_html
from entropy_cli.results.page.pictures import Picture, pictures_html
from entropy_cli.results.schema import (
    Result,
    ScaleResult,
    SoftEstimates,
    SoftScale,
    TemperatureResult,
)

COLUMNS = ("temperature", "scale", "tokens", "quantity")
NUMBERS = ("value", "plug_in", "se", "ci95_low", "ci95_high", "estimator", "note", "bound")


@dataclass(frozen=True)
class Report:
    """What a report shows, from top to bottom.

    Attributes:
        title: what the numbers are of, and the number; `heading` is without it.
        warnings: why not to trust or compare the numbers; they stand right below the headline.
        subject: what the figures are of, for readers who can't see them.
        panels: what each panel of the figure shows, and a function that draws it.
        terms: the meanings of the tables' columns; only the page has them.
        origins: for each result, by name, how it was made.
        estimates: every estimate in full precision, for CSV.
        pictures: images of the data, for the page.
    """

    title: str
    heading: str
    headline: str
    warnings: Sequence[str]
    details: str
    subject: str
    panels: Mapping[str, Draw]
    tables: Sequence[Table]
    terms: Mapping[str, str]
    notes: Sequence[str]
    origins: Mapping[str, Mapping[str, str]]
    estimates: Table
    pictures: Sequence[Picture] = ()

    def write(self, path: Path) -> None:
        """Write the report in the format of the file's suffix.

        Raises:
            ResultError: it can't be written.
            EntropyCliError: matplotlib is not installed.
        """
        suffix = path.suffix.lower()
        if suffix == ".html":
            write_page(path, self.title, self.html(), self.heading)
        elif suffix in FIGURES:
            with styled():
                heading = [self.title, *self.warnings, self.details]
                write_figure(panels_figure(self.panels, heading), path)
        else:
            write_text(path, self.markdown() if suffix == ".md" else self.estimates.csv())

    def html(self) -> list[str]:
        """Return the parts of the HTML page below its heading."""
        origins = [
            (f"<h3>{escape_html(name)}</h3>" if len(self.origins) > 1 else "") + definition_list(terms)
            for name, terms in self.origins.items()
        ]
        return [
            f'<p class="headline">{escape_html(self.headline)}</p>',
            *(f'<p class="error">{escape_html(warning)}</p>' for warning in self.warnings),
            f"<p>{escape_html(self.details)}</p>",
            "<h2>Figures</h2>" + panels_html(self.panels, self.subject),
            *(_filled_first(table).html() for table in self.tables),
            pictures_html(self.pictures),
            "<h2>Terms</h2>" + definition_list(self.terms) if self.terms else "",
            "<h2>Notes</h2>" + ordered_list(self.notes),
            "<h2>Provenance</h2>" + "".join(origins),
        ]

    def markdown(self) -> str:
        """Return the report as Markdown, without figures and terms."""
        heading, headline, details, *warnings = map(
            escape_markdown, (self.heading, self.headline, self.details, *self.warnings)
        )
        notes = [f"{i}. {escape_markdown(note)}" for i, note in enumerate(self.notes, 1)]
        parts = [
            *(f"# {heading}", f"**{headline}**", *(f"**{text}**" for text in warnings), details),
            *(table.markdown() for table in self.tables),
            "## Notes\n\n" + "\n".join(notes),
            "## Provenance",
        ]
        for name, terms in self.origins.items():
            parts += [f"### {escape_markdown(name)}"] if len(self.origins) > 1 else []
            lines = [
                f"- **{term}**: {markdown_code(text) if term == 'command' else escape_markdown(text)}"
                for term, text in terms.items()
            ]
            parts.append("\n".join(lines))
        return "\n\n".join(parts) + "\n"


def _filled_first(table: Table) -> Table:
    """Move columns with an empty cell to the end, where a narrow screen cuts them off first."""
    has_gap = [i for i in range(len(table.head)) if any(row[i] == "" for row in table.rows)]
    return table.select([i for i in range(len(table.head)) if i not in has_gap] + has_gap)


def origin(result: Result, terms: Mapping[str, str]) -> dict[str, str]:
    """Return how a result was made, as `terms` say, with the tokenizer's hash and the command."""
    terms = dict(terms)
    if result.tokenizer.checkpoint_sha256 is not None:
        terms["sha256"] = result.tokenizer.checkpoint_sha256
    command = result.provenance.get("command")
    return terms if command is None else {**terms, "command": str(command)}


def subject(result: Result) -> str:
    """Return what a result is of: checkpoint, family and data, without the folders around them."""
    checkpoint, data = (
        "/".join(recorded_name(result.provenance, key).split("/")[-2:]) for key in ("checkpoint", "data")
    )
    family = result.tokenizer.family
    return f"{f'{checkpoint} ({family})' if checkpoint else family} on {data}"


def keys_of(result: Result) -> Iterator[list[Cell]]:
    """Iterate over what `parts_of` a result are: temperature, name and tokens of each."""
    shown: list[Result | TemperatureResult] = [result, *result.temperatures[1:]]
    for at in shown:
        temperature = at.settings.temperature if isinstance(at, Result) else at.temperature
        scales: Sequence[ScaleResult | SoftScale] = at.scales
        for soft, scale in zip(scales, result.scales, strict=True):
            yield [soft.temperature, scale.name, scale.tokens]
        for kind in averages(result):
            yield [temperature, kind, ""]


def parts_of(result: Result | Evaluation) -> Iterator[SoftEstimates | SoftLosses]:
    """Iterate over scales and averages, first of the headline's temperature, then of the others."""
    for at in (result, *result.temperatures[1:]):
        yield from at.scales
        yield from (getattr(at.average, kind) for kind in averages(estimate_in(result)))


def estimates_of(estimates: SoftEstimates | SoftLosses) -> Iterator[list[Cell]]:
    """Iterate over the numbers of a scale or an average: the name and the parts of each."""
    for field in fields(estimates):
        one = getattr(estimates, field.name)
        if isinstance(one, Estimate):
            bound = "upper" if field.name == "marginal_entropy_bound" else one.bound
            low, high = one.ci95 or (None, None)
            yield [field.name, one.value, one.plug_in, one.se, low, high, one.estimator, one.note, bound]
