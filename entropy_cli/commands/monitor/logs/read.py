"""Read a training log of any known dialect, which is found by its content."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from entropy_cli.commands.monitor.logs import detect, tensorboard
from entropy_cli.commands.monitor.logs.detect import Form, Reader
from entropy_cli.commands.monitor.logs.dialects import DIALECTS
from entropy_cli.commands.monitor.logs.names import Namer, subject
from entropy_cli.commands.monitor.logs.rows import Rows
from entropy_cli.commands.monitor.logs.runs import build_series, select_run
from entropy_cli.commands.monitor.logs.series import Log, Series
from entropy_cli.commands.monitor.logs.text import read_pieces
from entropy_cli.core.errors import LogError
from entropy_cli.core.metric_writers import OWN_SUFFIX
from entropy_cli.core.reading import Stamp

TENSORBOARD = "tensorboard"
STDIN = Path("-")
HEAD = 2**18  # characters of the beginning, which show how to read a log
LATER, HEADS = 2**19, 4  # characters of so many pieces, in which losses are sought after a long text
MAX_SERIES = 1000  # to summarise and to draw
MAX_LINE, MAX_NAMES = 100, 12  # characters and names that an error shows
OWN_RESULT = re.compile(r'\s*\{\s*"schema": "entropy-cli/([a-z-]{1,20})"')
CONTROL = re.compile(r"[\x01-\x08\x0e-\x1a\x1c-\x1f]")  # characters of no text
NAMES = (
    *(name for name, dialect in DIALECTS.items() if dialect.container != "events"),
    "json",
    *detect.PLAIN,
    TENSORBOARD,
)


def read_log(
    path: Path,
    format_name: str = "auto",
    loss_name: str | None = None,
    progress: Callable[[int], object] = lambda _: None,
    *,
    growing: bool = False,
    everything: bool = False,
) -> Log:
    """Read the losses, accuracies, gradient norms, learning rates and tokens of a training log.

    Args:
        path: a file, a pipe, "-" for standard input, or a folder of TensorBoard's event files.
        format_name: one of `NAMES`, or auto to detect it from the content.
        loss_name: name of the loss to read; default all that are named as a loss.
        progress: called with the number of bytes that were read.
        growing: whether the log is still being written, so that its last line may be incomplete.
        everything: whether to read all other numbers with a name too, and to accept a log without loss.

    Raises:
        LogError: it can't be read, has no known form, or holds no values of a loss.
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
        namer = Namer(DIALECTS["var-events"], loss_name, everything=everything)
        series, starts = tensorboard.read_events(events, namer)
        log = Log(TENSORBOARD, series, starts, starts, 0)
        return _checked(path, log, loss_name, "no loss found", everything=everything)
    elif format_name == TENSORBOARD:
        raise LogError(
            f"{path}: not an event file of TensorBoard. Leave --format out to detect the format."
        )
    return _read_text(path, format_name, loss_name, progress, growing=growing, everything=everything)


def _read_text(
    path: Path,
    format_name: str,
    loss_name: str | None,
    progress: Callable[[int], object],
    *,
    growing: bool,
    everything: bool,
) -> Log:
    """Read a log that is text."""
    pieces = read_pieces(path, progress)
    head = _head(path, pieces)
    text = "".join(head)
    name = format_name
    try:
        form, head, pieces = _form(path, format_name, loss_name, head, pieces)
        name = form.name
        namer = Namer(form.dialect, loss_name, form.names, everything=everything)
        reader = detect.reader_of(form.container, namer, form.names, growing=growing)
        rows = reader.read(chain(head, pieces))
    except (ValueError, csv.Error) as error:
        if name == "auto":
            name = "huggingface" if '"log_history"' in text else "json"
        reason = _first_line(str(error))
        raise LogError(f"{path}: can't be read as {name}: {reason}. Give another --format.") from error
    reader.runs.check(path, is_table=form.container == "table")
    reason = _explain_missing_loss(form, reader, rows, text, is_whole=len(head) == 1)
    log = _build_log(form, reader, rows, loss_name)
    if loss_name is None and not everything:
        _check_no_prose(path, form, rows, log.series)
    return _checked(path, log, loss_name, reason, everything=everything)


def _check_no_prose(path: Path, form: Form, rows: Rows, series: Sequence[Series]) -> None:
    """Raise LogError for text that names losses, but none twice or beside a step."""
    losses = [one for one in series if one.metric.is_loss]
    is_known = form.container != "lines" or form.dialect is not None or not losses
    if not is_known and all(len(one) == 1 for one in losses) and not rows.is_placed:
        raise LogError(
            f"{path}: a single value of {losses[0].metric.name} and no step or epoch, expected a "
            "training log. Give the log of a run, or read this one with --loss NAME."
        )


def _head(path: Path, pieces: Iterator[str]) -> list[str]:
    """Return the first piece of a log that is not blank, in a list."""
    head = next((piece for piece in pieces if piece.strip()), "")
    if is_stream(path) and tensorboard.SIGNATURE.decode() in head[:64]:
        raise LogError(f"{path}: TensorBoard events from a pipe, expected a file. Give the event file.")
    if not head:
        raise LogError(f"{path}: empty, expected a log with losses. Give another log.")
    if own := OWN_RESULT.match(head):
        raise LogError(
            f"{path}: a result of entropy-cli {own[1]}, expected a training log. Results of estimate go "
            "to --floor, those of evaluate to --floor or --reference."
        )
    return [head]


def _form(
    path: Path, format_name: str, loss_name: str | None, head: list[str], pieces: Iterator[str]
) -> tuple[Form, list[str], Iterator[str]]:
    """Return how to read a log, the pieces that were read for that, and the rest.

    Raises:
        LogError: it is of no known form.
        ValueError: it is no JSON, but begins so.
    """
    text = head[0][:HEAD]
    text = text[: text.rfind("\n") + 1] or text
    if format_name in DIALECTS and DIALECTS[format_name].container != "document":
        form = detect.choose(DIALECTS[format_name].container, text, loss_name)
        return form._replace(name=format_name, dialect=DIALECTS[format_name]), head, pieces
    if format_name in detect.PLAIN:
        return detect.choose(detect.PLAIN[format_name], text, loss_name), head, pieces
    if format_name != "auto" or detect.is_document(text):
        head, pieces = ["".join([*head, *pieces])], iter(())
        try:
            return detect.choose("document", head[0]), head, pieces
        except ValueError:
            if format_name != "auto" or '"log_history"' in text:
                raise
    found, losses = detect.detect(text, loss_name)
    later: str | None = head[0][len(text) :]
    while not losses and later is not None and len(head) <= HEADS:
        if later:
            other, losses = detect.detect(later[:LATER], loss_name)
            found = other if losses else found
        later = None if losses else next(pieces, None)
        head += [later] if later else []
    if found is None:
        raise LogError(
            f"{path}: no losses found in any of {len(NAMES)} formats (`entropy-cli guide logs`). Give "
            "--format, or a CSV or JSONL file with --loss COLUMN."
        )
    return found, head, pieces


def is_stream(path: Path) -> bool:
    """Return whether a log can be read only once."""
    return path == STDIN or path.is_fifo()


def log_stamps(path: Path) -> list[tuple[str, Stamp]]:
    """Return what changes of a log file, or of the files in a folder, when it is written to or replaced.

    Raises:
        OSError: a file went away.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    others = [file for file in files if not (file.is_dir() or file.name.endswith(OWN_SUFFIX))]
    return sorted((str(file), Stamp.of(file.stat())) for file in others)


def _build_log(form: Form, reader: Reader, rows: Rows, loss_name: str | None) -> Log:
    """Build a log from rows."""
    rows.settle()
    run = select_run(rows)
    series = build_series(rows, run, loss_name)
    return Log(
        format=form.name,
        series=series,
        starts=max(run.segments, len(rows.starts)),
        segments=run.segments,
        left_out=run.left_out,
        unreadable=rows.unreadable,
        arguments=reader.arguments,
        notes=[*reader.notes, *_guesses(form, series, loss_name)],
    )


def _guesses(form: Form, series: Sequence[Series], loss_name: str | None) -> list[str]:
    """Say which of several losses is likely the one that is trained on, if nothing known says so."""
    main = [one.metric.name for one in series if one.metric.is_main and one.metric.has_floor]
    at_least = 1 if form.container == "lines" else 2
    if form.dialect is not None or loss_name is not None or len(main) < at_least:
        return []
    likeliest = min(main, key=lambda name: (not name.lower().endswith("loss"), len(name)))
    of = f" (of {_join_names(main)})" if len(main) > 1 else ""
    return [
        f"no known program's log: {likeliest}{of} is likely the training loss. --loss NAME picks "
        "another, --list shows all"
    ]


def _checked(path: Path, log: Log, loss_name: str | None, reason: str, *, everything: bool) -> Log:
    """Return a log with the losses that were asked for; raise LogError if it has none."""
    series = log.series
    if loss_name is not None and all(one.metric.name != loss_name for one in series):
        names = list(dict.fromkeys(one.metric.name for one in series))
        available = f"it has {_join_names(names)}" if names else "it has none"
        raise LogError(
            f"{path}: read as {log.format}, no series {loss_name}; {available}. Give another --loss."
        )
    if everything:
        return log
    series = _with_loss([*series], loss_name)
    if len(series) > MAX_SERIES:
        raise LogError(
            f"{path}: {len(series):,} series, expected at most {MAX_SERIES:,}. Give the one to read "
            "with --loss COLUMN."
        )
    if not any(one.metric.is_loss for one in series):
        raise LogError(f"{path}: {reason}")
    return replace(log, series=series)


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


def _explain_missing_loss(form: Form, reader: Reader, rows: Rows, text: str, *, is_whole: bool) -> str:
    """Return why a file has no loss, and what to do about it."""
    headers, n, names = len(rows.starts), len(rows), _join_names([*reader.names])
    if form.container == "table" and not n and headers and is_whole:
        times = f" ({headers} times)" if headers > 1 else ""
        return (
            f"no data rows, only the header {_first_line(text)}{times}. The run ended before its first "
            "step. Give the log of another run."
        )
    if form.name == "json" and not n:
        keys = _join_names(re.findall(r'"(\w+)"\s*:', text))
        return (
            f"no loss series found: one JSON object ({keys}) without values over steps or epochs. "
            "Give the log that the program printed, or its event files."
        )
    if len(CONTROL.findall(text)) > len(text) / 100:
        return "not text, expected a training log. Give the log, or event files of TensorBoard."
    has = f"; it has {names}" if names else ""
    start = f"; it begins with {_first_line(text)}{has}" if text else ""
    return f"no loss found, read as {form.name}{start}. Give its column with --loss COLUMN."


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..."


def _join_names(names: Sequence[str]) -> str:
    return ", ".join([*names[:MAX_NAMES], *["..."][: len(names) > MAX_NAMES]])
