"""One pass over images in memory, from their first batch to the result, for `estimate` in Python."""

import contextlib
import hashlib
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, TypeAlias

import torch

from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.entropy.quantity import TemperatureChoice, TokenPath
from entropy_cli.entropy.stopping import history_point
from entropy_cli.images.image_set import GROUPS, ImageSet
from entropy_cli.images.loader import Batch
from entropy_cli.images.plan import BLOCK, number_of_blocks
from entropy_cli.results.evaluation import Evaluation
from entropy_cli.results.schema import Result
from entropy_cli.runs.build_evaluation import evaluation_or_result
from entropy_cli.runs.model import Model, has_soft_labels
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import device_name, versions
from entropy_cli.streaming.emulation import warn_if_emulated
from entropy_cli.streaming.pilot import (
    PILOT_BLOCKS,
    PRECISION_BLOCKS,
    compare_precision,
    fit_temperatures,
    with_fitted,
)
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.run_settings import PATH, RunSettings, identity_of
from entropy_cli.streaming.state import RunMetadata, RunState
from entropy_cli.tokenizers.base import Tokenizer, sums_layout
from entropy_cli.tokenizers.convolutional import kernels_of
from entropy_cli.tokenizers.precision import Precision

# What of a tokenizer changes the number and is not in its spec; and its provenance.
Origin: TypeAlias = tuple[dict[str, Any], dict[str, Any]]

NO_IMAGES = "there are no images that could be read."


@dataclass(frozen=True)
class Pass:
    """Images that are read once, and the tokenizer that is applied to them.

    Attributes:
        tokenizer: as it was given.
        processor: runs the tokenizer on the device, in the precision.
        batches: of images, or of latents that a callable made.
        found: the folder that the batches are from, None if they were given.
        workers: processes that decode the folder's images.
    """

    tokenizer: Tokenizer
    processor: BatchProcessor
    precision: Precision
    batches: Generator[Batch, None, None]
    origin: Origin
    seed: int
    found: ImageSet | None = None
    workers: int = 0
    start: float = field(default_factory=time.monotonic)

    def run(
        self,
        temperatures: Sequence[TemperatureChoice] | None,
        path: TokenPath = "hard",
        model: Model | None = None,
    ) -> Result | Evaluation:
        """Read all images, and return the result; of a model that predicts their tokens an evaluation.

        Raises:
            EntropyCliError: no image could be read, latents are not finite, none depends on the path, or
                the model or its labels don't fit the images.
        """
        state = self._read(temperatures, path, model)
        name = "estimate" if model is None else "evaluate"
        provenance = self._describe(f"entropy_cli.{name}", state.progress.images)
        return evaluation_or_result(state, None, None, provenance, None)

    def _read(
        self,
        temperatures: Sequence[TemperatureChoice] | None,
        path: TokenPath,
        model: Model | None,
    ) -> RunState:
        """Read all images into a state."""
        identity, checkpoint = self.origin
        if model is not None:
            soft = has_soft_labels(self.tokenizer)
            identity = {**identity, **model.identity(soft=soft)}
            device = self.processor.device
            tokenizer = self.processor.tokenizer
            self.processor.scorer = model.scorer(tokenizer, device, model.precision, soft=soft)
        if self.found:
            identity = {**identity, **identity_of(self.found.cluster)}
        settings = RunSettings.of(
            self.tokenizer,
            temperatures,
            {**identity, PATH: path},
            seed=self.seed,
            images_fingerprint=self.found.fingerprint() if self.found else "",
            images=0,
            precision=self.precision,
        )
        self.processor.draw_seed = settings.draw_seed
        digest = hashlib.sha256()
        with contextlib.closing(self.batches):
            batches = self.batches if self.found else _digested(self.batches, digest)
            progress = self._accumulate(batches, settings, model)
        images = progress.images + len(progress.failed)
        settings = replace(
            settings,
            images=images,
            images_fingerprint=settings.images_fingerprint or digest.hexdigest(),
        )
        metadata = RunMetadata.of(
            self.tokenizer,
            split=self.found.split if self.found else "given",
            images_found=images,
            temperature_given=temperatures is not None,
            provenance={
                "data": self.found.location if self.found else "given from Python",
                **checkpoint,
                **({} if model is None else model.provenance),
            },
            model=None if model is None else model.metadata,
        )
        return RunState(progress, settings, metadata, None)

    def _describe(self, command: str, images: int) -> dict[str, Any]:
        seconds = time.monotonic() - self.start
        return {
            "command": command,
            "device": device_name(self.processor.device),
            "kernels": kernels_of(self.processor.tokenizer),
            "processes": 1,
            "batch_size": self.processor.batch_size,
            "workers": self.workers,
            "seconds": round(seconds, 3),
            "images_per_s": round(images / seconds, 3),
            "images_resumed": 0,
            **versions(),
        }

    def _accumulate(
        self, batches: Iterator[Batch], settings: RunSettings, model: Model | None
    ) -> Progress:
        """Sum over all batches: the temperatures first, then what the precision costs."""
        processor, spec, temperatures = self.processor, self.tokenizer.spec, settings.temperature
        progress = Progress.start(number_of_blocks(len(self.found)) if self.found else 1)
        if model is not None:
            progress.nats_N = torch.zeros(len(model.labels.index_N), dtype=torch.float64)
        first = [] if self.precision == "fp32" else _take(batches, PRECISION_BLOCKS * BLOCK)
        for batch in [batch for batch in first if batch.names][:1]:
            warn_if_emulated(processor.tokenizer, self.precision, processor.device, batch.input_B)
        encoded = processor.encode(chain(first, batches))
        fitted_S: Sequence[float | None] = [None] * len(spec.scales)
        if "auto" in temperatures:
            # Encoded batches are whole blocks.
            pilot = list(islice(encoded, -(-PILOT_BLOCKS // max(1, processor.batch_size // BLOCK))))
            if not pilot:
                raise DatasetError(NO_IMAGES)
            fitted_S, progress.pilot, _ = fit_temperatures(
                processor, pilot, Ranks(), temperatures[0], lambda _: None
            )
            encoded = chain(pilot, encoded)
        progress.temperatures = with_fitted(temperatures, fitted_S)
        number = len(progress.temperatures[0])
        layout, losses = sums_layout(spec.scales, GROUPS, number), None
        if model is not None:
            losses = replace(layout, temperatures=number if settings.has_soft_losses else 0)
        progress.allocate(layout, processor.device, losses)
        if self.precision != "fp32":
            fits = temperatures[0] == "auto"
            progress.precision_check = self._check_precision(
                first, None if fits else progress.temperatures
            )
        for batch in encoded:
            self._check_labels(model, batch.places[-1] + 1 if batch.places else 0)
            processor.add(batch, progress)
        processor.finish_batches()
        self._check_labels(model, progress.images, is_all=not self.found)
        if not progress.images:
            raise DatasetError(NO_IMAGES)
        cluster = self.found.cluster if self.found else "image"
        watched = progress.accumulators[0].to("cpu").watched
        progress.history.append(history_point(*watched, cluster))
        return progress

    def _check_labels(self, model: Model | None, images: int, *, is_all: bool = False) -> None:
        """Raise EntropyCliError unless there is a label for each of so many images, or of all."""
        labels = images if model is None else len(model.labels.index_N)
        if images > labels or (is_all and images < labels):
            least = "" if is_all else "at least "
            raise EntropyCliError(
                f"labels: got {labels:,} for {least}{images:,} images. Give one for each."
            )

    def _check_precision(
        self, first: Sequence[Batch], temperatures: Sequence[Sequence[float]] | None
    ) -> dict[str, object]:
        """Compare the encoder's precision with float32 on the first images, as the command does."""
        processor, batches = self.processor, [_cut(batch, PRECISION_BLOCKS * BLOCK) for batch in first]
        exact = processor.through(self.tokenizer.to(processor.device, "fp32"))
        rounded = processor.through(processor.tokenizer)
        return compare_precision(rounded, exact, batches, temperatures, Ranks())


def _digested(batches: Iterable[Batch], digest: "hashlib._Hash") -> Iterator[Batch]:
    """Yield batches, after adding their content to a digest."""
    for batch in batches:
        digest.update(batch.input_B.cpu().contiguous().numpy().data)
        yield batch


def _take(batches: Iterator[Batch], images: int) -> list[Batch]:
    """Take batches until they hold so many images, unreadable ones among them."""
    taken, held = [], 0
    while held < images and (batch := next(batches, None)) is not None:
        taken.append(batch)
        held += len(batch.names) + len(batch.failed)
    return taken


def _cut(batch: Batch, images: int) -> Batch:
    """Return what of a batch is among so many first images."""
    kept = sum(place < images for place in batch.places)
    return replace(batch, input_B=batch.input_B[:kept], names=batch.names[:kept])
