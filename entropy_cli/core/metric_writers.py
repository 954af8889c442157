"""Write values and notes over steps to TensorBoard, Weights & Biases or a logger of Lightning."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.extras import import_extra

OWN_SUFFIX = ".entropy-cli"  # ends the names of event files that this program writes
WANDB_STEP = "floor/step"  # of W&B's charts: the run's own counter is of whoever else writes to it


class MetricWriter(Protocol):
    """What a dashboard is written to."""

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        """Write values at a step."""
        ...

    def note(self, name: str, text: str, step: int) -> None:
        """Write a text at a step, where the dashboard has texts."""
        ...

    def flush(self) -> None:
        """Let others see what was written."""
        ...


def open_writer(target: Any) -> MetricWriter:  # noqa: ANN401 - of a package that may not be installed
    """Return what writes to a dashboard.

    Args:
        target: a SummaryWriter of torch or tensorboardX, or a Writer of tensorboard; a run of W&B, or
            the module wandb; or a logger of Lightning.

    Raises:
        EntropyCliError: it is none of these.
    """
    if hasattr(target, "add_scalar"):
        return _TensorBoard(target)
    if hasattr(target, "log_metrics"):
        return _LightningLogger(target)
    if hasattr(target, "log") and hasattr(target, "define_metric"):
        return _Wandb(target)
    expected = "a SummaryWriter of TensorBoard, a run of wandb.init(), or a logger of Lightning"
    raise EntropyCliError(f"writer: got {type(target).__name__}, expected {expected}.")


class _TensorBoard:
    """Writes scalars and texts with a SummaryWriter."""

    def __init__(self, writer: Any) -> None:  # noqa: ANN401 - of torch or others
        self.writer = writer

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def note(self, name: str, text: str, step: int) -> None:
        if hasattr(self.writer, "add_text"):
            self.writer.add_text(name, text, step)

    def flush(self) -> None:
        self.writer.flush()


class _Wandb:
    """Writes to a run of W&B, by a step of its own: W&B drops what is logged at an earlier one."""

    def __init__(self, run: Any) -> None:  # noqa: ANN401 - of wandb
        self.run = run
        self.defined = {WANDB_STEP}
        run.define_metric(WANDB_STEP, hidden=True)

    def write(self, metrics: Mapping[str, float | str], step: int) -> None:
        for name in metrics.keys() - self.defined:
            self.run.define_metric(name, step_metric=WANDB_STEP)
            self.defined.add(name)
        self.run.log({**metrics, WANDB_STEP: step})

    def note(self, name: str, text: str, step: int) -> None:
        self.write({name: text}, step)

    def flush(self) -> None:
        """Do nothing: W&B sends what it has by itself."""


class _LightningLogger:
    """Writes with a logger of Lightning; notes where what it writes to has them."""

    def __init__(self, logger: Any) -> None:  # noqa: ANN401 - of Lightning
        self.logger = logger

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        self.logger.log_metrics(dict(metrics), step=step)

    def note(self, name: str, text: str, step: int) -> None:
        experiment: Any = getattr(self.logger, "experiment", None)
        if hasattr(experiment, "add_text"):
            experiment.add_text(name, text, step)
        elif hasattr(experiment, "define_metric"):
            _Wandb(experiment).note(name, text, step)

    def flush(self) -> None:
        self.logger.save()


class EventFile:
    """An event file of TensorBoard, written without torch.

    Args:
        folder: where it is written; a folder is a run of TensorBoard.

    Raises:
        EntropyCliError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        def tensorboard(name: str) -> Any:  # noqa: ANN401 - a module
            return import_extra(f"tensorboard.{name}", "tensorboard", "writing event files")

        writer = tensorboard("summary.writer.event_file_writer").EventFileWriter
        self._event = tensorboard("compat.proto.event_pb2").Event
        self._scalar = tensorboard("plugins.scalar.summary_v2").scalar_pb
        self._text = tensorboard("plugins.text.summary_v2").text_pb
        self._file = writer(str(folder), filename_suffix=OWN_SUFFIX)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the event files that this program wrote in a folder earlier."""
        for file in folder.glob(f"*tfevents*{OWN_SUFFIX}"):
            file.unlink()

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars at a step."""
        for name, value in metrics.items():
            self._add(self._scalar(name, value), step)

    def note(self, name: str, text: str, step: int) -> None:
        """Write a text at a step."""
        self._add(self._text(name, text), step)

    def _add(self, summary: Any, step: int) -> None:  # noqa: ANN401 - the extra has no types
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Write what is buffered to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
