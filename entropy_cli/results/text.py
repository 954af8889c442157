"""A result as text for a terminal: its summary, and the tables and explanations that are asked for."""

from entropy_cli.core.table import definitions, wrapped
from entropy_cli.results.legend import is_counted, legend
from entropy_cli.results.notes import notes
from entropy_cli.results.provenance import provenance
from entropy_cli.results.schema import Result
from entropy_cli.results.summary import check_text, checks_of, summary
from entropy_cli.results.tables import Format, hard_table, soft_table, temperature_table


def render(result: Result, units: str = "nats", *, table: bool = False, explain: bool = False) -> str:
    """Return a result as text for a terminal.

    Args:
        result: the result to show.
        units: "nats" or "bits".
        table: whether the tables of all scales and temperatures follow the summary.
        explain: whether the legend, the provenance and the notes follow.
    """
    parts = [summary(result, units)]
    if table:
        style = Format(units, intervals=True)
        shown = [soft_table(result, style).without("tokens", "share", "T")]
        if is_counted(result):
            shown.append(hard_table(result, style).without("dead codes"))
        if len(result.temperatures) > 1:
            shown.append(temperature_table(result, style))
        parts += [shown_table.text() for shown_table in shown]
    if explain:
        numbered = (wrapped(f"{i}. ", note) for i, note in enumerate(notes(result), 1))
        parts += [
            "\n".join(["Checks", *map(check_text, checks_of(result))]),
            definitions(legend(result, units)),
            definitions(provenance(result)),
            "\n".join(["Notes", *numbered]),
        ]
    return "\n\n".join(parts)
