"""The floor in Hugging Face's Trainer; needs the extra hf."""

from collections.abc import Collection, Mapping
from typing import Any

from entropy_cli.commands.monitor.api import Floor
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.integrations.logger import FloorLogger, sentence

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise EntropyCliError(
        "the callback of Hugging Face's Trainer needs an extra: pip install 'entropy-cli[hf]'."
    ) from error

SERIES = {"loss": "mean", "eval_loss": "val mean"}


class FloorCallback(TrainerCallback):
    """Adds to what Trainer logs how far its losses lie above A and below the ceilings, and findings.

    The values are in `trainer.state.log_history`, so in trainer_state.json, as ce_minus_a/loss,
    below_unigram/eval_loss and so on; findings are beside them under "findings", and logged. Callbacks
    are called in turn: what Trainer reports to (TensorBoard, W&B) shows them if this one is first, as
    after `attach`.

        callback = FloorCallback(Floor.load("result.json"), stop_on={"plateau", "overfitting"})
        trainer = Trainer(model, args, train_dataset=tokens)
        callback.attach(trainer)
        trainer.train()

    Trainer's loss is a cross-entropy in nats per token only if it is the mean over the tokens of a
    step: where the model's own loss ignores `num_items_in_batch`, look at `entropy-cli guide monitor`.
    Trainer hides NaN unless `logging_nan_inf_filter=False`.

    Args:
        floor: from a result of `estimate`; give each run its own.
        writer: a SummaryWriter or a run of W&B to write to besides, or None.
        series: the series of each logged loss, as of `Floor.check`.
        stop_on: ids of findings that end the training.

    Raises:
        EntropyCliError: a writer, a series or an id that is none.
    """

    def __init__(
        self,
        floor: Floor,
        *,
        writer: Any = None,  # noqa: ANN401 - of a package that may not be installed
        series: Mapping[str, str] = SERIES,
        stop_on: Collection[str] = (),
    ) -> None:
        self.floor, self.series = floor, dict(series)
        self._logger = FloorLogger(writer, floor, series=series, stop_on=stop_on)

    def attach(self, trainer: Any) -> None:  # noqa: ANN401 - a Trainer
        """Add this callback to a trainer, before all others: they then report what it adds."""
        trainer.callback_handler.callbacks.insert(0, self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """See again what a checkpoint's log has, where the training resumes one."""
        for entry in state.log_history:
            for name in self.series.keys() & entry.keys():
                self.floor.check(entry[name], self.series[name], entry["step"])

    def on_log(
        self,
        args: Any,  # noqa: ANN401 - as of transformers
        state: Any,  # noqa: ANN401
        control: Any,  # noqa: ANN401
        logs: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Add to the logs, and stop the training at a finding that is to stop it."""
        losses = {name: float(logs[name]) for name in self.series if logs and name in logs}
        if logs is None or not losses:
            return
        step = int(state.global_step)
        added, new = self._logger.add(losses, step)
        logs.update(added)
        entry = state.log_history[-1]
        entry.update(added)
        if new:
            entry["findings"] = [sentence(one) for one in new]
        control.should_training_stop |= self._logger.should_stop
        if state.is_world_process_zero:
            self._logger.write({**losses, **added}, new, step)
