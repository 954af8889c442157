"""Reader of TensorBoard event files."""

from pathlib import Path
from typing import Any

import numpy as np

from entropy_cli.commands.monitor.logs.names import Namer
from entropy_cli.commands.monitor.logs.rows import Rows
from entropy_cli.commands.monitor.logs.runs import build_series, select_run
from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.core.errors import LogError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.metric_writers import OWN_SUFFIX
from entropy_cli.core.reading import OpenFile

EVENTS = "*tfevents*"
SIGNATURE = b"brain.Event:"  # within the first bytes of an event file
EPOCH_TAG = "AR_ep_"  # VAR's tags whose steps are epochs


def find_events(path: Path) -> Path | None:
    """Return the event file at a path, or the one folder with some at or below it; None for other files.

    Raises:
        LogError: none or several are found in a folder, or an event file is not a regular file.
    """
    if not path.is_dir():
        opened = OpenFile(path) if path.is_file() else None
        return path if opened and SIGNATURE in opened.read(0, min(64, opened.size)) else None
    files = [file for file in path.rglob(EVENTS) if not file.name.endswith(OWN_SUFFIX)]
    for file in files:
        if not file.is_file():
            raise LogError(
                f"{file}: not a regular file, expected an event file of TensorBoard. Remove it."
            )
    folders = sorted({file.parent for file in files})
    if len(folders) == 1:
        return folders[0]
    if not folders:
        raise LogError(f"{path}: a folder without TensorBoard event files. Give a log file in it.")
    listed = ", ".join(map(str, folders[:8])) + (f" and {len(folders) - 8} more" if folders[8:] else "")
    raise LogError(
        f"{path}: event files of {len(folders)} runs, expected one run. Give one of {listed}."
    )


def read_events(path: Path, namer: Namer) -> tuple[list[Series], int]:
    """Read the scalars of an event file or folder; a restart replaces the steps it repeats.

    Returns:
        The series, and the number of processes that wrote them.

    Raises:
        EntropyCliError: tensorboard is not installed.
        LogError: they can't be read.
    """
    name = "tensorboard.backend.event_processing.event_accumulator"
    events = import_extra(name, "tensorboard", "reading event files")
    accumulator = events.EventAccumulator(
        str(path), size_guidance=dict.fromkeys(events.DEFAULT_SIZE_GUIDANCE, 0)
    )
    try:
        accumulator.Reload()
    except Exception as error:  # damaged files make it raise anything
        raise LogError(
            f"{path}: can't be read as TensorBoard events: {error}. Give another log."
        ) from error
    series: list[Series] = []
    segments = 0
    for tag, points in _scalars(accumulator).items():
        metric = namer.metric(tag)
        if metric is None:
            continue
        rows = Rows()
        is_epoch = tag.startswith(EPOCH_TAG)
        for step, value in points:
            epoch, at = (step, None) if is_epoch else (None, step)
            rows.add(epoch, at, [(metric, value)])
        rows.epoch_n, rows.step_n = rows.positions()
        run = select_run(rows)
        segments = max(segments, run.segments)
        series += build_series(rows, run)
    series.sort(key=lambda one: len(one) > 0 and bool(np.isnan(one.step_n[0])))  # epochs at the end
    return series, segments


def _scalars(accumulator: Any) -> dict[str, list[tuple[int, float]]]:  # noqa: ANN401 - the extra has no types
    """Return steps and values by tag, including the scalars that TensorFlow 2 writes as tensors."""
    tags = accumulator.Tags()
    found = {
        tag: [(point.step, point.value) for point in accumulator.Scalars(tag)] for tag in tags["scalars"]
    }
    for tag in tags["tensors"]:
        points = accumulator.Tensors(tag)
        if all(
            not point.tensor_proto.tensor_shape.dim and point.tensor_proto.float_val for point in points
        ):
            found[tag] = [(point.step, point.tensor_proto.float_val[0]) for point in points]
    return found
