"""Measurements on the first images: the temperatures of `auto`, and what a precision costs."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.entropy.quantity import TemperatureChoice
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.entropy.temperature import TemperatureFit, fit_temperature
from entropy_cli.images.loader import Batch
from entropy_cli.images.plan import BLOCK
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.ranks import Ranks

PILOT_BLOCKS = 1024 // BLOCK  # of the global order, that `--temperature auto` is fitted to
PRECISION_BLOCKS = 64 // BLOCK  # of the global order, on which a precision is compared with float32


def fit_temperatures(
    processor: BatchProcessor,
    batches: Iterable[Batch],
    ranks: Ranks,
    headline: TemperatureChoice,
    describe: Callable[[str], object],
) -> tuple[list[float], dict[str, object], list[Batch]]:
    """Fit a temperature for each scale to all processes' shares of the first images, encoded.

    Where tokens are drawn, they are at the headline's temperature.

    Returns:
        The temperature of each scale, the record of how they were found, and the batches, for the loop.

    Raises:
        EntropyCliError: none of the images could be read, or reading failed in one of the processes.
    """
    encoded: list[Batch] = []
    with ranks.together():
        encoded += batches
    images = ranks.all_reduce_sum([sum(len(batch.names) for batch in encoded)])[0]
    if not images:
        failed = [entry for entries in ranks.all_gather(_failed(encoded)) for entry in entries]
        path, reason = failed[0]
        option = "--data" if processor.tokenizer.spec.image_size else "--latents"
        raise DatasetError(
            f"temperature auto: none of the first {len(failed)} images could be read; the first, "
            f"{path}: {reason}. Check {option}."
        )
    read = [batch for batch in encoded if batch.names]
    fits = _fit_scales(processor, read, ranks, headline, describe)
    keys = ("hard", "steps", "ended")
    record = {"images": images, **{key: [getattr(fit, key) for fit in fits] for key in keys}}
    return [fit.value for fit in fits], record, encoded


def _fit_scales(
    processor: BatchProcessor,
    batches: Sequence[Batch],
    ranks: Ranks,
    headline: TemperatureChoice,
    describe: Callable[[str], object] = lambda _: None,
) -> list[TemperatureFit]:
    """Fit a temperature for each scale to this process's share of the encoded batches."""
    fits: list[TemperatureFit] = []
    scales = len(processor.tokenizer.spec.scales)
    for s in range(scales):
        describe(f"fitting the temperature of scale {s + 1} of {scales}")
        if s == 0 or processor.draw_seed is not None:  # drawn tokens depend on the temperatures so far
            drawn_at = [[fit.value if headline == "auto" else headline] for fit in fits]
            with ranks.together():
                vectors = [_vectors(processor, batch, drawn_at) for batch in batches]
        z_BlCs = [z_SBlC[s].to(processor.device) for z_SBlC in vectors]
        fits.append(fit_temperature(z_BlCs, processor.tokenizer.codebook(s), ranks.all_reduce))
    describe("")
    return fits


def _failed(batches: Sequence[Batch]) -> list[tuple[str, str]]:
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


def _vectors(
    processor: BatchProcessor, batch: Batch, drawn_at: Sequence[Sequence[float]]
) -> list[Tensor]:
    """Return the vectors of each scale, on the CPU; tokens of the first scales may be drawn."""
    none = [()] * (len(processor.tokenizer.spec.scales) - len(drawn_at))
    quantized = processor.quantize_scales(batch.input_B, batch.names, [*drawn_at, *none])
    z_SBlC = [z_BlC[: len(batch.names)].cpu() for z_BlC, _ in quantized]
    processor.finish_batches()
    return z_SBlC


def compare_precision(
    processor: BatchProcessor,
    reference: BatchProcessor,
    batches: Iterable[Batch],
    temperatures: Sequence[Sequence[float]] | None,
    ranks: Ranks,
) -> dict[str, object]:
    """Measure what the processor's precision changes against the reference's float32.

    `batches` are this process's share of the first images. Without `temperatures` each of the two is
    fitted its own, as runs of their own would be. Returns, for the result, errors of the latents; the
    share of hard tokens that differ, and the difference of the assignment entropy at the first
    temperature in nats per token, per scale and over all tokens.
    """
    scales = processor.tokenizer.spec.scales
    pairs: list[tuple[Batch, Batch]] = []
    with ranks.together():
        for batch in filter(lambda batch: batch.names, batches):
            pairs.append((_encoded(reference, batch), _encoded(processor, batch)))
    images = ranks.all_reduce_sum([sum(len(exact.names) for exact, _ in pairs)])[0]
    exact_ST = rounded_ST = temperatures or []
    if temperatures is None and images:
        exact_ST = _fitted(reference, [exact for exact, _ in pairs], ranks)
        rounded_ST = _fitted(processor, [rounded for _, rounded in pairs], ranks)
    largest = 0.0
    sums_2 = torch.zeros(2, dtype=torch.float64)  # squares of errors, squares
    sums_2S = torch.zeros(2, len(scales), dtype=torch.float64)  # tokens changed, entropy
    with ranks.together():
        for exact, rounded in pairs:
            exact_BChw = exact.input_B.double()
            error_BChw = rounded.input_B.double() - exact_BChw
            sums_2 += torch.stack([each.square().sum() for each in (error_BChw, exact_BChw)]).cpu()
            largest = max(largest, error_BChw.abs().max().item())
            sums = _sums(reference, exact, exact_ST), _sums(processor, rounded, rounded_ST)
            for s, (a, b) in enumerate(zip(*sums, strict=True)):
                sums_2S[0, s] += (a.idx_Bl != b.idx_Bl).sum().item()
                sums_2S[1, s] += (b.entropy_BT - a.entropy_BT).sum().item()
    errors, squares = ranks.all_reduce(sums_2).tolist()
    changed_S, difference_S = ranks.all_reduce(sums_2S)
    tokens_S = max(1, images) * torch.tensor([scale.tokens for scale in scales]).double()
    return {
        "images": images,
        "reference": "fp32",
        "latent_relative_error": math.sqrt(errors / squares) if squares else 0.0,
        "latent_largest_error": max(ranks.all_gather(largest)),
        "tokens_changed": (changed_S / tokens_S).tolist(),
        "tokens_changed_overall": (changed_S.sum() / tokens_S.sum()).item(),
        "assignment_entropy_difference": (difference_S / tokens_S).tolist(),
        "assignment_entropy_difference_token_weighted": (difference_S.sum() / tokens_S.sum()).item(),
    }


def compare_losses(
    processor: BatchProcessor,
    reference: BatchProcessor,
    batches: Iterable[Batch],
    temperatures: Sequence[Sequence[float]],
    ranks: Ranks,
) -> dict[str, object]:
    """Measure what the precision changes in a generator's losses, against the reference's float32.

    Arguments are as for `compare_precision`. Returns, for the result, the difference of the
    cross-entropy in nats per token, per scale and over all tokens.
    """
    scales = processor.tokenizer.spec.scales
    difference_S, images = torch.zeros(len(scales), dtype=torch.float64), 0
    with ranks.together():
        for batch in filter(lambda batch: batch.names, batches):
            exact, rounded = (
                each.losses(_encoded(each, batch), temperatures) for each in (reference, processor)
            )
            difference_S += (rounded.cross_entropy_BS - exact.cross_entropy_BS).sum(0).cpu()
            images += len(batch.names)
    difference_S, images = ranks.all_reduce(difference_S), ranks.all_reduce_sum([images])[0]
    tokens_S = max(1, images) * torch.tensor([scale.tokens for scale in scales]).double()
    return {
        "images": images,
        "reference": "fp32",
        "cross_entropy_difference": (difference_S / tokens_S).tolist(),
        "cross_entropy_difference_token_weighted": (difference_S.sum() / tokens_S.sum()).item(),
    }


def _encoded(processor: BatchProcessor, batch: Batch) -> Batch:
    """Return a batch with its latents, without what filled it up."""
    whole = replace(batch, completed_blocks=(-1,))  # not to be joined with others
    (encoded,) = processor.encode([whole])
    return replace(encoded, input_B=encoded.input_B[: len(batch.names)])


def _fitted(processor: BatchProcessor, batches: Sequence[Batch], ranks: Ranks) -> list[list[float]]:
    """Fit the temperature of each scale to encoded batches."""
    return [[fit.value] for fit in _fit_scales(processor, batches, ranks, "auto")]


def _sums(
    processor: BatchProcessor, batch: Batch, temperatures: Sequence[Sequence[float]]
) -> list[ImageSums]:
    """Return the sums of all scales of an encoded batch at the first temperature."""
    quantized = processor.quantize_scales(batch.input_B, batch.names, [t[:1] for t in temperatures])
    sums = [scale_sums for _, scale_sums in quantized]
    processor.finish_batches()
    return sums
