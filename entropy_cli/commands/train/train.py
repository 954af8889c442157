"""Training a tokenizer: from pictures to a checkpoint, in one process or more, interrupted or not."""

import contextlib
import itertools
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from entropy_cli.commands.train import quality
from entropy_cli.commands.train import result as files
from entropy_cli.commands.train.images import TrainingData, open_data
from entropy_cli.commands.train.log import TrainingLog
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.commands.train.sizes import check_batches, check_fit, warnings_of
from entropy_cli.commands.train.trainer import DivergedError, Trainer, scaled
from entropy_cli.core.errors import DatasetError, EntropyCliError, StateError
from entropy_cli.core.progress_bars import Bars, no_bars
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.images.loader import worker_death_error
from entropy_cli.streaming.device import (
    choose_device,
    choose_training_precision,
    choose_workers,
    device_name,
    is_out_of_memory,
    keep_freed_memory,
    versions,
)
from entropy_cli.streaming.ranks import Ranks, join, named_if_lost
from entropy_cli.streaming.state_file import locked
from entropy_cli.tokenizers.precision import matmul_precision

logger = logging.getLogger(__name__)

EVALUATIONS = 4  # of a training, unless asked for otherwise
SAVE_EVERY_S = 600.0
PIXELS_AT_ONCE = 32 * 64**2  # of held-out pictures


@dataclass(frozen=True)
class TrainConfig:
    """What to train on and how.

    Attributes:
        data: a folder of images, tars of one, or "synthetic".
        output: folder for everything that comes out.
        eval_every: steps between evaluations, each of which also saves; None for a quarter of all.
        log_every: steps between entries of metrics.jsonl.
        grad_checkpointing: keep no activations of blocks for the backward pass.
        save_fp16: save the tokenizer in float16.
        command: for the record.
        precision: of all but the quantiser; None for the device's.
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
    """Train until the recipe's last step.

    Args:
        config: what and how.
        bars: makes progress bars.
        deliver: is given the result, in the first process only.

    Returns:
        How many pictures were trained on, held out and unreadable.

    Raises:
        EntropyCliError: anything the user can mend; what was saved last is there to go on from.
    """
    with (
        _resumable(config.output),
        Signals() as signals,
        join(on_gpus=True) as ranks,
        contextlib.ExitStack() as stack,
    ):
        check_fit(config.recipe)
        if ranks.first:
            config.output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(config.output / files.TRAINER, "--output"))
            files.clear(config.output)
        state = files.load_trainer(config.output, resume=config.resume)
        if len(set(ranks.all_gather(state and state["trainer"]["done"]))) > 1:
            raise StateError(f"--output {config.output}: not all processes see the same there.")
        with _in_one_line(config.device), named_if_lost(), matmul_precision(tf32=False):
            run = _Run(config, bars if ranks.first else no_bars, signals, ranks)
            run.start(state)
            run.work(stack)
        images = run.images()
        if ranks.first:
            deliver(run.result(images))
        return images


class _Run:
    """One process's part of a training."""

    def __init__(self, config: TrainConfig, bars: Bars, signals: Signals, ranks: Ranks) -> None:
        self.config, self.bars, self.signals, self.ranks = config, bars, signals, ranks
        self.seconds = 0.0
        self.device = choose_device(config.device, ranks.local_rank)
        precision = config.precision or choose_training_precision(self.device)
        self.recipe = config.recipe.changed(precision=precision)
        asked = config.workers
        workers = choose_workers(self.device, ranks.local_world) if asked is None else asked
        self.data: TrainingData = open_data(config.data, self.recipe, workers, bars)
        check_batches(self.recipe, len(self.data.train), ranks.world)
        if ranks.first:
            for words in (*self.data.notes, *warnings_of(self.recipe)):
                logger.warning("%s", words)
        self.mean_psnr = quality.score(self.data.mean_3HW, self.data.held_out_B3HW)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.trainer = Trainer(
            self.recipe, self.device, ranks, grad_checkpointing=config.grad_checkpointing
        )
        self.trainer.warn_if_emulated(self.data.held_out_B3HW)
        self.eval_every = config.eval_every or max(1, self.recipe.steps // EVALUATIONS)
        self.quality: quality.Quality | None = None
        self.saved_at = time.monotonic()

    def images(self) -> dict[str, int]:
        """How many are trained on, held out and unreadable; asked for by all processes."""
        failed = self.ranks.all_gather(sorted(self.data.failed))
        counts = {"train": len(self.data.train), "held_out": len(self.data.held_out_B3HW)}
        return counts | {"failed": len(set(itertools.chain.from_iterable(failed)))}

    def start(self, state: dict[str, Any] | None) -> None:
        """Begin with fresh codes, or go on from a state."""
        if state is None:
            first_B3HW = self.data.first(self.recipe, self._share)
            with self.bars("first codes", len(first_B3HW), "pictures") as bar:
                self.trainer.begin(first_B3HW, bar.update)
            return
        files.check_same(state, self.recipe, self.data.fingerprint)
        self.trainer.load_state(state["trainer"])
        self.seconds = state["seconds"]
        logger.info("going on from step %d of %d", self.trainer.done, self.recipe.steps)

    def work(self, stack: contextlib.ExitStack) -> None:
        """Train, evaluate and save until the last step, or until a signal comes."""
        trainer, steps, done = self.trainer, self.recipe.steps, self.trainer.done
        with self.signals.deferred():
            log = stack.enter_context(self._log())
            bar = stack.enter_context(self.bars("", steps, "step", done))
            parts = self.data.parts(self.recipe, done, self._share)
            for _ in range(done, steps):
                start = time.monotonic()
                metrics = self._step([next(parts) for _ in range(self.recipe.grad_accum_steps)], log)
                stop = metrics.pop("stop")
                self.seconds += time.monotonic() - start
                images_per_s = self.recipe.batch_size / (time.monotonic() - start)
                log.step(trainer.done, metrics | {"images_per_s": round(images_per_s, 2)})
                bar.set_description(log.words, False)  # noqa: FBT003 - not at every step
                bar.update(1)
                if trainer.done % self.eval_every == 0 or trainer.done == steps:
                    self._evaluate(log)
                elif stop or time.monotonic() - self.saved_at > SAVE_EVERY_S:
                    self._save()
                if stop and trainer.done < steps:
                    raise self.signals.received or Interrupted(signal.SIGTERM)
            if self.quality is None:  # there was nothing left to do
                self._evaluate(log)

    def _step(self, parts: list[Tensor], log: TrainingLog) -> dict[str, float]:
        try:
            return self.trainer.step(parts, stop=self.signals.received is not None)
        except DivergedError:
            self._diverged(log, self.trainer.done + 1)
            raise

    def _diverged(self, log: TrainingLog, step: int) -> None:
        """Leave a checkpoint, if there is none yet and this one is of numbers."""
        log.diverged(step)
        weights = self.trainer.ema_model.state_dict().values()
        saved = (self.config.output / files.TRAINER).exists()
        if self.ranks.first and not saved and all(bool(weight.isfinite().all()) for weight in weights):
            self._save()

    def _evaluate(self, log: TrainingLog) -> None:
        start = time.monotonic()
        self.trainer.check_codes()
        model, config = self.trainer.ema_model, self.config
        if config.save_fp16 and self.trainer.done == self.recipe.steps:
            model = quality.rounded(model, torch.float16)
        held = self.data.held_out_B3HW
        mine = held[self.ranks.rank :: self.ranks.world]
        at_once = max(1, PIXELS_AT_ONCE // self.recipe.image_size**2)
        batches = (scaled(part, self.device) for part in torch.split(mine, at_once) if len(part))
        with self.bars("held-out pictures", len(mine), "pictures") as bar:
            self.quality = quality.measure(model, batches, self.ranks, bar.update)
        self.seconds += time.monotonic() - start
        if not math.isfinite(self.quality.psnr_db):  # the last step's doing, which its loss did not see
            self._diverged(log, self.trainer.done)
            raise DivergedError(self.trainer.done)
        if self.ranks.first:
            log.evaluation(self.trainer.done, self.quality, self.mean_psnr)
            log.picture(model, scaled(held[: log.shown], self.device))
        self._save()

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if not self.ranks.first:
            return
        config, recipe = self.config, self.recipe.to_json()
        done = {"seconds": self.seconds, "trainer": self.trainer.state()}
        files.save_trainer(config.output, {"recipe": recipe, "data": self.data.fingerprint, **done})
        weights = self.trainer.ema_model.state_dict()
        about = {"steps_done": self.trainer.done, "data": self.data.words, "command": config.command}
        described = recipe | {"rule": "l2"} | about
        files.save_tokenizer(config.output, weights, described, as_fp16=config.save_fp16)

    def result(self, images: dict[str, int]) -> files.TrainResult:
        """What came out."""
        assert self.quality is not None
        count_SV = self.quality.count_SV
        machine: dict[str, Any] = {"device": device_name(self.device), "processes": self.ranks.world}
        if self.device.type == "cuda":
            machine["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        return files.TrainResult(
            steps=self.trainer.done,
            psnr_db=self.quality.psnr_db,
            psnr_mean_image_db=self.mean_psnr,
            usage=self.quality.usage(count_SV.sum(0)),
            perplexity=self.quality.perplexity(count_SV.sum(0)),
            scales=self.quality.scales(self.recipe.patch_nums),
            checkpoint=str(self.config.output / files.MODEL),
            seconds=round(self.seconds, 3),
            images=images,
            settings=self.recipe.to_json(),
            provenance={
                "command": self.config.command,
                "data": self.data.words,
                **machine,
                **versions(),
            },
        )

    @property
    def _share(self) -> tuple[int, int]:
        return self.ranks.rank, self.ranks.world

    def _log(self) -> contextlib.AbstractContextManager[TrainingLog]:
        config = self.config
        log = TrainingLog(self.recipe, config.log_every)
        if self.ranks.first:
            log.open(config.output, self.trainer.done, tensorboard=config.tensorboard)
        return contextlib.closing(log)


@contextlib.contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """A signal's message says how to go on, whenever it comes."""
    try:
        yield
    except Interrupted as error:
        error.saved, error.resume_command = (
            (out / files.TRAINER).exists(),
            "the same command with --resume",
        )
        raise


@contextlib.contextmanager
def _in_one_line(device: str) -> Iterator[None]:
    """What torch raises wherever it happens to be, as something that the user can mend."""
    try:
        yield
    except RuntimeError as error:
        if worker_death_error(error) is not None:
            advice = "Go on with --resume and fewer --workers."
            raise DatasetError(f"a process that decodes images died. {advice}") from error
        if is_out_of_memory(error):
            advice = "Go on with --resume and more --grad-accum-steps, or with --grad-checkpointing."
            raise EntropyCliError(f"--device {device}: not enough memory. {advice}") from error
        raise
