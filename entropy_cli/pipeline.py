"""The main job from a request to a result: what `estimate` and `demo` both run."""

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from entropy_cli.data.images import GROUPS, ImageSet, find_images
from entropy_cli.data.loader import BLOCK, Batch, plan, read_batches
from entropy_cli.engine.estimate import PILOT_BLOCKS, SAVE_EVERY_S, Estimator, Hooks
from entropy_cli.engine.progress import Progress
from entropy_cli.engine.runtime import (
    Signals,
    choose_batch_size,
    choose_device,
    choose_workers,
    device_name,
)
from entropy_cli.errors import DatasetError
from entropy_cli.functional.summary import spread_over_images
from entropy_cli.results import state
from entropy_cli.results.build import build_result
from entropy_cli.results.schema import Result
from entropy_cli.tokenizers import Loaded, load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings

logger = logging.getLogger(__name__)


class Bar(Protocol):
    """The part of a tqdm bar that is used."""

    def update(self, n: int) -> object:
        """Go on by n."""
        ...

    def set_description(self, words: str) -> object:
        """Say what is going on."""
        ...


class Bars(Protocol):
    """Makes a progress bar; `total` None if unknown, `initial` if part is done."""

    def __call__(
        self, words: str, total: int | None, unit: str, initial: int = 0
    ) -> contextlib.AbstractContextManager[Bar]:
        """Make one."""
        ...


@dataclass(frozen=True)
class Request:
    """What to estimate and how; None where the program chooses.

    Attributes:
        data: folder of images, or pattern of tars of one.
        checkpoint: file of the tokenizer.
        temperatures: "auto", or divisors of the squared distance, the headline first.
        state: where the state is kept; None keeps it in the cache folder until the run ends well.
    """

    data: Path
    checkpoint: Path
    split: str = "auto"
    limit: int | None = None
    seed: int = 0
    family: str = "auto"
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    temperatures: tuple[float, ...] | Literal["auto"] | None = None
    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    state: Path | None = None
    save_every_s: float = SAVE_EVERY_S
    fail_at_first: bool = False
    command: str = ""


def estimate(request: Request, bars: Bars, deliver: Callable[[Result], object]) -> Result:
    """Estimate, or go on with an estimate that was interrupted.

    Args:
        request: what and how.
        bars: makes progress bars.
        deliver: is given the result before the saved state is removed.

    Raises:
        EntropyCliError: anything the user can mend; what was computed is saved.
    """
    with Signals() as signals:
        return _estimate(request, bars, deliver, signals)


def _estimate(
    request: Request, bars: Bars, deliver: Callable[[Result], object], signals: Signals
) -> Result:
    job = _prepare(request, bars)
    path = request.state or state.default_path(state.settings_fingerprint(job.settings))
    with state.locked(path):
        progress = _resume(path, job)
        machine = _accumulate(job, progress, path, bars, signals)
        result = build_result(
            job.loaded.tokenizer.spec,
            job.images,
            progress,
            job.settings,
            temperature_source=_temperature_source(job, progress),
            provenance=_provenance(job, progress) | machine,
        )
        deliver(result)
        if request.state is None:
            path.unlink(missing_ok=True)
    return result


@dataclass(frozen=True)
class _Job:
    """A request with everything opened, listed and checked; `settings` is what changes the number."""

    request: Request
    device: torch.device
    loaded: Loaded
    images: ImageSet
    settings: dict[str, Any]


def _prepare(request: Request, bars: Bars) -> _Job:
    device = choose_device(request.device)
    loaded = load_tokenizer(request.checkpoint, request.family, request.tokenizer)
    spec = loaded.tokenizer.spec
    for note in spec.notes:
        logger.warning("%s: %s", request.checkpoint, note)
    with bars("listing images", None, "img") as bar:
        images = find_images(
            request.data, request.split, seed=request.seed, limit=request.limit, progress=bar.update
        )
    with bars("hashing checkpoint", request.checkpoint.stat().st_size, "B") as bar:
        sha256 = loaded.checkpoint.sha256(bar.update)
    temperature = request.temperatures or spec.temperature
    if isinstance(temperature, float):
        temperature = (temperature,)
    settings = {
        "checkpoint_sha256": sha256,
        "images_fingerprint": images.fingerprint(),
        "images": len(images.files),
        "family": spec.family,
        "patch_nums": spec.patch_nums,
        "image_size": spec.image_size,
        "rule": spec.rule,
        "preprocess": spec.crop.words,
        "temperature": "auto" if temperature == "auto" else list(temperature),
        "precision": "fp32",
        "seed": images.seed,
        "groups": GROUPS,
        "block": BLOCK,
    }
    return _Job(request, device, loaded, images, settings)


def _resume(path: Path, job: _Job) -> Progress:
    """The progress saved by an earlier run of the same settings, or a fresh one."""
    images = len(job.images.files)
    if not path.exists():
        return Progress.start(-(-images // BLOCK))
    progress = state.load(path, job.settings)
    if progress.failed and job.request.fail_at_first:
        name, reason = progress.failed[0]
        raise DatasetError(f"{name}: could not be read: {reason}. Stopped by --on-error fail.")
    logger.info("going on from %d of %d images, saved in %s", progress.images, images, path)
    return progress


def _save(path: Path, progress: Progress, settings: dict[str, Any]) -> None:
    """Save what is worth it: of images that could not be read, none is left out for good."""
    if progress.images or progress.pilot:
        state.save(path, progress, settings)


def _accumulate(
    job: _Job, progress: Progress, path: Path, bars: Bars, signals: Signals
) -> dict[str, Any]:
    """Read what is still to be read into the progress; tells how and how fast."""
    request, tokenizer = job.request, job.loaded.tokenizer
    batch_size = request.batch_size or choose_batch_size(job.device, tokenizer.spec.image_size)
    batch_size = min(batch_size, BLOCK * len(progress.blocks_done))
    workers = choose_workers(job.device) if request.workers is None else request.workers
    before, start = progress.images, time.monotonic()
    if not progress.finished:
        hooks = Hooks(
            save=lambda progress: _save(path, progress, job.settings),
            save_every_s=request.save_every_s,
            fail_at_first=request.fail_at_first,
        )
        given = job.settings["temperature"]
        batches, done = _batches(job, progress, batch_size, workers)
        with bars("", len(job.images.files), "img", done) as bar, contextlib.closing(batches):
            hooks.advance, hooks.stage = bar.update, bar.set_description
            estimator = Estimator(tokenizer, job.device, batch_size, GROUPS)
            temperatures = None if given == "auto" else given
            estimator.run(batches, progress, temperatures, hooks, signals)
    seconds = time.monotonic() - start
    return {
        "device": device_name(job.device),
        "batch_size": batch_size,
        "workers": workers,
        "seconds": round(seconds, 3),
        "images_per_s": round((progress.images - before) / seconds, 3) if seconds else None,
        "images_resumed": before,
    }


def _batches(
    job: _Job, progress: Progress, batch_size: int, workers: int
) -> tuple[Generator[Batch, None, None], int]:
    """Batches of what is still to be read, and how many images are done."""
    images = len(job.images.files)
    todo = (~progress.blocks_done).nonzero().flatten().tolist()
    # The pilot for the temperature ends with a batch, so the blocks after it start a new one.
    pilot = [block for block in todo if block < PILOT_BLOCKS]
    rest = [block for block in todo if block >= PILOT_BLOCKS]
    plans = plan(images, batch_size, pilot) + plan(images, batch_size, rest)
    batches = read_batches(
        job.images,
        plans,
        job.loaded.tokenizer.spec.crop.apply,
        workers=workers,
        pin_memory=job.device.type == "cuda",
    )
    return batches, images - sum(len(batch.indices) for batch in plans)


def _provenance(job: _Job, progress: Progress) -> dict[str, Any]:
    """Who, what and where, for the record."""
    return {
        "command": job.request.command,
        "data": job.images.source.location,
        "checkpoint": str(job.request.checkpoint.resolve()),
        "checkpoint_wrapper": job.loaded.checkpoint.wrapper,
        "checkpoint_notes": list(job.loaded.tokenizer.spec.notes),
        "failed_reasons": [reason for _, reason in progress.failed],
        "temperature_fit": progress.pilot,
        **_checks(job, progress),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "pillow")},
    }


def _temperature_source(job: _Job, progress: Progress) -> str:
    asked, default = job.request.temperatures, job.loaded.tokenizer.spec.temperature_source
    if progress.pilot is None:
        return "given with --temperature" if asked else default
    fitted = f"maximum likelihood at each scale on the first {progress.pilot['images']} images"
    if job.loaded.tokenizer.spec.rule == "cosine":
        fitted += ", unit vectors having a dimension less"
    return fitted if asked else f"{fitted}; {default}"


def _checks(job: _Job, progress: Progress) -> dict[str, Any]:
    """What the sums say beside the result: other errors, and temperatures for all images."""
    if progress.tally is None or not progress.images:
        return {}
    tally = progress.tally.to("cpu")
    tokens_S = progress.images * tally.tokens_S
    codebooks = map(job.loaded.tokenizer.codebook, range(len(tokens_S)))
    per_distance_S = 2 / torch.tensor([codebook.degrees_of_freedom for codebook in codebooks]).double()
    nearest_S = per_distance_S * tally.min_distance_GS.sum(0) / tokens_S
    implied_S = per_distance_S * tally.distance_GST[..., 0].sum(0) / tokens_S
    return {
        "assignment_entropy_se_over_images": spread_over_images(tally),
        "temperature_if_hard": nearest_S.tolist(),
        "temperature_implied": implied_S.tolist() if progress.pilot is not None else None,
    }
