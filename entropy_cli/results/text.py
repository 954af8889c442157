"""A result as text for a terminal: its summary, and what is asked for beside it."""

from collections.abc import Iterator

from entropy_cli.core.table import definitions, wrapped
from entropy_cli.results import legend, notes, provenance, summary, tables
from entropy_cli.results.evaluation import Evaluation, estimate_in
from entropy_cli.results.evaluations import notes as loss_notes
from entropy_cli.results.evaluations import provenance as loss_provenance
from entropy_cli.results.evaluations import summary as loss_summary
from entropy_cli.results.evaluations import tables as loss_tables
from entropy_cli.results.ladder import rungs_table
from entropy_cli.results.schema import Result
from entropy_cli.results.tables import Format


def render(
    result: Result | Evaluation, units: str = "nats", *, table: bool = False, explain: bool = False
) -> str:
    """Return a result of `estimate` or of `evaluate` as text for a terminal.

    Args:
        result: the result to show.
        units: "nats" or "bits".
        table: whether the tables of all scales and temperatures follow the summary.
        explain: whether the legend, the provenance and the notes follow.
    """
    if isinstance(result, Evaluation):
        parts = [loss_summary.summary(result, units)]
    else:
        parts = [summary.summary(result, units)]
    if table:
        parts += _tables(result, units)
    if explain:
        parts += _explanations(result, units)
    return "\n\n".join(parts)


def _tables(result: Result | Evaluation, units: str) -> Iterator[str]:
    """Iterate over the tables of all scales and temperatures."""
    if isinstance(result, Evaluation):
        yield wrapped("", loss_tables.heading(result, units))
        for table in loss_tables.tables(result, Format(units)):
            yield table.fitted("perplexity", "top-5").text()
        if result.estimate.ladder is not None:
            yield rungs_table(result.estimate.ladder, units).text()
        return
    style = Format(units, intervals=True)
    yield tables.soft_table(result, style).without("tokens", "share", "T").text()
    if legend.is_counted(result):
        yield tables.hard_table(result, style).without("dead codes").text()
    if len(result.temperatures) > 1:
        yield tables.temperature_table(result, style).text()


def _explanations(result: Result | Evaluation, units: str) -> Iterator[str]:
    """Iterate over the checks, the legend, the provenance and the notes."""
    if isinstance(result, Evaluation):
        terms, found = loss_tables.legend(result), loss_notes.notes(result)
        origin = loss_provenance.provenance(result)
    else:
        terms, found = legend.legend(result, units), notes.notes(result)
        origin = provenance.provenance(result)
    checks = summary.checks_of(estimate_in(result))
    yield "\n".join(["Checks", *map(summary.check_text, checks)])
    yield definitions(terms)
    yield definitions(origin)
    yield "\n".join(["Notes", *(wrapped(f"{i}. ", note) for i, note in enumerate(found, 1))])
