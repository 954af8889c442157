"""Training logs of all kinds, told apart by what is in them."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from entropy_cli.commands.monitor.logs import printed, records, tensorboard, var
from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.series import (
    MARK,
    UNREADABLE,
    Log,
    Metric,
    Row,
    Series,
    chosen_run,
    series_of,
    without_finer_twins,
)
from entropy_cli.commands.monitor.logs.text import STDIN, read_text
from entropy_cli.core.errors import LogError, NoLossError

TENSORBOARD = "tensorboard"
ENOUGH = 200  # signs of a format
LONGEST, MOST_NAMES = 100, 12  # of what an error shows


class Format(NamedTuple):
    """A format of text: what shows that a file is of it, and its reader (text, chosen column)."""

    sign: re.Pattern[str]
    read: Callable[[str, str | None], Iterator[Row]]


def _line_reader(read: Callable[[str], Iterator[Row]]) -> Callable[[str, str | None], Iterator[Row]]:
    return lambda text, _: read(text)


# The first with the most signs is taken; what is particular stands before what is general.
FORMATS = {
    "var": Format(var.STDOUT, _line_reader(var.read_stdout)),
    "var-log-txt": Format(var.LOG_TXT, _line_reader(var.read_log_txt)),
    "llamagen": Format(printed.LLAMAGEN, _line_reader(printed.read_llamagen)),
    "nanogpt": Format(printed.NANOGPT, _line_reader(printed.read_nanogpt)),
    "jepa": Format(printed.JEPA, _line_reader(printed.read_jepa)),
    "ijepa-csv": Format(re.compile(r"(?m)^epoch,itr,loss,mask-A"), records.read_jepa_table),
    "vjepa-csv": Format(re.compile(r"(?m)^epoch,itr,loss\b"), records.read_jepa_table),
    "huggingface": Format(re.compile(r'"log_history"\s*:'), records.read_trainer_state),
    "wandb": Format(re.compile(r"\A[^\n]* - [^\n]*__MIN"), records.read_table),
    "lightning": Format(
        re.compile(r"\A(?=[^\n]*\bstep\b)(?=[^\n]*\bepoch\b)[^\n]*\b(?:train|val)_\w+"),
        records.read_table,
    ),
    "json": Format(re.compile(r'\A\s*(?:\[\s*\{|\{\s*\n|\{\s*"[^"]+"\s*:\s*\[)'), records.read_json),
    "jsonl": Format(re.compile(r"(?m)\{\s*[\"'].*\}\s*$"), records.read_json_lines),
    "csv": Format(re.compile(r"\A[^\n]*[,;\t|][^\n]*\n"), records.read_table),
}
NAMES = (*FORMATS, TENSORBOARD)


def read_log(
    path: Path,
    format_name: str = "auto",
    chosen: str | None = None,
    progress: Callable[[int], object] = lambda _: None,
    *,
    growing: bool = False,
) -> Log:
    """Read the losses, accuracies and gradient norms of a training log.

    Args:
        path: a file, a pipe, "-" for standard input, or a folder of TensorBoard's event files.
        format_name: one of `NAMES`, or auto: by the content.
        chosen: the name of the loss to look at; default all that are called one.
        progress: is told of each row that is read.
        growing: whether somebody is writing it: the last line of a table may be half of one.

    Raises:
        LogError: it can't be read, is of no known format, or holds no values of a loss.
        EntropyCliError: an extra is wanted for it.
    """
    if path != STDIN and not path.exists():
        raise LogError(f"{path}: no such file. Give a training log, or a folder of event files.")
    if path.is_dir() or (format_name in ("auto", TENSORBOARD) and tensorboard.is_event_file(path)):
        if format_name not in ("auto", TENSORBOARD):
            raise LogError(f"{path}: a folder, expected a file of format {format_name}. Give the file.")
        folder = tensorboard.event_folder(path) if path.is_dir() else path
        rows = _listed(tensorboard.read_events(folder, chosen), progress)
        return _log(path, TENSORBOARD, rows, chosen)
    if format_name == TENSORBOARD:
        raise LogError(f"{path}: no event file of TensorBoard. Leave --format out to find its format.")
    text = read_text(path)
    if is_stream(path) and tensorboard.FIRST_RECORD.decode() in text[:64]:
        raise LogError(f"{path}: TensorBoard's events are read from files only. Give the event file.")
    if not text.strip():
        raise NoLossError(f"{path}: is empty. Give a log with losses in it.")
    name = _detected(path, text) if format_name == "auto" else format_name
    if growing and FORMATS[name].read in (records.read_table, records.read_jepa_table):
        text = text[: text.rfind("\n") + 1]
    try:
        rows = _listed(FORMATS[name].read(text, chosen), progress)
    except (ValueError, csv.Error) as error:
        raise LogError(f"{path}: can't be read as {name}: {error}. Give another --format.") from error
    return _log(path, name, rows, chosen, text)


def _listed(found: Iterable[Row], progress: Callable[[int], object]) -> list[Row]:
    rows = []
    for row in found:
        rows.append(row)
        progress(1)
    return rows


def is_stream(path: Path) -> bool:
    """Whether a log can be read once only."""
    return path == STDIN or path.is_fifo()


def size_of(path: Path) -> int:
    """Bytes of a log so far, or of a folder of them; what changes when it grows."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _detected(path: Path, text: str) -> str:
    """The format with the most signs of it."""
    signs = {
        name: sum(1 for _ in islice(kind.sign.finditer(text), ENOUGH)) for name, kind in FORMATS.items()
    }
    name = max(signs, key=lambda name: signs[name])
    if not signs[name]:
        raise NoLossError(
            f"{path}: no losses found: the text is of none of the formats {', '.join(NAMES)}. "
            "Give --format, or a CSV or JSONL file with --loss COLUMN."
        )
    return name


def _log(path: Path, name: str, rows: Sequence[Row], chosen: str | None, text: str = "") -> Log:
    """Rows as a log, if there is a loss among their values."""
    run, segments, left_out = chosen_run([row for row in rows if row is not UNREADABLE])
    series = series_of(run)
    names = [one.metric.name for one in series]
    if chosen is not None and chosen not in names:
        there = f"it has {_names(names)}" if names else "it has none"
        raise LogError(f"{path}: read as {name}, no series {chosen}; {there}. Give another --loss.")
    series = [one for one in without_finer_twins(series, chosen) if _wanted(one.metric, chosen, series)]
    if not any(one.metric.is_loss for one in series):
        raise NoLossError(f"{path}: {_why_nothing(name, text, rows)}")
    marks = sum(row is MARK for row in rows)
    return Log(
        format=name,
        series=series,
        starts=max(segments, marks),
        segments=max(segments, marks) if name == TENSORBOARD else segments,
        left_out=left_out,
        unreadable=sum(row is UNREADABLE for row in rows),
        facts=var.arguments(text),
    )


def _wanted(metric: Metric, chosen: str | None, series: Sequence[Series]) -> bool:
    """Whether a series belongs to the loss that was chosen: it, what it is compared with, no other."""
    if chosen is None or not metric.is_loss or metric.name == chosen:
        return True
    (of, *_) = (one.metric for one in series if one.metric.name == chosen)
    others = [one.metric for one in series if one.metric.is_loss and one.metric.split != of.split]
    same = [other for other in others if subject(other) == subject(of)]
    return metric in (same or others[:1] if of.split == "val" else same)


def _why_nothing(name: str, text: str, rows: Sequence[Row]) -> str:
    """Why a file has no loss, and what to do."""
    heads = sum(row is MARK for row in rows)
    if name.endswith("csv") and len(rows) == heads and len(set(text.split("\n")) - {""}) == 1:
        again = f", {heads} times," if heads > 1 else ""
        return (
            f"no data rows: only the head {_shown(text)}{again} and nothing below it. The run ended "
            "before its first step; give the log of another."
        )
    if name == "json":
        keys = _names(re.findall(r'"(\w+)"\s*:', text))
        return (
            f"no loss series found: one JSON object ({keys}) of a single moment, without values over "
            "steps or epochs. Give the log that the program printed, or its event files."
        )
    what = f"; it begins with {_shown(text)}" if text else ""
    return f"no loss found, read as {name}{what}. Give its column with --loss COLUMN."


def _shown(text: str) -> str:
    """The first line, or its beginning."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
