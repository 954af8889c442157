"""TensorBoard's event files: VAR's tags, which hold the only losses by scale, and everybody's.

Source:
    FoundationVision/VAR, trainer.py: AR_iter_loss/L_<pixels> is of the scale with pixels / 16 on a side.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entropy_cli.commands.monitor.logs.names import metric_of, split_of
from entropy_cli.commands.monitor.logs.series import MARK, Kind, Metric, Row, chosen_run
from entropy_cli.core.errors import LogError
from entropy_cli.core.extras import import_extra

EVENTS = "*tfevents*"
FIRST_RECORD = b"brain.Event:"  # what an event file says of itself in its first bytes
PIXELS_PER_TOKEN = 16  # of VAR's tokenizer
OF_EPOCHS = "AR_ep_"  # VAR's tags whose steps are epochs
VAR_TAG = re.compile(r"AR_(?:iter|ep)_loss/(v?)(L|acc)_(mean|tail|\d+)")


def is_event_file(path: Path) -> bool:
    """Whether this is a file of TensorBoard's."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return FIRST_RECORD in file.read(64)


def event_folder(path: Path) -> Path:
    """The folder with event files in a folder, or in one below it.

    Raises:
        LogError: there is none, or those of several runs, or one is no ordinary file.
    """
    files = list(path.rglob(EVENTS))
    for file in files:
        if not file.is_file():
            raise LogError(f"{file}: is no ordinary file, as TensorBoard's are. Remove it.")
    folders = sorted({file.parent for file in files})
    if len(folders) == 1:
        return folders[0]
    if not folders:
        raise LogError(f"{path}: a folder without event files of TensorBoard. Give a log file in it.")
    listed = ", ".join(str(folder) for folder in folders[:8])
    more = f" and {len(folders) - 8} more" if len(folders) > 8 else ""
    raise LogError(f"{path}: holds the events of {len(folders)} runs. Give one: {listed}{more}.")


def read_events(path: Path, chosen: str | None = None) -> Iterator[Row]:
    """The scalars of an event file or of a folder of them; a restart replaces what it goes over again.

    Args:
        path: file or folder.
        chosen: a tag to take whatever its name.

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
    except Exception as error:  # whatever damaged files bring it to raise
        raise LogError(f"{path}: can't be read as TensorBoard's: {error}.") from error
    rows: dict[tuple[bool, float], dict[Metric, float]] = {}
    segments = 0
    for tag, points in _scalars(accumulator).items():
        metric = _metric(tag, chosen)
        if metric is None:
            continue
        run, starts, _ = chosen_run([Row(None, float(step), {metric: value}) for step, value in points])
        segments = max(segments, starts)
        for row in run:
            place = tag.startswith(OF_EPOCHS), row.step or 0.0
            rows.setdefault(place, {}).update(row.values)
    yield from [MARK] * segments
    for of_epoch, step in sorted(rows):
        yield Row(step if of_epoch else None, None if of_epoch else step, rows[of_epoch, step])


def _scalars(accumulator: Any) -> dict[str, list[tuple[int, float]]]:  # noqa: ANN401 - the extra has no types
    """Steps and values by tag; TensorFlow 2 writes its scalars as tensors."""
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


def _metric(tag: str, chosen: str | None) -> Metric | None:
    found = VAR_TAG.fullmatch(tag)
    if found:
        kind: Kind = "cross_entropy" if found[2] == "L" else "accuracy"
        of: Any = {"mean": "mean", "tail": "last"}.get(found[3])
        if of is None:
            of = int(found[3]) // PIXELS_PER_TOKEN
        return Metric(tag, "val" if found[1] else "train", kind, of)
    return metric_of(tag) or (Metric(tag, split_of(tag)) if tag == chosen else None)
