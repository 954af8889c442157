"""A logger that writes losses to a dashboard, together with what their floor says about them."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from entropy_cli.commands.monitor.api import Floor, as_number
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.commands.monitor.watch import CAN_STOP
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.metric_writers import open_writer

logger = logging.getLogger(__name__)

# The series of the floor by the names that trainers log: of VAR, and of most others.
SERIES = {
    "mean": "mean",
    "last": "last",
    "L_mean": "mean",
    "L_tail": "last",
    "Lm": "mean",
    "Lt": "last",
    "vL_mean": "val mean",
    "vL_tail": "val last",
    "loss": "mean",
    "train_loss": "mean",
    "train/loss": "mean",
    "val_loss": "val mean",
    "val/loss": "val mean",
    "eval_loss": "val mean",
    "eval/loss": "val mean",
}
LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}


class FloorLogger:
    """Writes losses to TensorBoard or Weights & Biases, with their excess and the findings about them.

    For a loss called x there are assignment_entropy/x, ce_minus_a/x, and below_unigram/x and so on for
    each ceiling, in nats per token; under hard labels CE - A may be negative. A finding is written as a
    text, finding/ID, when it appears, and logged.

        log = FloorLogger(SummaryWriter("runs/1"), Floor.load("result.json"), stop_on={"plateau"})
        for step in range(steps):
            log.log({"L_mean": L_mean, "L_tail": L_tail, "lr": lr}, step)
            if log.should_stop:
                break

    Args:
        writer: a SummaryWriter of TensorBoard, a run of `wandb.init()`, a logger of Lightning, or None.
        floor: it sees the losses; give each run its own.
        series: which of the metrics are losses in nats per token: their series, as of `Floor.check`, by
            their names. Without it they are known by usual names: L_mean, L_tail, loss, val_loss, ...
        stop_on: ids of findings that end the training, such as plateau and overfitting.

    Attributes:
        should_stop: whether one of them has appeared.
        writers: what is written to.

    Raises:
        EntropyCliError: a writer, a floor, a series or an id that is none.
    """

    def __init__(
        self,
        writer: Any,  # noqa: ANN401 - of a package that may not be installed
        floor: Floor,
        *,
        series: Mapping[str, str] | None = None,
        stop_on: Collection[str] = (),
    ) -> None:
        if not isinstance(floor, Floor):
            got = type(floor).__name__
            raise EntropyCliError(
                f"floor: got {got}, expected a Floor, as of Floor.load('result.json')."
            )
        self.floor, self.should_stop = floor, False
        self.writers = [] if writer is None else [open_writer(writer)]
        self._series, self._stop_on = dict(SERIES if series is None else series), _ids(stop_on)
        for name in () if series is None else self._series.values():
            floor.excess_of(0.0, name)  # that there is such a series
        self._was_fed = False

    def log(self, metrics: Mapping[str, Any], step: int) -> list[RunFinding]:
        """Write metrics, and what the floor says of those that are losses, at a step of training.

        Returns:
            The findings that appeared.

        Raises:
            EntropyCliError: a metric is no number.
        """
        numbers = {name: as_number(value, name) for name, value in metrics.items()}
        added, new = self.add(numbers, step)
        self.write({**numbers, **added}, new, step)
        return new

    def write(self, metrics: Mapping[str, float], findings: Sequence[RunFinding], step: int) -> None:
        """Write metrics and findings; log the findings."""
        for writer in self.writers:
            writer.write(metrics, step)
            for one in findings:
                writer.note(f"finding/{one.id}", f"{one.series}: {one.message}", step)
        for one in findings:
            logger.log(LEVELS[one.severity], "step %d: %s", step, sentence(one))

    def add(self, metrics: Mapping[str, float], step: int) -> tuple[dict[str, float], list[RunFinding]]:
        """Return what the floor adds to some metrics, and the new findings; nothing is written."""
        added: dict[str, float] = {}
        new: list[RunFinding] = []
        losses = {name: self._series[name] for name in metrics if name in self._series}
        for name, series in losses.items():
            excess = self.floor.excess_of(metrics[name], series)
            added |= {} if excess is None else excess.metrics(name)
            new += self.floor.check(metrics[name], series, step)
        if not losses and not self._was_fed:
            logger.warning(
                "none of %s is known as a loss: name the losses with series={NAME: 'mean'}",
                ", ".join(metrics),
            )
        self._was_fed = True
        self.should_stop |= any(one.id in self._stop_on for one in new)
        return added, new


def sentence(finding: RunFinding) -> str:
    """Return a finding as a line of text."""
    return f"{finding.id}: {finding.series}: {finding.message}"


def _ids(stop_on: Collection[str]) -> frozenset[str]:
    ids = frozenset([stop_on] if isinstance(stop_on, str) else stop_on)
    if unknown := sorted(ids - set(CAN_STOP)):
        raise EntropyCliError(
            f"stop_on: got {', '.join(unknown)}, expected ids of findings: {', '.join(CAN_STOP)}."
        )
    return ids
