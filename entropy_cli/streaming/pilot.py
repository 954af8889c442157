"""Measurements on the first images: the temperatures of `auto`, and what a precision costs."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.quantity import TemperatureChoice
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.entropy.temperature import TemperatureFit, fit_temperature
from entropy_cli.images.loader import Batch
from entropy_cli.images.plan import BLOCK
from entropy_cli.streaming.batch_processor import BatchProcessor, EncodedBatch
from entropy_cli.streaming.ranks import Ranks

PILOT_BLOCKS = 1024 // BLOCK  # of the global order, that `--temperature auto` is fitted to
PRECISION_BLOCKS = 64 // BLOCK  # of the global order, on which a precision is compared with float32


def fit_temperatures(
    processor: BatchProcessor,
    batches: Iterable[EncodedBatch],
    ranks: Ranks,
    describe: Callable[[str], object],
) -> tuple[list[float], dict[str, object], list[EncodedBatch]]:
    """Fit a temperature for each scale to all processes' images.

    Args:
        processor: of this process.
        batches: its share of the first images.
        ranks: the processes that share them.
        describe: called with a description of each step, for a progress bar.

    Returns:
        The temperature of each scale, the record of how they were found, and the batches, for the loop.

    Raises:
        EntropyCliError: none of the images could be read, or reading failed in one of the processes.
    """
    scales = processor.tokenizer.spec.scales
    encoded, vectors = [], []
    with ranks.together():
        for batch in batches:
            encoded.append(batch)
            if batch.names:
                vectors.append(_vectors(processor, batch))
    images = ranks.all_reduce_sum([sum(len(batch.names) for batch in encoded)])[0]
    if not images:
        failed = [entry for entries in ranks.all_gather(_failed(encoded)) for entry in entries]
        path, reason = failed[0]
        option = "--data" if processor.tokenizer.spec.image_size else "--latents"
        raise DatasetError(
            f"temperature auto: none of the first {len(failed)} images could be read; the first, "
            f"{path}: {reason}. Check {option}."
        )
    fits: list[TemperatureFit] = []
    for s in range(len(scales)):
        describe(f"fitting the temperature of scale {s + 1} of {len(scales)}")
        z_BlCs = [z_SBlC[s].to(processor.device) for z_SBlC in vectors]
        fits.append(fit_temperature(z_BlCs, processor.tokenizer.codebook(s), ranks.all_reduce))
    describe("")
    record: dict[str, object] = {
        "images": images,
        "hard": [fit.hard for fit in fits],
        "steps": [fit.steps for fit in fits],
        "ended": [fit.ended for fit in fits],
    }
    return [fit.value for fit in fits], record, encoded


def _failed(batches: Sequence[EncodedBatch]) -> list[tuple[str, str]]:
    return [entry for batch in batches for entry in batch.failed]


def with_fitted(
    choices: Sequence[TemperatureChoice], fitted_S: Sequence[float | None]
) -> list[list[float]]:
    """Return the temperatures of each scale, with the fitted one in place of "auto"."""
    temperatures_ST = []
    for fitted in fitted_S:
        values = [fitted if choice == "auto" else choice for choice in choices]
        temperatures_ST.append([value for value in values if value is not None])
    return temperatures_ST


def _vectors(processor: BatchProcessor, batch: EncodedBatch) -> list[Tensor]:
    """Return the vectors of each scale, on the CPU."""

    def assign_hard(scale: int, z_BlC: Tensor) -> ImageSums:
        return assign(z_BlC, processor.tokenizer.codebook(scale), ())

    quantized = processor.quantize_scales(batch.rest_BChw, batch.names, assign_hard)
    z_SBlC = [z_BlC[: len(batch.names)].cpu() for z_BlC, _ in quantized]
    processor.check_finite()
    return z_SBlC


def compare_precision(
    processor: BatchProcessor,
    reference: BatchProcessor,
    batches: Iterable[Batch],
    temperatures: Sequence[Sequence[float]],
    ranks: Ranks,
) -> dict[str, object]:
    """Measure what an encoder's precision changes against float32 on the same device.

    Args:
        processor: with the tokenizer in its precision.
        reference: with the same tokenizer in float32.
        batches: this process's share of the first images.
        temperatures: per scale, the headline first.
        ranks: the processes that share them.

    Returns:
        For the result: errors of the latents; share of hard tokens that differ, and difference of the
        assignment entropy in nats, per scale and over all tokens.
    """
    scales = processor.tokenizer.spec.scales
    largest = 0.0
    sums_3 = torch.zeros(3, dtype=torch.float64)  # images, squares of errors, squares
    sums_2S = torch.zeros(2, len(scales), dtype=torch.float64)  # tokens changed, entropy
    with ranks.together():
        for batch in filter(lambda batch: batch.names, batches):
            exact_BChw, exact = _sums(reference, batch, temperatures)
            rounded_BChw, rounded = _sums(processor, batch, temperatures)
            error_BChw = rounded_BChw - exact_BChw
            squares = (error_BChw.square().sum().item(), exact_BChw.square().sum().item())
            sums_3 += torch.tensor([len(batch.names), *squares], dtype=torch.float64)
            largest = max(largest, error_BChw.abs().max().item())
            for s, (a, b) in enumerate(zip(exact, rounded, strict=True)):
                sums_2S[0, s] += (a.idx_Bl != b.idx_Bl).sum().item()
                sums_2S[1, s] += (b.entropy_BT - a.entropy_BT).sum().item()
    images, errors, squares_sum = ranks.all_reduce(sums_3).tolist()
    changed_S, difference_S = ranks.all_reduce(sums_2S)
    tokens_S = max(1, images) * torch.tensor([scale.tokens for scale in scales]).double()
    return {
        "images": int(images),
        "reference": "fp32",
        "latent_relative_error": math.sqrt(errors / squares_sum) if squares_sum else 0.0,
        "latent_largest_error": max(ranks.all_gather(largest)),
        "tokens_changed": (changed_S / tokens_S).tolist(),
        "tokens_changed_overall": (changed_S.sum() / tokens_S.sum()).item(),
        "assignment_entropy_difference": (difference_S / tokens_S).tolist(),
        "assignment_entropy_difference_token_weighted": (difference_S.sum() / tokens_S.sum()).item(),
    }


def _sums(
    processor: BatchProcessor, batch: Batch, temperatures: Sequence[Sequence[float]]
) -> tuple[Tensor, list[ImageSums]]:
    """Return latents in float64, and the sums of all scales at the first temperature."""

    def assign_scale(scale: int, z_BlC: Tensor) -> ImageSums:
        return assign(z_BlC, processor.tokenizer.codebook(scale), temperatures[scale][:1])

    images = len(batch.names)
    (encoded,) = processor.encode(
        [replace(batch, completed_blocks=(-1,))]
    )  # not to be joined with others
    quantized = processor.quantize_scales(encoded.rest_BChw, batch.names, assign_scale)
    sums = [scale_sums.first(images) for _, scale_sums in quantized]
    processor.check_finite()
    return encoded.rest_BChw[:images].double(), sums
