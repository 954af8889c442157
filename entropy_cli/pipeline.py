"""The main job from a request to a result: what `estimate` and `demo` both run."""

import contextlib
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

from entropy_cli.data.images import GROUPS, ImageSet, find_images
from entropy_cli.data.loader import BLOCK, plan, read_batches
from entropy_cli.engine.estimate import PILOT_BLOCKS, SAVE_EVERY_S, Estimator, Hooks
from entropy_cli.engine.progress import Progress
from entropy_cli.engine.runtime import (
    choose_batch_size,
    choose_device,
    choose_workers,
    device_name,
)
from entropy_cli.results import state
from entropy_cli.results.build import build_result
from entropy_cli.results.schema import Result
from entropy_cli.tokenizers import Loaded, load_tokenizer
from entropy_cli.tokenizers.base import TokenizerSpec
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
        data: folder of images.
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
    device = choose_device(request.device)
    loaded = load_tokenizer(request.checkpoint, request.family, request.tokenizer)
    spec = loaded.tokenizer.spec
    for note in spec.notes:
        logger.warning("%s: %s", request.checkpoint, note)
    with bars("listing images", None, "img") as bar:
        images = find_images(
            request.data,
            request.split,
            seed=request.seed,
            limit=request.limit,
            progress=bar.update,
        )
    settings = _settings(request, loaded, images, bars)
    path = request.state or state.default_path(state.settings_fingerprint(settings))
    with state.locked(path):
        progress = _resume(path, settings, len(images.files))
        batch_size = request.batch_size or choose_batch_size(device, spec.image_size)
        workers = choose_workers(device) if request.workers is None else request.workers
        estimator = Estimator(loaded.tokenizer, device, batch_size, GROUPS)
        before, start = progress.images, time.monotonic()
        if not progress.finished:
            given = settings["temperature"]
            temperatures = None if given == "auto" else given
            hooks = Hooks(
                save=lambda progress: state.save(path, progress, settings),
                save_every_s=request.save_every_s,
                fail_at_first=request.fail_at_first,
            )
            _run(estimator, images, progress, temperatures, hooks, bars, workers=workers)
        seconds = time.monotonic() - start
        result = build_result(
            spec,
            images,
            progress,
            settings,
            temperature_source=_temperature_source(request, spec, progress),
            provenance={
                "command": request.command,
                "data": str(images.root.resolve()),
                "checkpoint": str(request.checkpoint.resolve()),
                "checkpoint_wrapper": loaded.checkpoint.wrapper,
                "checkpoint_notes": list(spec.notes),
                "device": device_name(device),
                "batch_size": batch_size,
                "workers": workers,
                "seconds": round(seconds, 3),
                "images_per_s": round((progress.images - before) / seconds, 3) if seconds else None,
                "images_resumed": before,
                "failed_reasons": [reason for _, reason in progress.failed],
                "temperature_fit": progress.pilot,
                "temperature_implied": _implied_temperatures(progress, loaded),
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "torchvision", "pillow")},
            },
        )
        deliver(result)
        if request.state is None:
            path.unlink(missing_ok=True)
    return result


def _settings(
    request: Request, loaded: Loaded, images: ImageSet, bars: Bars
) -> dict[str, Any]:
    """Everything that changes the number; another run goes on from a state only if all is the same."""
    spec = loaded.tokenizer.spec
    with bars("hashing checkpoint", request.checkpoint.stat().st_size, "B") as bar:
        sha256 = loaded.checkpoint.sha256(bar.update)
    temperature = request.temperatures or spec.temperature
    if isinstance(temperature, float):
        temperature = (temperature,)
    return {
        "checkpoint_sha256": sha256,
        "images_fingerprint": images.fingerprint(),
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


def _resume(path: Path, settings: dict[str, Any], images: int) -> Progress:
    """The progress saved by an earlier run of the same settings, or a fresh one."""
    if not path.exists():
        return Progress.start(-(-images // BLOCK))
    progress = state.load(path, settings)
    logger.info("going on from %d of %d images, saved in %s", progress.images, images, path)
    return progress


def _run(
    estimator: Estimator,
    images: ImageSet,
    progress: Progress,
    temperatures: list[float] | None,
    hooks: Hooks,
    bars: Bars,
    *,
    workers: int,
) -> None:
    device, spec = estimator.device, estimator.tokenizer.spec
    todo = (~progress.blocks_done).nonzero().flatten().tolist()
    # The pilot for the temperature ends with a batch, so the blocks after it start a new one.
    plans = [
        batch
        for part in (
            [block for block in todo if block < PILOT_BLOCKS],
            [block for block in todo if block >= PILOT_BLOCKS],
        )
        for batch in plan(len(images.files), estimator.most_at_once, part)
    ]
    batches = read_batches(
        images, plans, spec.crop.apply, workers=workers, pin_memory=device.type == "cuda"
    )
    done = len(images.files) - sum(len(batch.indices) for batch in plans)
    with bars("", len(images.files), "img", done) as bar, contextlib.closing(batches):
        hooks.advance, hooks.stage = bar.update, bar.set_description
        estimator.run(batches, progress, temperatures, hooks)


def _temperature_source(request: Request, spec: TokenizerSpec, progress: Progress) -> str:
    if progress.pilot is not None:
        return (
            f"maximum likelihood at each scale on the first {progress.pilot['images']} images"
            + ("" if request.temperatures else f"; {spec.temperature_source}")
        )
    return "given with --temperature" if request.temperatures else spec.temperature_source


def _implied_temperatures(progress: Progress, loaded: Loaded) -> list[float] | None:
    """What one more step of the fit would give on all images; None unless the fit was asked for."""
    if progress.pilot is None or progress.tally is None or not progress.images:
        return None
    tally = progress.tally
    distance_S = tally.distance_GST[..., 0].sum(0) / (progress.images * tally.tokens_S)
    return [
        2 / loaded.tokenizer.codebook(s).degrees_of_freedom * distance
        for s, distance in enumerate(distance_S.tolist())
    ]
