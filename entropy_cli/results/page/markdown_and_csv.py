"""A report as text: Markdown, and CSV with every estimate."""

import csv
import io
from collections.abc import Iterator
from dataclasses import fields

from entropy_cli.entropy.quantity import Bound, Estimate
from entropy_cli.results.legend import averages
from entropy_cli.results.notes import notes
from entropy_cli.results.page.report_tables import headline, result_name, tables
from entropy_cli.results.schema import Result, SoftEstimates
from entropy_cli.results.tables import provenance

COLUMNS = ("temperature", "scale", "tokens", "quantity")
NUMBERS = ("value", "plug_in", "se", "ci95_low", "ci95_high", "estimator", "note", "bound")


def report_markdown(result: Result) -> str:
    """Return the headline, tables, notes and provenance of a result as Markdown."""
    value, description = headline(result)
    parts = [f"# Assignment entropy of {result_name(result)}", f"**{value}**", f"{description}."]
    parts += [table.markdown() for table in tables(result)]
    parts.append("## Notes\n\n" + "\n".join(f"{i}. {note}" for i, note in enumerate(notes(result), 1)))
    origin = provenance(result)
    command = result.provenance.get("command")
    if command is not None:
        origin["command"] = f"`{command}`"
    parts.append(
        "## Provenance\n\n" + "\n".join(f"- **{term}**: {text}" for term, text in origin.items())
    )
    return "\n\n".join(parts) + "\n"


def report_csv(result: Result) -> str:
    """Return all estimates as CSV, a row each, in nats per token unless the name says otherwise."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *NUMBERS])
    for keys, estimates in _groups(result):
        for name, numbers in estimates_of(estimates):
            writer.writerow([*keys, name, *numbers])
    return text.getvalue()


def estimates_of(estimates: SoftEstimates) -> Iterator[tuple[str, list[object]]]:
    """Iterate over the estimates of a scale or an average: their names, and their numbers."""
    for field in fields(estimates):
        estimate = getattr(estimates, field.name)
        if isinstance(estimate, Estimate):
            bound = "upper" if field.name == "marginal_entropy_bound" else estimate.bound
            yield field.name, _numbers(estimate, bound)


def _numbers(estimate: Estimate, bound: Bound) -> list[object]:
    """Return the numbers of an estimate in the order of NUMBERS; "" for None."""
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


def _groups(result: Result) -> Iterator[tuple[list[object], SoftEstimates]]:
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
