"""Refuse the rows of several runs in one log: together they are no curve."""

from collections.abc import Mapping, Sequence

from entropy_cli.commands.monitor.logs.names import infer_split, names_training
from entropy_cli.commands.monitor.logs.text import parse_number
from entropy_cli.core.errors import LogError

OF_RECORDS = ("run", "run name", "run_name", "run id", "run_id", "experiment", "model")
OF_TABLES = ("name", *OF_RECORDS, "id")  # in records those name an event, or the record itself
MANY_RUNS = 2
MOST_NAMES = 3  # of runs that an error shows


class RunNames:
    """Counts the rows of each run by the name in its column; of a log without one it counts nothing."""

    def __init__(self, columns: Sequence[str], known: Sequence[str]) -> None:
        lower = [name.lower() for name in columns]
        self.column = next((columns[lower.index(name)] for name in known if name in lower), None)
        self.rows: dict[str, int] = {}

    def count(self, record: Mapping[str, object]) -> None:
        """Count a row; a number or a split in the column shows that it names no runs."""
        if self.column is None or not (run := record.get(self.column)):
            return
        if not isinstance(run, str) or parse_number(run) is not None or _tells_split(run):
            self.column, self.rows = None, {}
        else:
            self.rows[run] = self.rows.get(run, 0) + 1

    def check(self, path: object, *, is_table: bool) -> None:
        """Raise LogError for rows of several runs; a single record of a name is no run."""
        runs = [name for name, rows in self.rows.items() if is_table or rows > 1]
        seen, most = len(runs), max(self.rows.values(), default=0)
        if seen < MANY_RUNS:
            return
        if most == 1:
            raise LogError(
                f"{path}: a table of {seen} runs, one row each by {self.column}: no curve over "
                "training. Export the history of one run, or the data of a chart."
            )
        names = ", ".join([*runs[:MOST_NAMES], *["..."][: seen > MOST_NAMES]])
        what = "a table" if is_table else "records"
        raise LogError(
            f"{path}: {what} of {seen} runs by {self.column} ({names}), expected one. Give the rows of "
            "one run alone."
        )


def _tells_split(name: str) -> bool:
    return infer_split(name) == "val" or names_training(name)
