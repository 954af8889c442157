"""Read a training log of any known format; the format is detected from the content."""

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from entropy_cli.commands.monitor.logs import records, stdout, tensorboard
from entropy_cli.commands.monitor.logs.names import subject
from entropy_cli.commands.monitor.logs.runs import RESTART, UNREADABLE, Row, build_series, select_run
from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.core.errors import LogError, NoLossError
from entropy_cli.core.reading import LOG_BYTES, Stamp, read_stream

TENSORBOARD = "tensorboard"
STDIN = Path("-")
COLOURS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
JSON_LINE = re.compile(r"\{\s*[\"'].*\}\s*$")
MAX_MATCHES = 200  # enough to detect a format
MAX_SERIES = 1000  # to summarise and to draw
MAX_LINE, MAX_NAMES = 100, 12  # characters and names that an error shows


class Format(NamedTuple):
    """A text format: how it is detected, and its reader (text, name of the loss).

    A pattern must take time in proportion to the text: it scans over no place where it could begin, and
    no two quantifiers in a row take the same characters.
    """

    patterns: Iterable[str | re.Pattern[str] | Callable[[str], Iterable[object]]]
    read: Callable[[str, str | None], Iterator[Row]]


def _json_lines(text: str) -> Iterator[re.Match[str]]:
    """Yield the object at the end of each line, from its first brace."""
    at = text.find("{")
    while at >= 0:
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if found := JSON_LINE.match(text, at, end):
            yield found
        at = text.find("{", end)


def _wandb_header(text: str) -> list[str]:
    """Return the minimum's column, if the first line names some as `RUN - METRIC__MIN`."""
    return ["__MIN"] if "__MIN" in text.partition("\n")[0].partition(" - ")[2] else []


# The most matches win, of equals the first: specific formats come before general ones.
FORMATS = {
    "var": Format([stdout.iterations, stdout.VAR_EPOCH], stdout.read_var),
    "var-log-txt": Format([r"(?m)^\{'it': |^\{.*'L_mean': "], records.read_log_txt),
    "llamagen": Format([stdout.LLAMAGEN], stdout.read_llamagen),
    "nanogpt": Format(stdout.NANOGPT, stdout.line_reader(stdout.NANOGPT)),
    "jepa": Format(stdout.JEPA, stdout.line_reader(stdout.JEPA)),
    "ijepa-csv": Format([r"(?m)^epoch,itr,loss,mask-A"], records.read_jepa_table),
    "vjepa-csv": Format([r"(?m)^epoch,itr,loss\b"], records.read_jepa_table),
    "huggingface": Format([r'"log_history"\s*:'], records.read_trainer_state),
    "wandb": Format([_wandb_header], records.read_table),
    "lightning": Format(
        [r"\A(?=[^\n]*\bstep\b)(?=[^\n]*\bepoch\b)[^\n]*\b(?:train|val)_\w+"], records.read_table
    ),
    "json": Format([r'\A\s*(?:\[\s*\{|\{\s*\n|\{\s*"[^"]+"\s*:\s*\[)'], records.read_json),
    "jsonl": Format([_json_lines], records.read_json_lines),
    "csv": Format([r"\A[^\n,;\t|]*[,;\t|][^\n]*\n"], records.read_table),
}
NAMES = (*FORMATS, TENSORBOARD)


def read_log(
    path: Path,
    format_name: str = "auto",
    loss_name: str | None = None,
    progress: Callable[[int], object] = lambda _: None,
    *,
    growing: bool = False,
) -> Log:
    """Read the losses, accuracies and gradient norms of a training log.

    Args:
        path: a file, a pipe, "-" for standard input, or a folder of TensorBoard's event files.
        format_name: one of `NAMES`, or auto to detect it from the content.
        loss_name: name of the loss to read; default all columns named as a loss.
        progress: called with 1 for each row.
        growing: whether the log is still being written, so that its last line may be incomplete.

    Raises:
        LogError: it can't be read, has no known format, or holds no values of a loss.
        EntropyCliError: the extra that reads it is not installed.
    """
    if path != STDIN and not path.exists():
        raise LogError(f"{path}: no such file. Give a training log, or a folder of event files.")
    if format_name not in ("auto", TENSORBOARD):
        if path.is_dir():
            raise LogError(
                f"{path}: a folder, expected a file of format {format_name}. Give the log file."
            )
    elif events := tensorboard.find_events(path):
        rows = list(_counted(tensorboard.read_events(events, loss_name), progress))
        return _build_log(path, TENSORBOARD, rows, loss_name)
    elif format_name == TENSORBOARD:
        raise LogError(
            f"{path}: not an event file of TensorBoard. Leave --format out to detect the format."
        )
    text = _read_text(path)
    name = _detect_format(path, text) if format_name == "auto" else format_name
    if growing and FORMATS[name].read in (records.read_table, records.read_jepa_table):
        text = text[: text.rfind("\n") + 1]
    try:
        rows = list(_counted(FORMATS[name].read(text, loss_name), progress))
    except (ValueError, csv.Error) as error:
        reason = _first_line(str(error))
        raise LogError(f"{path}: can't be read as {name}: {reason}. Give another --format.") from error
    return _build_log(path, name, rows, loss_name, text)


def _counted(rows: Iterable[Row], progress: Callable[[int], object]) -> Iterator[Row]:
    for row in rows:
        progress(1)
        yield row


def _read_text(path: Path) -> str:
    """Read a log as text with line feeds between lines, without colours; bad bytes are replaced."""
    try:
        content = read_stream(path, LOG_BYTES)
    except OSError as error:
        raise LogError(f"{path}: can't be read: {error.strerror}. Give a training log.") from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    text = COLOURS.sub("", text.replace("\0", "")).replace("\r\n", "\n").replace("\r", "\n")
    if is_stream(path) and tensorboard.SIGNATURE.decode() in text[:64]:
        raise LogError(f"{path}: TensorBoard events from a pipe, expected a file. Give the event file.")
    if not text.strip():
        raise NoLossError(f"{path}: empty, expected a log with losses. Give another log.")
    return text


def is_stream(path: Path) -> bool:
    """Return whether a log can be read only once."""
    return path == STDIN or path.is_fifo()


def log_stamps(path: Path) -> list[tuple[str, Stamp]]:
    """Return what changes of a log file, or of the files in a folder, when it is written to or replaced.

    Raises:
        OSError: a file went away.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    return sorted((str(file), Stamp.of(file.stat())) for file in files if not file.is_dir())


def _detect_format(path: Path, text: str) -> str:
    """Return the name of the format whose pattern matches most often."""
    found = {
        name: chain(*(p(text) if callable(p) else re.finditer(p, text) for p in kind.patterns))
        for name, kind in FORMATS.items()
    }
    matches = {name: sum(1 for _ in islice(some, MAX_MATCHES)) for name, some in found.items()}
    name = max(matches, key=matches.__getitem__)
    if not matches[name]:
        raise NoLossError(
            f"{path}: no losses found, expected one of the formats {', '.join(NAMES)}. Give "
            "--format, or a CSV or JSONL file with --loss COLUMN."
        )
    return name


def _build_log(path: Path, name: str, rows: Sequence[Row], loss_name: str | None, text: str = "") -> Log:
    """Build a log from rows; raise LogError if they hold no loss."""
    run, segments, left_out = select_run([row for row in rows if row is not UNREADABLE])
    series = build_series(run, loss_name)
    if loss_name is not None and all(one.metric.name != loss_name for one in series):
        names = list(dict.fromkeys(metric.name for row in run for metric in row.values))
        available = f"it has {_join_names(names)}" if names else "it has none"
        raise LogError(
            f"{path}: read as {name}, no series {loss_name}; {available}. Give another --loss."
        )
    series = _with_loss(series, loss_name)
    if len(series) > MAX_SERIES:
        raise LogError(
            f"{path}: {len(series):,} series, expected at most {MAX_SERIES:,}. Give the one to read "
            "with --loss COLUMN."
        )
    if not any(one.metric.is_loss for one in series):
        raise NoLossError(f"{path}: {_explain_missing_loss(name, text, rows)}")
    starts = max(segments, sum(row is RESTART for row in rows))
    return Log(
        format=name,
        series=series,
        starts=starts,
        segments=starts if name == TENSORBOARD else segments,
        left_out=left_out,
        unreadable=sum(row is UNREADABLE for row in rows),
        arguments=stdout.read_arguments(text),
    )


def _with_loss(series: list[Series], loss_name: str | None) -> list[Series]:
    """Keep the losses of a name and their counterparts of the other split, and what is no loss."""
    if loss_name is None:
        return series
    losses = [one.metric for one in series if one.metric.is_loss or one.metric.name == loss_name]
    named = next(metric for metric in losses if metric.name == loss_name)
    others = [metric for metric in losses if metric.split != named.split]
    same = [metric for metric in others if subject(metric) == subject(named)]
    kept = {*(same or others[: named.split == "val"])}
    dropped = {metric for metric in losses if metric.name != loss_name and metric not in kept}
    return [one for one in series if one.metric not in dropped]


def _explain_missing_loss(name: str, text: str, rows: Sequence[Row]) -> str:
    """Return why a file has no loss, and what to do about it."""
    headers = sum(row is RESTART for row in rows)
    if name.endswith("csv") and len(rows) == headers and len(set(text.split("\n")) - {""}) == 1:
        times = f" ({headers} times)" if headers > 1 else ""
        return (
            f"no data rows, only the header {_first_line(text)}{times}. The run ended before its first "
            "step. Give the log of another run."
        )
    if name == "json":
        keys = _join_names(re.findall(r'"(\w+)"\s*:', text))
        return (
            f"no loss series found: one JSON object ({keys}) without values over steps or epochs. "
            "Give the log that the program printed, or its event files."
        )
    start = f"; it begins with {_first_line(text)}" if text else ""
    return f"no loss found, read as {name}{start}. Give its column with --loss COLUMN."


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..."


def _join_names(names: Sequence[str]) -> str:
    return ", ".join([*names[:MAX_NAMES], *["..."][: len(names) > MAX_NAMES]])
