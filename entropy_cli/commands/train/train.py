"""Training a tokenizer: from images to a checkpoint, in one process or several, and resumable."""

import contextlib
import logging
import math
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from entropy_cli.commands.train import quality
from entropy_cli.commands.train import result as files
from entropy_cli.commands.train.data import TrainingData, check_apart, open_data
from entropy_cli.commands.train.errors import named_to_resume, user_errors
from entropy_cli.commands.train.log import DRAWN, TENSORBOARD_EXTRA, TrainingLog
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.commands.train.sizes import check_batches, check_sizes, recipe_warnings
from entropy_cli.commands.train.state import check_resumable, load_trainer, save_trainer
from entropy_cli.commands.train.step_metrics import DivergedError, StepMetrics
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.core.errors import StateError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.progress_bars import Bar, Bars, no_bars
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.streaming.device import (
    choose_batch_size,
    choose_device,
    choose_training_precision,
    choose_workers,
    device_name,
    keep_freed_memory,
    versions,
)
from entropy_cli.streaming.emulation import warn_if_training_is_emulated
from entropy_cli.streaming.ranks import Ranks, join, named_if_lost, work_of
from entropy_cli.streaming.state_file import locked
from entropy_cli.tokenizers.precision import matmul_precision

logger = logging.getLogger(__name__)

EVALUATIONS = 4  # by default
SAVE_EVERY_S = 600.0


@dataclass(frozen=True)
class TrainConfig:
    """The data, the recipe and the settings that do not change the result.

    Attributes:
        data: a folder of images, tars, or "synthetic".
        command: the command line, for the record.
        precision: of all modules but the quantiser; None for the device's default.
        eval_every: steps between evaluations, which also save; None for a quarter of the steps.
        log_every: steps between entries of metrics.jsonl.
        grad_checkpointing: recompute activations of blocks in the backward pass.
    """

    data: str
    output: Path
    recipe: Recipe
    command: str
    resume: bool = False
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    device: str = "auto"
    workers: int | None = None
    eval_every: int | None = None
    log_every: int = 1
    grad_checkpointing: bool = False
    save_fp16: bool = False
    tensorboard: bool = False


def train(
    config: TrainConfig, bars: Bars, deliver: Callable[[files.TrainResult], object]
) -> dict[str, int]:
    """Train until the recipe's last step, and call `deliver` in the first process with the result.

    Returns:
        The number of images trained on, held out and unreadable.

    Raises:
        EntropyCliError: an error the user can fix; the last save is intact and can be resumed.
    """
    with (
        named_to_resume(config.output),
        Signals() as signals,
        join(on_gpus=True) as ranks,
        contextlib.ExitStack() as stack,
    ):
        ranks.check_alike(work_of("train", config))
        check_sizes(config.recipe)
        if config.tensorboard:
            import_extra(*TENSORBOARD_EXTRA)
        if ranks.first:
            check_apart(config.data, config.output)
            config.output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(config.output / files.TRAINER, "--output"))
            files.remove_partial_files(config.output)
        state = load_trainer(config.output, resume=config.resume)
        if len(set(ranks.all_gather(state and state["trainer"]["done"]))) > 1:
            raise StateError(
                f"--output {config.output}: processes see different files. Use a shared file system."
            )
        with user_errors(config.device), named_if_lost(), matmul_precision(tf32=False):
            training = _Training(config, bars if ranks.first else no_bars, signals, ranks)
            training.start(state)
            training.run(stack)
        images = training.count_images()
        if ranks.first:
            deliver(training.result(images))
        return images


class _Training:
    """A training, as one of its processes runs it."""

    def __init__(self, config: TrainConfig, bars: Bars, signals: Signals, ranks: Ranks) -> None:
        self.config, self.bars, self.signals, self.ranks = config, bars, signals, ranks
        self.share = ranks.rank, ranks.world
        self.seconds_before = 0.0
        self.taken: deque[StepMetrics] = deque()  # steps whose metrics are to be read
        self.device = choose_device(config.device, ranks.local_rank, ranks.local_world)
        precision = choose_training_precision(self.device, config.precision)
        self.recipe = recipe = config.recipe.override(precision=precision)
        default = choose_workers(self.device, ranks.local_world)
        workers = default if config.workers is None else config.workers
        self.data: TrainingData = open_data(config.data, recipe, workers, bars)
        ranks.check_alike({"images": self.data.fingerprint, "precision": precision})
        check_batches(recipe, len(self.data.train), ranks.world)
        self.held_out_B3HW = self.data.held_out_images(recipe.image_size)
        mean_3HW = self.data.mean_image(recipe.image_size)
        self.mean_psnr = quality.mean_image_psnr(mean_3HW, self.held_out_B3HW)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.trainer = Trainer(recipe, self.device, ranks, grad_checkpointing=config.grad_checkpointing)
        if ranks.first:
            for warning in (*self.data.notes, *recipe_warnings(recipe)):
                logger.warning("%s", warning)
            x_B3HW = quality.normalize(self.held_out_B3HW[:1], self.device)
            warn_if_training_is_emulated(self.trainer.model, precision, self.device, x_B3HW)
        self.eval_every = config.eval_every or max(1, recipe.steps // EVALUATIONS)
        self.quality: quality.Quality | None = None
        self.started_at = self.saved_at = self.read_at = time.monotonic()

    def start(self, state: dict[str, Any] | None) -> None:
        """Initialize the codebook, or resume from a state."""
        if state is None:
            img_B3HW = self.data.kmeans_images(self.recipe, self.share)
            with self.bars("initializing codes", len(img_B3HW), "img") as bar:
                self.trainer.init_codebook(img_B3HW, bar.update)
            return
        check_resumable(state, self.recipe, self.data.fingerprint)
        self.trainer.load_state(state["trainer"])
        self.seconds_before = state["seconds"]
        logger.info("resuming from step %d of %d", self.trainer.steps_done, self.recipe.steps)

    def run(self, stack: contextlib.ExitStack) -> None:
        """Train, evaluate and save until the last step or a signal."""
        trainer, steps, done = self.trainer, self.recipe.steps, self.trainer.steps_done
        config, folder = self.config, self.config.output if self.ranks.first else None
        with self.signals.deferred():
            log = TrainingLog(
                self.recipe, config.log_every, folder, done, tensorboard=config.tensorboard
            )
            stack.callback(log.close)
            bar = stack.enter_context(self.bars("", steps, "step", done))
            data = self.data.micro_batches(self.recipe, range(done, steps), self.share)
            for _ in range(done, steps):
                if not self.taken:
                    self.read_at = time.monotonic()
                micro_batches = [next(data) for _ in range(self.recipe.grad_accum_steps)]
                stop = self.signals.received is not None
                self.taken.append(trainer.step(micro_batches, stop=stop))
                # While a GPU computes a step, the metrics of the one before are read. Several processes
                # wait for each other anyway, and have to stop at the same step.
                stop = self._log_steps(log, bar, later=self.device.type == "cuda" and self.share[1] == 1)
                if trainer.steps_done % self.eval_every == 0 or trainer.steps_done == steps:
                    stop |= self._log_steps(log, bar)
                    self._evaluate(log)
                elif stop or time.monotonic() - self.saved_at > SAVE_EVERY_S:
                    stop |= self._log_steps(log, bar)
                    self._save()
                if stop and trainer.steps_done < steps:
                    raise self.signals.received or Interrupted(signal.SIGTERM)
            if self.quality is None:  # resumed after the last step
                self._evaluate(log)

    def _log_steps(self, log: TrainingLog, bar: Bar, *, later: bool = False) -> bool:
        """Log the steps taken, with `later` all but the last; return whether a process is to stop."""
        stop = False
        while len(self.taken) > later:
            taken = self.taken.popleft()
            try:
                metrics = taken.read()
            except DivergedError:
                self.trainer.steps_done = taken.step - 1
                self._diverged(log, taken.step)
                raise
            stop |= bool(metrics.pop("stop"))
            self.read_at, before = time.monotonic(), self.read_at
            images_per_s = self.recipe.batch_size / (self.read_at - before)
            log.step(taken.step, metrics | {"images_per_s": round(images_per_s, 2)})
            bar.set_description(log.description, False)  # noqa: FBT003 - not at every step
            bar.update(1)
        return stop

    def _diverged(self, log: TrainingLog, step: int) -> None:
        """Save a checkpoint if there is none yet and the weights are finite."""
        log.write(step, {"diverged": 1})
        weights = self.trainer.ema_model.state_dict().values()
        saved = (self.config.output / files.TRAINER).exists()
        if self.ranks.first and not saved and all(bool(weight.isfinite().all()) for weight in weights):
            self._save()

    def _evaluate(self, log: TrainingLog) -> None:
        self.trainer.check_codes()
        model, step, size = self.trainer.ema_model, self.trainer.steps_done, self.recipe.image_size
        if self.config.save_fp16 and step == self.recipe.steps:
            model = quality.round_weights(model, torch.float16)
        share_B3HW = self.held_out_B3HW[self.ranks.rank :: self.ranks.world]
        at_once = choose_batch_size(self.device, size)
        with self.bars("evaluating", len(share_B3HW), "img") as bar:
            self.quality = quality.evaluate(model, share_B3HW, at_once, self.ranks, bar.update)
        if not math.isfinite(self.quality.psnr_db):  # diverged in the last step, after its loss
            self._diverged(log, step)
            raise DivergedError(step)
        log.evaluation(step, self.quality, self.mean_psnr)
        self._save()  # before the pictures, in whose time the training may be killed
        log.draw(model, quality.normalize(self.held_out_B3HW[:DRAWN], self.device))

    @property
    def seconds(self) -> float:
        """Return the time of the training until now, including before it was resumed."""
        return self.seconds_before + time.monotonic() - self.started_at

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if not self.ranks.first:
            return
        config, recipe = self.config, self.recipe.to_json()
        state = {"recipe": recipe, "data": self.data.fingerprint, "trainer": self.trainer.state()}
        save_trainer(config.output, state | {"seconds": self.seconds})
        tokenizer_config = recipe | {"rule": "l2", "steps_done": self.trainer.steps_done}
        tokenizer_config |= {"data": self.data.description, "command": config.command}
        weights = self.trainer.ema_model.state_dict()
        files.save_tokenizer(config.output, weights, tokenizer_config, as_fp16=config.save_fp16)

    def count_images(self) -> dict[str, int]:
        """Count images trained on, held out and unreadable; a collective call of all processes."""
        failed = set().union(*self.ranks.all_gather(sorted(self.data.failed)))
        counts = {"train": len(self.data.train), "held_out": len(self.data.held_out)}
        return counts | {"failed": len(failed)}

    def result(self, images: dict[str, int]) -> files.TrainResult:
        """Return the result of the training."""
        assert self.quality is not None
        config, total = self.config, self.quality.total
        provenance: dict[str, Any] = {"command": config.command, "data": self.data.description}
        provenance |= {"device": device_name(self.device), "processes": self.ranks.world}
        if self.device.type == "cuda":
            provenance["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        return files.TrainResult(
            steps=self.trainer.steps_done,
            psnr_db=self.quality.psnr_db,
            psnr_mean_image_db=self.mean_psnr,
            usage=total.usage,
            perplexity=total.perplexity,
            scales=self.quality.scales(self.recipe.patch_nums),
            checkpoint=str(config.output / files.MODEL),
            seconds=round(self.seconds, 3),
            images=images,
            settings=self.recipe.to_json(),
            provenance=provenance | versions(),
        )
