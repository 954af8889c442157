"""Reports for where there are no pictures: Markdown, and a table of every number as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields

from entropy_cli.core.page import Table
from entropy_cli.entropy.quantity import Bound, Estimate
from entropy_cli.results.legend import averages
from entropy_cli.results.notes import notes
from entropy_cli.results.page.report_tables import headline, result_name, tables
from entropy_cli.results.schema import Result, SoftEstimates
from entropy_cli.results.tables import provenance

COLUMNS = ("temperature", "scale", "tokens", "quantity")
NUMBERS = ("value", "plug_in", "se", "ci95_low", "ci95_high", "estimator", "note", "bound")


def markdown(result: Result) -> str:
    """Headline, tables, notes and where it comes from."""
    value, words = headline(result)
    parts = [f"# Assignment entropy of {result_name(result)}", f"**{value}**", f"{words}."]
    parts += [markdown_table(one) for one in tables(result)]
    parts.append("## Notes\n\n" + "\n".join(f"{i}. {note}" for i, note in enumerate(notes(result), 1)))
    about = provenance(result)
    made_by = result.provenance.get("command")
    if made_by is not None:
        about["made by"] = f"`{made_by}`"
    parts.append(
        "## Where it comes from\n\n"
        + "\n".join(f"- **{term}**: {words}" for term, words in about.items())
    )
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table with its title and caption."""
    lines = [_row(table.head), _row(["---", *["---:"] * (len(table.head) - 1)])]
    lines += [_row(row) for row in table.rows]
    return f"## {table.title}\n\n{table.caption}\n\n" + "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def comma_separated(result: Result) -> str:
    """Every estimate in a row of its own, in nats per token unless its name says otherwise."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *NUMBERS])
    for place, estimates in _places(result):
        for name, numbers in estimates_of(estimates):
            writer.writerow([*place, name, *numbers])
    return text.getvalue()


def estimates_of(estimates: SoftEstimates) -> Iterator[tuple[str, list[object]]]:
    """Those of a scale or average: names, and their numbers."""
    for field in fields(estimates):
        found = getattr(estimates, field.name)
        if isinstance(found, Estimate):
            bound = "upper" if field.name == "marginal_entropy_bound" else found.bound
            yield field.name, _numbers(found, bound)


def _numbers(estimate: Estimate, bound: Bound) -> list[object]:
    """Of an estimate in the order of NUMBERS; nothing where there is none."""
    low, high = estimate.ci95 or (None, None)
    numbers = (
        estimate.value,
        estimate.plug_in,
        estimate.se,
        low,
        high,
        estimate.estimator,
        estimate.note,
        bound,
    )
    return ["" if number is None else number for number in numbers]


def _places(result: Result) -> Iterator[tuple[list[object], SoftEstimates]]:
    """The headline's scales and averages, then those of other temperatures."""
    for scale in result.scales:
        yield [scale.temperature, scale.name, scale.tokens], scale
    for kind in averages(result):
        yield [result.settings.temperature, kind, ""], getattr(result.average, kind)
    for at in result.temperatures[1:]:
        for soft, scale in zip(at.scales, result.scales, strict=True):
            yield [soft.temperature, scale.name, scale.tokens], soft
        for kind in averages(result):
            yield [at.temperature, kind, ""], getattr(at.average, kind)
