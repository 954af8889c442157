"""A run of `estimate` with its checkpoint loaded and its images listed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.quantity import TemperatureChoice
from entropy_cli.images.image_set import ImageSet
from entropy_cli.images.plan import (
    BLOCK,
    CHECK_BLOCKS,
    number_of_blocks,
    plan_batches,
    shard_blocks,
)
from entropy_cli.results.checks import number_or_auto
from entropy_cli.results.schema import read_result
from entropy_cli.runs.config import EstimateConfig
from entropy_cli.runs.frozen import freeze
from entropy_cli.runs.inputs import Inputs, open_inputs
from entropy_cli.runs.model import Model, find_model, has_soft_labels, open_model
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import (
    choose_batch_size,
    choose_device,
    choose_model_precision,
    choose_precision,
    choose_workers,
)
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.run_settings import FROZEN, PATH, TOKENS, RunSettings, identity_of
from entropy_cli.streaming.state import RunMetadata, RunState
from entropy_cli.streaming.state_file import default_path
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.compiled import is_worth_compiling
from entropy_cli.tokenizers.convolutional import compiled
from entropy_cli.tokenizers.settings import TokenizerSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Everything that is decided before the first image is read.

    Attributes:
        inputs: the tokenizer, in float32 on the CPU, and the images.
        model: the generator that is evaluated, in float32 on the CPU.
        settings: what changes the number.
        frozen_pilot: how the temperatures that are taken from another result were fitted, if they were.
        batch_size: images in the encoder at once, the same in all processes.
        workers: number of processes that decode.
        compiles: whether the encoder is compiled.
    """

    config: EstimateConfig
    ranks: Ranks
    device: torch.device
    inputs: Inputs
    model: Model | None
    settings: RunSettings
    metadata: RunMetadata
    frozen_pilot: dict[str, Any] | None
    batch_size: int
    workers: int
    compiles: bool

    @property
    def path(self) -> Path:
        """Return where the state is saved."""
        return self.config.state or default_path(self.settings.fingerprint(), self.config.shard)

    @property
    def blocks(self) -> range:
        """Return the blocks of this run, done or not."""
        return shard_blocks(number_of_blocks(len(self.inputs.images)), self.config.shard)

    @torch.inference_mode()
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer on the device, in the run's precision, compiled if it is to be."""
        tokenizer = self.inputs.tokenizer.to(self.device, self.settings.precision)
        if not self.compiles:
            return tokenizer
        images = self.batch_size // BLOCK * BLOCK or self.batch_size
        return compiled(tokenizer, images, required=self.config.compile == "on")

    @torch.inference_mode()
    def processor(self, tokenizer: Tokenizer) -> BatchProcessor:
        """Return what runs images through the tokenizer on the device, and the model on their tokens."""
        seed = self.settings.draw_seed
        processor = BatchProcessor(tokenizer, self.device, self.batch_size, draw_seed=seed)
        if (model := self.model) is not None:
            soft = self.settings.has_soft_losses
            processor.scorer = model.scorer(tokenizer, self.device, model.precision, soft=soft)
        return processor

    def allocate(self, progress: Progress) -> None:
        """Make the sums of a progress whose temperatures are set, or move them to the device."""
        assert progress.temperatures is not None
        settings, number = self.settings, len(progress.temperatures[0])
        progress.allocate(
            self.metadata.layout(settings, number) if settings.has_entropies else None,
            self.device,
            self.metadata.losses_layout(settings, number),
        )

    def state(self, progress: Progress) -> RunState:
        """Return what is saved at this progress."""
        return RunState(progress, self.settings, self.metadata, self.config.shard)


def open_run(config: EstimateConfig, ranks: Ranks, bars: Bars) -> Run:
    """Load the checkpoint, list the images, and decide everything else.

    Raises:
        EntropyCliError: any of it can't be done, or the processes of the run see different things.
    """
    device = choose_device(config.device, ranks.local_rank, ranks.local_world)
    # Latents or tokens that are given have no encoder that could be less precise.
    config, given = _sized(config), None if config.model is None else config.model.given
    is_given = config.latents is not None or given is not None
    precision = choose_precision(device, "fp32" if is_given else config.precision)
    found = find_model(config)
    inputs = open_inputs(config, None if found is None else found.describe(), bars)
    tokenizer, images = inputs.tokenizer, inputs.images
    model = None
    if found is not None:
        choose = partial(choose_model_precision, device, config.precision)
        model = open_model(found, config, tokenizer.spec, images, device, choose, bars)
    if ranks.first:
        _warn(config, inputs, model)
    temperatures, pilot = config.temperatures, None
    identity = {**inputs.identity, PATH: config.path, **identity_of(images.cluster)}
    if model is not None:
        identity |= model.identity(soft=has_soft_labels(tokenizer) and TOKENS not in identity)
    if config.temperature_from is not None:
        frozen = freeze(config.temperature_from, tokenizer.spec, identity["checkpoint_sha256"])
        temperatures, pilot = tuple(frozen.choices), frozen.pilot
        identity = {**identity, FROZEN: frozen.values_TS}
    settings = RunSettings.of(
        tokenizer,
        temperatures,
        identity,
        seed=images.seed,
        images_fingerprint=images.fingerprint(),
        images=len(images),
        precision=precision,
    )
    frozen_from = None if config.temperature_from is None else str(config.temperature_from.resolve())
    provenance = {**inputs.provenance, "temperature_from": frozen_from}
    metadata = RunMetadata.of(
        tokenizer,
        split=images.split,
        images_found=images.found,
        temperature_given=config.temperatures is not None,
        provenance=provenance if model is None else {**provenance, **model.provenance},
        model=None if model is None else model.metadata,
    )
    batch_size = _batch_size(config, device, tokenizer.spec.image_size, len(images), ranks)
    # Batches of other sizes would meet at other images.
    ranks.check_alike(settings.to_json() | {"device": device.type, "batch_size": batch_size})
    workers = choose_workers(device, ranks.local_world) if config.workers is None else config.workers
    compiles = _compiles(config, device, tokenizer.spec.image_size, len(images), ranks)
    return Run(
        config, ranks, device, inputs, model, settings, metadata, pilot, batch_size, workers, compiles
    )


def _sized(config: EstimateConfig) -> EstimateConfig:
    """Return a config that has the image size of the tokens that are given, if any."""
    if config.model is None or config.model.given is None:
        return config
    size = TokenizerSettings(read_result(config.model.given.result).settings.image_size)
    return replace(config, tokenizer=config.tokenizer.filled_from(size))


def format_temperatures(temperatures: Sequence[TemperatureChoice]) -> str:
    """Format temperatures, the headline first."""
    return ", ".join(map(number_or_auto, temperatures))


def workers_text(number: int) -> str:
    """Return the number of workers in words."""
    return f"{number} worker{'' if number == 1 else 's'}"


def start_line(run: Run) -> str:
    """Say what is about to be read, and how."""
    spec = run.inputs.tokenizer.spec
    several = len(spec.scales) > 1
    names = (str((several and scale.patch_num) or scale.name) for scale in spec.scales)
    grids = ("scales " if several else "") + ",".join(names)
    temperatures = format_temperatures(run.settings.temperature)
    images = sum(map(len, plan_batches(run.settings.images, BLOCK, run.blocks)))
    drawn = f", {run.settings.path} tokens" if run.settings.path == "drawn" else ""
    processes = f", {run.ranks.world} processes" if run.ranks.world > 1 else ""
    model = ""
    if run.model is not None:
        model = f"; model {run.model.generator.spec.family}, {run.model.precision}"
    return (
        f"{spec.family}, {grids}; {run.device}{processes}, {run.settings.precision}"
        f"{', compiled' if run.compiles else ''}{model}; "
        f"T = {temperatures}{drawn}; {images:,} images in batches of {run.batch_size}, "
        f"{workers_text(run.workers)}"
    )


def _warn(config: EstimateConfig, inputs: Inputs, model: Model | None) -> None:
    """Show the notes on the checkpoint or codebook, on the images, and on the model and its labels."""
    source = config.latents.codebook if config.latents else config.checkpoint
    for note in (*inputs.provenance["checkpoint_notes"], *inputs.provenance["codebook_notes"]):
        logger.warning("%s: %s", source, note)
    if isinstance(inputs.images, ImageSet) and inputs.images.note:
        logger.warning("%s", inputs.images.note)
    if model is not None:
        for note in model.generator.spec.notes:
            logger.warning("%s: %s", model.provenance["model"], note)
        for note in model.labels.notes:
            logger.warning("%s", note)


def _batch_size(
    config: EstimateConfig, device: torch.device, image_size: int | None, images: int, ranks: Ranks
) -> int:
    """Return the images of a batch: at most all of them."""
    size = config.batch_size or (choose_batch_size(device, image_size) if image_size else BLOCK)
    if config.batch_size is None and config.target is not None:
        # Between two records of the estimate there is one batch for each process.
        size = min(size, BLOCK * max(1, CHECK_BLOCKS // ranks.world))
    return min(size, BLOCK * number_of_blocks(images))


def _compiles(
    config: EstimateConfig, device: torch.device, image_size: int | None, images: int, ranks: Ranks
) -> bool:
    """Return whether to compile for this process's share; under auto not before an early stop."""
    if image_size is None or (config.compile == "auto" and config.target is not None):
        return False
    shards = config.shard[1] if config.shard else 1
    return is_worth_compiling(config.compile, device, images * image_size**2 // shards // ranks.world)
