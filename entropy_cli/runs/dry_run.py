"""Describe what an estimate would do, and how long it would take, from one timed batch."""

import resource
import time
from dataclasses import replace

import torch

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.progress_bars import Bars, duration
from entropy_cli.core.table import definitions
from entropy_cli.entropy.accumulator import Accumulator
from entropy_cli.images.loader import open_loader, read_batches
from entropy_cli.images.plan import BLOCK, BatchPlan, plan_batches
from entropy_cli.results.evaluations.summary import labels_text
from entropy_cli.runs.config import EstimateConfig
from entropy_cli.runs.model import Model
from entropy_cli.runs.run import Run, format_temperatures, open_run, workers_text
from entropy_cli.streaming.device import keep_freed_memory
from entropy_cli.streaming.pilot import PILOT_BLOCKS
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.precision import matmul_precision

MIB = 2**20
TIMED_BATCHES = 2  # the first of which warms up


def dry_run(config: EstimateConfig, bars: Bars) -> str:
    """Open everything that an estimate reads, time one batch, and describe the run in words.

    Raises:
        EntropyCliError: any of it can't be opened or read; nothing is saved.
    """
    run = open_run(config, Ranks(), bars)
    plans = plan_batches(run.settings.images, run.batch_size, run.blocks)
    images = sum(map(len, plans))
    progress = Progress.start(run.settings.images // BLOCK + 1)
    numbers = [1.0 if t == "auto" else t for t in run.settings.temperature]
    progress.temperatures = [numbers for _ in run.metadata.scales]
    run.allocate(progress)
    decode_s, compute_s = _time_batch(run, plans, progress) if plans else (0.0, 0.0)
    if run.workers:
        expected_s = images * max(decode_s / run.workers, compute_s)
    else:
        expected_s = images * (decode_s + compute_s)
    spec, origin = run.inputs.tokenizer.spec, run.inputs.provenance
    evidence = origin.get("checkpoint_evidence") or []
    tokens = sum(scale.tokens for scale in spec.scales)
    work = "encode and assign" if run.model is None else "encode, assign and predict"
    fitted = "auto" in run.settings.temperature and run.settings.frozen_temperatures is None
    first = min(run.settings.images, PILOT_BLOCKS * BLOCK)  # of all shards
    pilot = f"; auto is fitted to the first {first:,}" if fitted else ""
    return definitions(
        {
            "family": f"{spec.family}" + "".join(f"; {words}" for words in evidence[:1]),
            "codes": f"{spec.vocab_size:,} of {spec.latent_dim} dimensions, {spec.rule} rule",
            "scales": ", ".join(scale.name for scale in spec.scales),
            **({} if run.model is None else {"model": _describe(run.model)}),
            "images": f"{images:,} of {run.inputs.images.found:,}, {run.settings.preprocess}",
            "tokens": f"{tokens:,} an image, {tokens * images:,} in all",
            "temperature": format_temperatures(run.settings.temperature)
            + pilot
            + ("; tokens are drawn at the first" if run.settings.path == "drawn" else ""),
            "device": f"{run.device}, {run.settings.precision}{', compiled' if run.compiles else ''}, "
            f"batches of {run.batch_size}, {workers_text(run.workers)}",
            "time": f"about {duration(expected_s)}: an image takes {1000 * decode_s:.1f} ms to decode "
            f"and {1000 * compute_s:.1f} ms to {work}"
            + (", and fitting the temperature comes on top" if fitted else ""),
            "memory": _memory(run, sum(map(_bytes, progress.accumulators))),
        }
    )


def _describe(model: Model) -> str:
    spec, labels = model.generator.spec, model.labels
    checked = f"; the first {model.label_check:,} with the null class too" if model.label_check else ""
    return (
        f"{spec.family}, {spec.parameters:,} parameters, {model.precision}; "
        f"{labels_text(labels.source, labels.classes_seen)}{checked}"
    )


def _bytes(sums: Accumulator) -> int:
    """Return the size of all tensors of sums."""
    return sum(tensor.numel() * tensor.element_size() for tensor in sums.state_dict().values())


def _memory(run: Run, sums: int) -> str:
    """Describe the memory that was used so far, and that of the sums."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    words = f"{peak / MIB:,.0f} MiB so far, of which sums {sums / MIB:,.1f} MiB"
    if run.device.type == "cuda":
        words += f"; on the GPU {torch.cuda.max_memory_allocated(run.device) / MIB:,.0f} MiB"
    return words


@torch.inference_mode()
@matmul_precision(tf32=False)
def _time_batch(run: Run, plans: list[BatchPlan], progress: Progress) -> tuple[float, float]:
    """Return the seconds that an image takes to decode in one process, and to encode and assign."""
    keep_freed_memory()
    loader = open_loader(run.inputs.source, plans[:TIMED_BATCHES], workers=0)
    started = time.monotonic()
    batches = list(read_batches(loader))
    read = [batch for batch in batches if batch.names]
    images = sum(len(batch.names) for batch in read)
    if not images:
        path, reason = batches[0].failed[0]
        raise DatasetError(f"{path}: can't be read: {reason}. Check --data.")
    decode_s = (time.monotonic() - started) / images
    processor = run.processor(run.tokenizer())
    compute_s = 0.0
    for batch in read:
        started = time.monotonic()
        for encoded in processor.encode([replace(batch, completed_blocks=(0,), digests=[])]):
            processor.add(encoded, progress)
        processor.finish_batches()
        compute_s = (time.monotonic() - started) / len(batch.names)
    return decode_s, compute_s
