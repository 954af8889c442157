"""A benchmark: from a workload to its timings, its counted work and the baseline's errors."""

import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from entropy_cli.commands.bench.contenders import Workload
from entropy_cli.commands.bench.random_weights import random_weights
from entropy_cli.commands.bench.result import Bench, Errors, Stage, Timing
from entropy_cli.commands.bench.roofline import Peak, Work
from entropy_cli.commands.bench.timing import STAGES, ContenderName, ContenderProcess, time_rounds
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.synthetic import write_image_folder
from entropy_cli.streaming.device import (
    check_precision,
    choose_batch_size,
    choose_device,
    choose_precision,
    choose_workers,
)
from entropy_cli.streaming.emulation import missing_instructions, warn_if_emulated
from entropy_cli.tokenizers.layers.var_layout import VARSizes
from entropy_cli.tokenizers.precision import Precision
from entropy_cli.tokenizers.registry import find_family
from entropy_cli.tokenizers.settings import TokenizerSettings

SEED = 0


@dataclass(frozen=True)
class BenchConfig:
    """The user's choices; None where the program chooses.

    Attributes:
        checkpoint: None for random weights of `sizes`.
        data: a folder of images; None for synthetic images.
    """

    checkpoint: Path | None
    data: Path | None
    sizes: VARSizes
    tokenizer: TokenizerSettings
    family: str
    images: int | None
    device: str
    precision: Precision | None
    batch_size: int | None
    workers: int | None
    temperatures: tuple[float, ...]


def bench(workload: Workload, rounds: int, bars: Bars, *, baseline: bool) -> Bench:
    """Time every stage, count its work, and compare the results with the baseline's.

    Args:
        workload: images, tokenizer and settings.
        rounds: timed passes over each stage.
        bars: makes progress bars.
        baseline: time the plain loop too.
    """
    if baseline:
        _check_baseline(workload)
    names: list[ContenderName] = ["entropy-cli", "plain"] if baseline else ["entropy-cli"]
    with contextlib.ExitStack() as stack:
        contenders = []
        with bars("starting", len(names), "process") as bar:
            for name in names:
                process = contextlib.closing(ContenderProcess(name, workload))
                contenders.append(stack.enter_context(process))
                bar.update(1)
        total = len(STAGES) * (rounds + 1) * len(names)
        with bars("timing", total, "pass") as bar:
            seconds = time_rounds(contenders, STAGES, rounds, bar.update)
        with bars("counting and comparing", 2, "step") as bar:
            memory = [contender.call("peak_bytes") for contender in contenders]
            counts = contenders[0].call("counts")
            bar.update(1)
            errors = _compare(contenders) if baseline else None
    images = contenders[0].images
    return Bench(
        device=counts["device"],
        images=images,
        rounds=rounds,
        workload=_record(workload, counts["tokenizer"]),
        work={"encoder": vars(counts["encoder"]), "quantiser": vars(counts["quantiser"])},
        peak={"encoder": vars(counts["peak_encoder"]), "quantiser": vars(counts["peak_quantiser"])},
        peak_memory_bytes=dict(zip(names, memory, strict=True)),
        stages=[_stage(stage, names, seconds[stage], images, counts) for stage in STAGES],
        errors=errors,
    )


def _stage(
    name: str, names: Sequence[str], seconds: list[list[float]], images: int, counts: dict[str, Any]
) -> Stage:
    floor = _floor(name, counts)
    timings = {
        contender: Timing(
            ms_per_image=1000 * statistics.median(durations) / images,
            fastest_ms_per_image=1000 * min(durations) / images,
            share_of_floor=None if floor is None else floor * images / statistics.median(durations),
        )
        for contender, durations in zip(names, seconds, strict=True)
    }
    ratios = [plain / ours for ours, plain in zip(*seconds, strict=True)] if len(seconds) > 1 else None
    return Stage(name, timings, ratios)


def _floor(stage: str, counts: dict[str, Any]) -> float | None:
    """Return the least seconds per image; None for decoding, whose work is not counted."""
    parts: dict[str, list[tuple[Work, Peak]]] = {
        "encoder": [(counts["encoder"], counts["peak_encoder"])],
        "quantiser": [(counts["quantiser"], counts["peak_quantiser"])],
    }
    parts["end to end"] = [*parts["encoder"], *parts["quantiser"]]
    return sum(peak.least_seconds(work) for work, peak in parts[stage]) if stage in parts else None


def _compare(contenders: Sequence[ContenderProcess]) -> Errors:
    """Return the largest differences between the program's results and the baseline's."""
    program, baseline = contenders
    f_BChw, baseline_f_BChw = program.call("latents"), baseline.call("latents")
    reference = baseline.call("assign", baseline_f_BChw)
    same_latents, own_latents = program.call("assign", baseline_f_BChw), program.call("assign", f_BChw)
    return Errors(
        latents=float(np.abs(f_BChw - baseline_f_BChw).max()),
        quantiser_tokens_changed=int((same_latents.idx_BL != reference.idx_BL).sum()),
        quantiser_entropy=float(np.abs(same_latents.entropy_ST - reference.entropy_ST).max()),
        tokens_changed=int((own_latents.idx_BL != reference.idx_BL).sum()),
        entropy=float(np.abs(own_latents.entropy_ST - reference.entropy_ST).max()),
        tokens=int(reference.idx_BL.size),
    )


def _record(workload: Workload, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return the workload and the versions, as the result records them."""
    text = {name: str(getattr(workload, name)) for name in ("checkpoint", "data", "device", "precision")}
    return {
        **text,
        "images": workload.images,
        "batch_size": workload.batch_size,
        "workers": workload.workers,
        "temperatures": list(workload.temperatures),
        **tokenizer,
        "versions": {name: version(name) for name in ("entropy-cli", "torch", "torchvision", "pillow")},
    }


def _check_baseline(workload: Workload) -> None:
    """Raise EntropyCliError if the baseline does not support the tokenizer's rule."""
    rule = find_family(workload.checkpoint, workload.family, workload.tokenizer).describe().rule
    if rule not in ("l2", "cosine"):
        raise EntropyCliError(
            f"--baseline: rule {rule}, but the plain loop supports l2 and cosine only. Leave "
            "--baseline out."
        )


def prepare_workload(stack: contextlib.ExitStack, config: BenchConfig, bars: Bars) -> Workload:
    """Build the workload, with random weights and synthetic images where the user gives none.

    Args:
        stack: removes the temporary files when it closes.
        config: the user's choices.
        bars: makes progress bars.
    """
    device = choose_device(config.device)
    precision = config.precision or choose_precision(device)
    check_precision(precision, device)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="entropy-cli-")))
    checkpoint = config.checkpoint
    if checkpoint is None:
        checkpoint = folder / "random.safetensors"
        with bars("writing random weights", None, "B"):
            save_file(random_weights(config.sizes, SEED), checkpoint)
    size = find_family(checkpoint, config.family, config.tokenizer).describe().image_size
    assert size is not None
    batch_size = config.batch_size or choose_batch_size(device, size)
    images = config.images or 2 * batch_size
    data = config.data
    if data is None:
        data = folder / "images"
        with bars("writing images", images, "img") as bar:
            write_image_folder(data, images, size * 3 // 2, SEED, bar.update)
    workload = Workload(
        checkpoint=checkpoint,
        data=data,
        images=images,
        batch_size=batch_size,
        workers=choose_workers(device) if config.workers is None else config.workers,
        device=str(device),
        precision=precision,
        temperatures=config.temperatures,
        family=config.family,
        tokenizer=config.tokenizer,
    )
    if missing_instructions(precision, device):
        _warn_if_emulated(workload, device)
    return workload


@torch.inference_mode()
def _warn_if_emulated(workload: Workload, device: torch.device) -> None:
    processor, images = workload.load(workload.precision)
    pictures = CroppedImages(images, processor.tokenizer.spec.crop.apply)
    for index in range(len(images)):
        img_HW3 = pictures.read(index)
        if not isinstance(img_HW3, str):
            img_B3HW = torch.from_numpy(img_HW3).permute(2, 0, 1)[None]
            warn_if_emulated(processor.tokenizer, workload.precision, device, img_B3HW)
            return
