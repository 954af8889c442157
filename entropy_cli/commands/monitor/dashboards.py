"""Write what a floor says about a log beside the run's own events: each point and finding once."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from entropy_cli.commands.monitor.logs.series import Series
from entropy_cli.commands.monitor.result import MonitorResult
from entropy_cli.commands.monitor.watch import News
from entropy_cli.core.errors import EntropyCliError, ResultError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.metric_writers import EventFile, MetricWriter, open_writer
from entropy_cli.results.excess import excess

FOLDER = "floor"  # in the folder of the run: TensorBoard reads one event file of a folder at a time
MOST_POINTS = 10_000  # of a series at a time; of more, evenly spaced ones


class Dashboards:
    """Writes the floors and the excess of the losses of a log, and its findings, as it grows."""

    def __init__(self, writers: Sequence[MetricWriter]) -> None:
        self.writers = writers
        self._written: dict[tuple[str, str], float] = {}  # by series, the last step
        self._news = News()

    def show(self, result: MonitorResult, series: Sequence[Series]) -> None:
        """Write what is new since the last time."""
        last = 0.0
        for one in series:
            if one.metric.is_loss and len(one):
                step_n = one.step_n if np.isfinite(one.step_n).all() else one.epoch_n
                if np.isfinite(step_n).all():
                    self._write(one, step_n)
                    last = max(last, float(step_n[-1]))
        for finding in self._news.among(result.findings):
            subject = f"{finding.series}: " if finding.series else ""
            for writer in self.writers:
                writer.note(f"finding/{finding.id}", f"{subject}{finding.message}", int(last))
        for writer in self.writers:
            writer.flush()

    def _write(self, series: Series, step_n: np.ndarray) -> None:
        level, key = series.level, (series.metric.name, series.metric.split)
        if level is None:
            return
        before = self._written.get(key, -np.inf)
        new_n = np.flatnonzero((step_n > before) | (step_n[-1] < before))  # all, of a run that went back
        if not len(new_n):
            return
        self._written[key] = float(step_n[-1])
        for i in new_n[np.unique(np.linspace(0, len(new_n) - 1, MOST_POINTS).astype(np.int64))]:
            metrics = excess(float(series.value_n[i]), level).metrics(series.metric.name)
            for writer in self.writers:
                writer.write(metrics, int(step_n[i]))


@contextmanager
def open_dashboards(log: Path, tensorboard: Path | None, *, wandb: bool) -> Iterator[Dashboards | None]:
    """Open what to write to; None if there is nothing.

    Args:
        log: the log that is read, which names the run of W&B.
        tensorboard: a folder of TensorBoard's event files; ours are in its folder `floor`, and replace
            those of an earlier time.
        wandb: whether to start a run of Weights & Biases.

    Raises:
        EntropyCliError: an extra is not installed, or one of them can't be written to.
    """
    with ExitStack() as stack:
        writers: list[MetricWriter] = []
        if tensorboard is not None:
            file = _open_events(tensorboard / FOLDER)
            stack.callback(file.close)
            writers.append(file)
        if wandb:
            writers.append(_start_wandb(log, stack))
        yield Dashboards(writers) if writers else None


def _open_events(folder: Path) -> EventFile:
    try:
        if folder.is_dir():
            EventFile.remove(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return EventFile(folder)
    except OSError as error:
        reason = error.strerror or error
        raise ResultError(f"--tensorboard {folder}: can't be written to: {reason}.") from error


def _start_wandb(log: Path, stack: ExitStack) -> MetricWriter:
    module = import_extra("wandb", "wandb", "--wandb")
    try:
        run = module.init(
            project=os.environ.get("WANDB_PROJECT", "entropy-cli"),
            name=f"floor of {log.name}",
            job_type="floor",
            config={"log": str(log)},
            settings=module.Settings(console="off"),
        )
    except module.Error as error:
        first = str(error).partition("\n")[0].rstrip(".")
        raise EntropyCliError(
            f"--wandb: {first}. Log in with `wandb login`, or set WANDB_MODE=offline."
        ) from error
    stack.callback(run.finish)
    return open_writer(run)
