"""Writing the report of a result, or the comparison of several, to a file."""

from collections.abc import Sequence
from pathlib import Path

from entropy_cli.core.errors import ResultError
from entropy_cli.core.figures import FORMATS as FIGURES
from entropy_cli.core.figures import styled
from entropy_cli.core.table import Table
from entropy_cli.results.evaluation import Evaluation, estimate_in
from entropy_cli.results.ladder import report_tables
from entropy_cli.results.legend import legend
from entropy_cli.results.notes import notes
from entropy_cli.results.page.estimate_comparison import estimate_comparison
from entropy_cli.results.page.evaluation_report import evaluation_report
from entropy_cli.results.page.figures import figure_panels
from entropy_cli.results.page.model_comparison import model_comparison
from entropy_cli.results.page.report import (
    COLUMNS,
    NUMBERS,
    Report,
    estimates_of,
    keys_of,
    origin,
    parts_of,
    subject,
)
from entropy_cli.results.provenance import provenance
from entropy_cli.results.schema import Result
from entropy_cli.results.summary import checks_of, checks_table, summary_table, usage
from entropy_cli.results.tables import headline, tables

TEXT = (".md", ".csv")
FORMATS = (".html", *FIGURES, *TEXT)
MEANING = "the uncertainty about a token's code given its latent"


def check_report(path: Path) -> None:
    """Check before a run that a report can be written after it.

    Raises:
        ResultError: the file's suffix is not one of FORMATS.
        EntropyCliError: matplotlib is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ResultError(f"{path}: expected a name that ends in {', '.join(FORMATS)}.")
    if suffix not in TEXT:
        styled()


def write_report(path: Path, results: Sequence[Result | Evaluation], sources: Sequence[str]) -> None:
    """Write the report of a result, or the comparison of several.

    Evaluations are compared by their cross-entropy, unless results of `estimate` are among them.

    Args:
        path: a path that ends in one of FORMATS.
        results: at least one result of `estimate` or `evaluate`.
        sources: the files of the results, after which a comparison names them.

    Raises:
        ResultError: it can't be written.
        EntropyCliError: matplotlib is not installed.
    """
    _report(results, sources).write(path)


def _report(results: Sequence[Result | Evaluation], sources: Sequence[str]) -> Report:
    evaluations = [result for result in results if isinstance(result, Evaluation)]
    if len(evaluations) == len(results):
        is_alone = len(evaluations) == 1
        return evaluation_report(evaluations[0]) if is_alone else model_comparison(evaluations, sources)
    estimates = list(map(estimate_in, results))
    return estimate_comparison(estimates, sources) if len(results) > 1 else result_report(estimates[0])


def result_report(result: Result) -> Report:
    """Return the report of one result."""
    what, value, details = headline(result)
    parts = zip(keys_of(result), parts_of(result), strict=True)
    rows = [[*keys, *row] for keys, part in parts for row in estimates_of(part)]
    return Report(
        title=f"{subject(result)}: {value}",
        heading=f"Assignment entropy of {subject(result)}",
        headline=value,
        warnings=[check.message for check in checks_of(result) if check.severity == "wrong"],
        details=" ".join([f"{what}: {MEANING}; {details}.", *_sentences(usage(result))]),
        subject=subject(result),
        panels=figure_panels(result),
        tables=[
            summary_table(result),
            checks_table(result),
            *report_tables(result.ladder),
            *tables(result),
        ],
        terms=legend(result, "nats"),
        notes=notes(result),
        origins={"": origin(result, provenance(result))},
        estimates=Table("estimates", "", [*COLUMNS, *NUMBERS], rows),
    )


def _sentences(lines: Sequence[str]) -> list[str]:
    return [f"{' '.join(line.split()).capitalize()}." for line in lines]
