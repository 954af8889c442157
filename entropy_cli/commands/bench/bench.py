"""A benchmark: from a workload to its timings, its counted work and the baseline's errors."""

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import active_children, get_context
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

from entropy_cli.commands.bench.contenders import Baseline, Contender, EntropyCli
from entropy_cli.commands.bench.generators import random_generator, settings_for
from entropy_cli.commands.bench.random_weights import random_weights
from entropy_cli.commands.bench.result import Bench, Errors, Stage, Timing, Workload
from entropy_cli.commands.bench.roofline import count_work, measure_peak, quantiser_work, time_call
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.progress_bars import Bar, Bars
from entropy_cli.generators.fits import check_fits
from entropy_cli.generators.registry import find_generator
from entropy_cli.images.loader import leave_signals_to_parent
from entropy_cli.images.synthetic import write_image_folder
from entropy_cli.streaming import device as machine
from entropy_cli.streaming.emulation import missing_instructions, warn_if_emulated
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.layers.var_layout import VARSizes
from entropy_cli.tokenizers.precision import DTYPES, Precision, matmul_precision
from entropy_cli.tokenizers.registry import find_family
from entropy_cli.tokenizers.settings import TokenizerSettings

CONTENDERS: dict[str, Callable[[Workload], Contender]] = {"entropy-cli": EntropyCli, "plain": Baseline}
SEED = 0
Seconds = dict[str, dict[str, list[float]]]  # by stage, contender and round


@dataclass(frozen=True)
class BenchConfig:
    """The user's choices; None where the program chooses, random weights and synthetic images too."""

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
    rounds: int
    baseline: bool
    model: Path | int | None = None  # a generator, or the depth of one of random weights


@torch.inference_mode()
@matmul_precision(tf32=False)
def bench(config: BenchConfig, bars: Bars) -> Bench:
    """Time every stage, count its work, and compare the results with the baseline's."""
    names = list(CONTENDERS) if config.baseline else ["entropy-cli"]
    with tempfile.TemporaryDirectory(prefix="entropy-cli-") as folder:
        workload = _prepare(config, Path(folder), bars)
        with bars("timing", len(workload.stages) * (config.rounds + 1) * len(names), "pass") as bar:
            seconds, memory = _time(workload, names, config.rounds, bar)
        with bars("counting and comparing", 2, "step") as bar:
            program = EntropyCli(workload)
            tokenizer, images = program.tokenizer, len(program.img_B3HW)
            encoder = count_work(lambda: tokenizer.encode(program.img_B3HW[:1]))
            work = {"encoder": encoder, "quantiser": quantiser_work(tokenizer.spec)}
            dtypes = {"encoder": DTYPES[workload.precision], "quantiser": torch.float32}
            if program.scorer is not None:
                program.encoder()
                work["generator"] = count_work(lambda: program.score(slice(1)))
                dtypes["generator"] = DTYPES[workload.precision]
            peak = {part: measure_peak(program.device, dtype) for part, dtype in dtypes.items()}
            bar.update(1)
            errors = _compare(program, Baseline(workload)) if config.baseline else None
    least = {part: peak[part].least_seconds(work[part]) for part in work}
    least["end to end"] = sum(least.values())
    return Bench(
        device=machine.device_name(program.device),
        images=images,
        rounds=config.rounds,
        repeats=program.repeats,
        workload=workload.record(tokenizer.spec),
        work=work,
        peak=peak,
        peak_memory_bytes=memory,
        stages=[_stage(stage, seconds[stage], images, least.get(stage)) for stage in workload.stages],
        errors=errors,
    )


def _prepare(config: BenchConfig, folder: Path, bars: Bars) -> Workload:
    """Choose what the user left open; random weights and images go into the temporary folder."""
    device = machine.choose_device(config.device)
    precision = machine.choose_precision(device, config.precision)
    checkpoint = config.checkpoint or folder / "random.safetensors"
    if config.checkpoint is None:
        save_file(random_weights(config.sizes, SEED), checkpoint)
    found = find_family(checkpoint, config.family, config.tokenizer)
    spec = found.describe()
    assert spec.image_size is not None
    if config.baseline and spec.rule not in ("l2", "cosine"):
        raise EntropyCliError(
            f"--baseline: rule {spec.rule}, but the plain loop supports l2 and cosine only. Leave "
            "--baseline out."
        )
    model = _model(config, spec, folder)
    if missing_instructions(precision, device):
        img_B3HW = torch.zeros(1, 3, spec.image_size, spec.image_size, dtype=torch.uint8)
        warn_if_emulated(found.build().to(device, precision), precision, device, img_B3HW)
    batch_size = config.batch_size or machine.choose_batch_size(device, spec.image_size)
    images, data = config.images or 2 * batch_size, config.data or folder / "images"
    if config.data is None:
        with bars("writing images", images, "img") as bar:
            write_image_folder(data, images, spec.image_size * 3 // 2, SEED, bar.update)
    return Workload(
        checkpoint=checkpoint,
        data=data,
        images=images,
        batch_size=batch_size,
        workers=machine.choose_workers(device) if config.workers is None else config.workers,
        device=str(device),
        precision=precision,
        temperatures=config.temperatures,
        family=config.family,
        tokenizer=config.tokenizer,
        model=model,
    )


def _model(config: BenchConfig, spec: TokenizerSpec, folder: Path) -> Path | None:
    """Return the file of the generator, after writing one of random weights; None without one.

    Raises:
        CheckpointError: it is no generator of the tokenizer's tokens.
    """
    if config.model is None:
        return None
    if isinstance(config.model, Path):
        check_fits(find_generator(config.model, settings=settings_for(spec)).describe(), spec)
        return config.model
    path = folder / "random-generator.safetensors"
    save_file(random_generator(config.model, spec, SEED), path)
    return path


def _time(
    workload: Workload, names: Sequence[str], rounds: int, bar: Bar
) -> tuple[Seconds, dict[str, int]]:
    """Time contenders in turn, each in a process of its own, after one untimed round of each stage.

    Returns the seconds, and the peak memory of each contender in bytes.
    """
    seconds: Seconds = {stage: {name: [] for name in names} for stage in workload.stages}
    memory, own = {}, set[int]()
    settings = (1, get_context("spawn"), leave_signals_to_parent, (0,))
    processes = {name: ProcessPoolExecutor(*settings) for name in names}
    try:
        for pid in [process.submit(os.getpid) for process in processes.values()]:
            own.add(pid.result())
        for stage, turn in product(workload.stages, range(rounds + 1)):
            for name, process in processes.items():
                taken, memory[name] = process.submit(_run_stage, name, workload, stage).result()
                seconds[stage][name] += [taken] if turn else []
                bar.update(1)
    except BrokenProcessPool:
        raise EntropyCliError(
            "a benchmark process died, perhaps out of memory. Give fewer --images or a smaller "
            "--batch-size."
        ) from None
    finally:
        for child in active_children():
            if child.pid in own:
                child.kill()
    return seconds, memory


@torch.inference_mode()
@matmul_precision(tf32=False)
def _run_stage(name: str, workload: Workload, stage: str) -> tuple[float, int]:
    """Return the seconds of a stage for all images once, and the peak memory of this process."""
    contender = _contender(name, workload)
    taken = time_call(getattr(contender, stage.replace(" ", "_")), contender.device)
    return taken / contender.repeats.get(stage, 1), machine.peak_memory_bytes(contender.device)


@cache
def _contender(name: str, workload: Workload) -> Contender:
    return CONTENDERS[name](workload)


def _stage(name: str, seconds: dict[str, list[float]], images: int, least: float | None) -> Stage:
    timings = {
        contender: Timing(
            ms_per_image=1000 * median(durations) / images,
            fastest_ms_per_image=1000 * min(durations) / images,
            share_of_floor=None if least is None else least * images / median(durations),
        )
        for contender, durations in seconds.items()
    }
    pairs = zip(*seconds.values(), strict=True)
    return Stage(name, timings, [plain / ours for ours, plain in pairs] if len(seconds) > 1 else None)


def _compare(program: EntropyCli, baseline: Baseline) -> Errors:
    """Return the largest differences between the program's results and the baseline's."""
    program.encoder()
    baseline.encoder()
    f_BChw, baseline_f_BChw = (torch.cat(c.latent_batches) for c in (program, baseline))
    reference_ST, _, reference_BL = baseline.loop.quantise(baseline_f_BChw)
    (same_ST, same_BL), (own_ST, own_BL) = map(program.assign, (baseline_f_BChw, f_BChw))
    return Errors(
        latents=float((f_BChw - baseline_f_BChw).abs().max()),
        quantiser_tokens_changed=int((same_BL != reference_BL).sum()),
        quantiser_entropy=float((same_ST - reference_ST).abs().max()),
        tokens_changed=int((own_BL != reference_BL).sum()),
        entropy=float((own_ST - reference_ST).abs().max()),
        cross_entropy=_difference(program, baseline),
        tokens=reference_BL.numel(),
    )


def _difference(program: EntropyCli, baseline: Baseline) -> float | None:
    """Return the difference of a generator's mean cross-entropies; None without one."""
    if program.scorer is None:
        return None
    baseline.walks = program.walks
    return float((program.generator() - baseline.generator()).abs())
