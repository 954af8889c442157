"""The floor in Lightning's Trainer; needs the extra lightning."""

from collections.abc import Collection, Mapping
from typing import Any

from entropy_cli.commands.monitor.api import HELD_OUT, Floor
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.metric_writers import open_writer
from entropy_cli.integrations.logger import FloorLogger

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as error:
    raise EntropyCliError(
        "the callback of Lightning's Trainer needs an extra: pip install 'entropy-cli[lightning]'."
    ) from error

SERIES = {"train_loss": "mean", "val_loss": "val mean"}


class FloorCallback(Callback):
    """Adds to what a module logs how far its losses lie above A and below the ceilings, and findings.

    The values go to the trainer's loggers as ce_minus_a/train_loss, below_unigram/val_loss and so on;
    findings are logged, and written as texts where TensorBoard or W&B is the logger. It looks at the
    training losses every `log_every_n_steps` steps. What it has seen is part of Lightning's checkpoints.

        floor = FloorCallback(Floor.load("result.json"), stop_on={"plateau", "overfitting"})
        Trainer(callbacks=[floor]).fit(module, loader)

    Args:
        floor: from a result of `estimate`; give each run its own.
        series: the series of each loss, as of `Floor.check`, by the name it is logged with.
        stop_on: ids of findings that end the training.

    Raises:
        EntropyCliError: a series or an id that is none.
    """

    def __init__(
        self,
        floor: Floor,
        *,
        series: Mapping[str, str] = SERIES,
        stop_on: Collection[str] = (),
    ) -> None:
        self.floor, self.series = floor, dict(series)
        self._logger = FloorLogger(None, floor, series=series, stop_on=stop_on)
        self._held_out = {name for name, of in series.items() if of.startswith(HELD_OUT)}
        self._by_step: set[str] | None = None  # the training losses that are logged at steps
        self._before: set[str] = set()

    def on_train_start(self, trainer: Any, _: Any) -> None:  # noqa: ANN401 - as of Lightning
        """Write to the trainer's loggers from now on."""
        self._logger.writers = [open_writer(one) for one in trainer.loggers]
        self._by_step, self._before = None, set(trainer.callback_metrics)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:  # noqa: ANN401 - as of Lightning
        """Look at the losses of single steps; means of epochs stay in the metrics until the next."""
        if self._by_step is None:
            self._by_step = trainer.callback_metrics.keys() - self._before - self._held_out
        if trainer.global_step % max(1, trainer.log_every_n_steps) == 0:
            self._look(trainer, self._by_step)

    def on_train_epoch_end(self, trainer: Any, _: Any) -> None:  # noqa: ANN401 - as of Lightning
        """Look at the losses that are means of an epoch."""
        self._look(trainer, self.series.keys() - (self._by_step or set()) - self._held_out)

    def on_validation_end(self, trainer: Any, _: Any) -> None:  # noqa: ANN401 - as of Lightning
        """Look at the losses of held-out images."""
        if not trainer.sanity_checking:
            self._look(trainer, self._held_out)

    def state_dict(self) -> dict[str, Any]:
        """Return the losses seen so far, for a checkpoint."""
        return {"losses": self.floor.history()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See the losses of a checkpoint again; what was found about them is not told twice."""
        self.floor.replay(state_dict["losses"])

    def _look(self, trainer: Any, names: Collection[str]) -> None:  # noqa: ANN401 - a Trainer
        """Check losses, write what the floor says about them, and stop all ranks if one is to stop."""
        metrics = trainer.callback_metrics
        losses = {
            name: float(metrics[name]) for name in self.series if name in names and name in metrics
        }
        if losses:
            added, new = self._logger.add(losses, int(trainer.global_step))
            if trainer.is_global_zero:
                self._logger.write(
                    added, new, int(trainer.global_step) - 1
                )  # where Lightning writes them
        stop = trainer.strategy.reduce_boolean_decision(self._logger.should_stop, all=False)
        trainer.should_stop = trainer.should_stop or stop
