"""An evaluation as text for a terminal: its summary, and what is asked for beside it."""

from entropy_cli.core.table import definitions, wrapped
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.evaluations.notes import notes
from entropy_cli.results.evaluations.provenance import provenance
from entropy_cli.results.evaluations.summary import summary
from entropy_cli.results.evaluations.tables import heading, legend, tables
from entropy_cli.results.ladder import rungs_table
from entropy_cli.results.summary import check_text
from entropy_cli.results.tables import Format


def render(
    evaluation: Evaluation, units: str = "nats", *, table: bool = False, explain: bool = False
) -> str:
    """Return an evaluation as text for a terminal.

    Args:
        evaluation: the result to show.
        units: "nats" or "bits".
        table: whether the tables of all scales and temperatures follow the summary.
        explain: whether the legend, the provenance and the notes follow.
    """
    estimate, parts = evaluation.estimate, [summary(evaluation, units)]
    if table:
        parts.append(wrapped("", heading(evaluation, units)))
        parts += [
            shown.fitted("perplexity", "top-5").text() for shown in tables(evaluation, Format(units))
        ]
        if estimate.ladder is not None:
            parts.append(rungs_table(estimate.ladder, units).text())
    if explain:
        numbered = (wrapped(f"{i}. ", note) for i, note in enumerate(notes(evaluation), 1))
        parts += [
            "\n".join(["Checks", *map(check_text, estimate.checks)]),
            definitions(legend(evaluation)),
            definitions(provenance(evaluation)),
            "\n".join(["Notes", *numbered]),
        ]
    return "\n\n".join(parts)
