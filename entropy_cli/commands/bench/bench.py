"""A benchmark from the workload to what there is to say about it."""

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
from entropy_cli.commands.bench.counts import Peak, Work
from entropy_cli.commands.bench.random_weights import random_weights
from entropy_cli.commands.bench.result import Bench, Errors, Stage, Timing
from entropy_cli.commands.bench.timing import STAGES, ArmName, Contender, rounds
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
    """What to time; None where the program chooses.

    Attributes:
        checkpoint: default random weights of these sizes.
        data: a folder of images; default some that are made for it.
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


def bench(workload: Workload, number: int, bars: Bars, *, baseline: bool) -> Bench:
    """Time every stage in turn, count the work, and compare what comes out.

    Args:
        workload: what to time.
        number: of rounds.
        bars: makes progress bars.
        baseline: whether to time the plain loop beside the program.
    """
    if baseline:
        _check_plain(workload)
    names: list[ArmName] = ["entropy-cli", "plain"] if baseline else ["entropy-cli"]
    with contextlib.ExitStack() as stack:
        contenders = []
        with bars("starting", len(names), "process") as bar:
            for name in names:
                contenders.append(stack.enter_context(contextlib.closing(Contender(name, workload))))
                bar.update(1)
        total = len(STAGES) * (number + 1) * len(names)
        with bars("timing", total, "pass") as bar:
            seconds = rounds(contenders, STAGES, number, bar.update)
        with bars("counting and comparing", 2, "step") as bar:
            memory = [contender.config("peak_bytes") for contender in contenders]
            counts = contenders[0].config("counts")
            bar.update(1)
            errors = _errors(contenders) if baseline else None
    images = contenders[0].images
    return Bench(
        device=counts["device"],
        images=images,
        rounds=number,
        workload=_described(workload, counts["tokenizer"]),
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
        arm: Timing(
            ms_per_image=1000 * statistics.median(taken) / images,
            fastest_ms_per_image=1000 * min(taken) / images,
            share_of_floor=None if floor is None else floor * images / statistics.median(taken),
        )
        for arm, taken in zip(names, seconds, strict=True)
    }
    ratios = [plain / ours for ours, plain in zip(*seconds, strict=True)] if len(seconds) > 1 else None
    return Stage(name, timings, ratios)


def _floor(stage: str, counts: dict[str, Any]) -> float | None:
    """The least seconds an image can take; None for decoding, which has no such thing."""
    parts: dict[str, list[tuple[Work, Peak]]] = {
        "encoder": [(counts["encoder"], counts["peak_encoder"])],
        "quantiser": [(counts["quantiser"], counts["peak_quantiser"])],
    }
    parts["end to end"] = [part for of in parts.values() for part in of]
    return sum(peak.floor(work) for work, peak in parts[stage]) if stage in parts else None


def _errors(contenders: Sequence[Contender]) -> Errors:
    """How far the program's numbers are from the plain loop's."""
    ours, plain = contenders
    mine, theirs = ours.config("latents"), plain.config("latents")
    reference = plain.config("assigned", theirs)
    alone, together = ours.config("assigned", theirs), ours.config("assigned", mine)
    return Errors(
        latents=float(np.abs(mine - theirs).max()),
        quantiser_tokens_changed=int((alone.idx_BL != reference.idx_BL).sum()),
        quantiser_entropy=float(np.abs(alone.entropy_ST - reference.entropy_ST).max()),
        tokens_changed=int((together.idx_BL != reference.idx_BL).sum()),
        entropy=float(np.abs(together.entropy_ST - reference.entropy_ST).max()),
        tokens=int(reference.idx_BL.size),
    )


def _described(workload: Workload, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """What was timed, for the record."""
    own = {name: str(getattr(workload, name)) for name in ("checkpoint", "data", "device", "precision")}
    return {
        **own,
        "images": workload.images,
        "batch_size": workload.batch_size,
        "workers": workload.workers,
        "temperatures": list(workload.temperatures),
        **tokenizer,
        "versions": {name: version(name) for name in ("entropy-cli", "torch", "torchvision", "pillow")},
    }


def _check_plain(workload: Workload) -> None:
    """Raise EntropyCliError if the plain loop can't do what the tokenizer does."""
    rule = find_family(workload.checkpoint, workload.family, workload.tokenizer).describe().rule
    if rule not in ("l2", "cosine"):
        raise EntropyCliError(
            f"--baseline: the plain loop knows distances to codes only, not the rule {rule}. Leave "
            "it out."
        )


def prepared(
    stack: contextlib.ExitStack,
    given: BenchConfig,
    bars: Bars,
) -> Workload:
    """A workload of what was given, and of random weights and made-up pictures where nothing was.

    Args:
        stack: what was made is removed when it closes.
        given: the user's choices.
        bars: makes progress bars.
    """
    device = choose_device(given.device)
    precision = given.precision or choose_precision(device)
    check_precision(precision, device)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="entropy-cli-")))
    checkpoint = given.checkpoint
    if checkpoint is None:
        checkpoint = folder / "random.safetensors"
        with bars("making random weights", None, "B"):
            save_file(random_weights(given.sizes, SEED), checkpoint)
    size = find_family(checkpoint, given.family, given.tokenizer).describe().image_size
    assert size is not None
    batch_size = given.batch_size or choose_batch_size(device, size)
    images = given.images or 2 * batch_size
    data = given.data
    if data is None:
        data = folder / "images"
        with bars("making pictures", images, "img") as bar:
            write_image_folder(data, images, size * 3 // 2, SEED, bar.update)
    workload = Workload(
        checkpoint=checkpoint,
        data=data,
        images=images,
        batch_size=batch_size,
        workers=choose_workers(device) if given.workers is None else given.workers,
        device=str(device),
        precision=precision,
        temperatures=given.temperatures,
        family=given.family,
        tokenizer=given.tokenizer,
    )
    if missing_instructions(precision, device):
        _warn_if_emulated(workload, device)
    return workload


@torch.inference_mode()
def _warn_if_emulated(workload: Workload, device: torch.device) -> None:
    worker, images = workload.load(workload.precision)
    pictures = CroppedImages(images, worker.tokenizer.spec.crop.apply)
    for index in range(len(images)):
        img_HW3 = pictures.read(index)
        if not isinstance(img_HW3, str):
            img_B3HW = torch.from_numpy(img_HW3).permute(2, 0, 1)[None]
            warn_if_emulated(worker.tokenizer, workload.precision, device, img_B3HW)
            return
