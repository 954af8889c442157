"""The work of one process on a batch: encode it, assign it to the codes, add it to the sums."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.images.loader import Batch
from entropy_cli.images.plan import BLOCK
from entropy_cli.streaming.device import is_out_of_memory
from entropy_cli.streaming.progress import Progress
from entropy_cli.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")

MOST_SUMS_BYTES = 2**27  # of per-image sums over the codes that are held at once


@dataclass
class EncodedBatch:
    """One or several whole blocks of images that went through the encoder.

    Attributes:
        rest_BChw: their latents, filled up at the end if the batch was.
        group_B: jackknife groups, of the images alone.
        names: relative paths.
        places: in the seeded order.
        failed: relative path and reason of the images that could not be read.
        completed_blocks: numbers of the blocks.
    """

    rest_BChw: Tensor
    group_B: Tensor
    names: list[str]
    places: list[int]
    failed: list[tuple[str, str]]
    completed_blocks: list[int]


@dataclass
class _FiniteFlags:
    """Which images of a batch turned out finite, on their way from the device."""

    finite_SB: Tensor
    names: list[str]
    arrived: "torch.cuda.Event | None" = None


@dataclass
class BatchProcessor:
    """Runs images through a tokenizer, as many at once as memory allows.

    Attributes:
        tokenizer: on the device.
        device: where it runs.
        batch_size: the most images in the encoder at once.
        advance: called with the number of images that went through the encoder.
        write_tokens: called with the places of images and their hard tokens idx_BL, scale after scale.
        unreported_images: number of images encoded since the processes of the run last met.
    """

    tokenizer: Tokenizer
    device: torch.device
    batch_size: int
    advance: Callable[[int], object] = lambda _: None
    write_tokens: Callable[[list[int], Tensor], object] | None = None
    unreported_images: int = 0
    _flags: deque[_FiniteFlags] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Start without a limit from memory."""
        self.max_images = sys.maxsize  # at once; lowered when memory runs out
        # Batches of several blocks are filled up to one shape: kernels round by shape, and how many
        # blocks are left for the last batch depends on where a run was cut.
        blocks = self.batch_size // BLOCK
        self.padded_size = blocks * BLOCK if blocks > 1 else 0

    def encode(self, batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
        """Encode batches, and join those that hold parts of one block."""
        parts: list[EncodedBatch] = []
        for batch in batches:
            parts.append(self._encode(batch))
            if batch.completed_blocks:
                yield _concatenated(parts)
                parts = []

    def _encode(self, batch: Batch) -> EncodedBatch:
        images = len(batch.names)
        input_B = _padded(batch.input_B, self.padded_size if images else 0)

        def encode(part: slice) -> Tensor:
            return self.tokenizer.encode(input_B[part].to(self.device, non_blocking=True))

        rest_BChws = self._in_slices(len(input_B), self.batch_size, encode)
        self.unreported_images += images + len(batch.failed)
        self.advance(images + len(batch.failed))
        rest_BChw = torch.cat(rest_BChws) if rest_BChws else torch.empty(0)
        return EncodedBatch(
            rest_BChw,
            batch.group_B,
            batch.names,
            batch.places,
            batch.failed,
            list(batch.completed_blocks),
        )

    def add(self, batch: EncodedBatch, progress: Progress) -> None:
        """Assign a batch's latents to the codes and add its sums to the progress.

        On a GPU this does not wait for the batch: latents that are not finite are found with the next.

        Raises:
            EntropyCliError: latents that are not finite.
        """
        tally, temperatures = progress.tally, progress.temperatures
        assert tally is not None and temperatures is not None
        images, sums_bytes = len(batch.names), 8 * tally.soft_GSTE[0].numel()

        def assign_scale(scale: int, z_BlC: Tensor) -> ImageSums:
            return assign(z_BlC, self.tokenizer.codebook(scale), temperatures[scale])

        def add(part: slice) -> None:
            names = batch.names[part]
            if not names:  # padding
                return
            quantized = self.quantize_scales(batch.rest_BChw[part], names, assign_scale)
            sums = [scale_sums.first(len(names)) for _, scale_sums in quantized]
            self.check_finite(keep=self.device.type == "cuda")
            if self.write_tokens is not None:
                self.write_tokens(batch.places[part], torch.cat([s.idx_Bl for s in sums], 1).cpu())
            progress.half_added = True
            group_B = batch.group_B[part].to(self.device, non_blocking=True)
            try:
                for accumulator in progress.accumulators.values():
                    accumulator.add(group_B, sums)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise EntropyCliError(  # not to be tried again: some of it may have been added
                    f"{self.device}: not enough memory to add up the codes' sums. Run the same command "
                    "again with a smaller --batch-size: it resumes from what was saved."
                ) from error

        most = max(1, MOST_SUMS_BYTES // sums_bytes)
        self._in_slices(len(batch.rest_BChw), most, add)
        progress.images += images
        progress.failed += batch.failed
        progress.blocks_done[batch.completed_blocks] = True
        progress.half_added = False

    def quantize_scales(
        self,
        rest_BChw: Tensor,
        names: list[str],
        assign_scale: Callable[[int, Tensor], ImageSums],
    ) -> Iterator[tuple[Tensor, ImageSums]]:
        """Yield the vectors of each scale and their sums, subtracting hard tokens on the way down.

        Whether they are finite is known after the next `check_finite`.
        """
        last = len(self.tokenizer.spec.scales) - 1
        finite_SB = []
        for scale in range(last + 1):
            z_BlC = self.tokenizer.vectors(rest_BChw, scale)
            sums = assign_scale(scale, z_BlC)
            # Not of z alone: the square of a number that is finite may not be.
            sums_BX = [sums.min_distance_B[:, None], sums.distance_BT, sums.entropy_BT]
            finite_SB.append(torch.cat([*sums_BX, sums.varentropy_BT], dim=1).isfinite().all(dim=1))
            yield z_BlC, sums
            if scale < last:
                rest_BChw = self.tokenizer.subtract(rest_BChw, sums.idx_Bl, scale)
        flags = _FiniteFlags(torch.stack(finite_SB).to("cpu", non_blocking=True), names)
        if self.device.type == "cuda":
            flags.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            flags.arrived.record()
        self._flags.append(flags)

    def check_finite(self, *, keep: bool = False) -> None:
        """Check the images quantized so far, with `keep` all but the last batch.

        Raises:
            EntropyCliError: naming the first image whose latents are not finite.
        """
        while len(self._flags) > keep:
            flags = self._flags[0]  # a bad one stays, so that nothing is saved after it
            if flags.arrived is not None:
                flags.arrived.synchronize()
            bad_XY = (~flags.finite_SB[:, : len(flags.names)]).nonzero()
            if len(bad_XY):
                spec, (scale, image) = self.tokenizer.spec, bad_XY[0].tolist()
                advice = "Expected numbers whose squares float32 holds."
                if spec.image_size is not None:
                    advice = (
                        "The checkpoint is damaged, or the precision too low for it: try another "
                        "--precision."
                    )
                raise EntropyCliError(
                    f"{flags.names[image]}: its latents at scale {scale} ({spec.scales[scale].name}) "
                    f"are NaN or infinite, or too large. {advice}"
                )
            self._flags.popleft()

    def _in_slices(self, images: int, most: int, work: Callable[[slice], Outcome]) -> list[Outcome]:
        """Apply a function to slices of a batch, to smaller ones once memory runs out."""
        outcomes: list[Outcome] = []
        start = 0
        while start < images:
            at_once = min(most, images - start, self.max_images)
            part = slice(start, start + at_once)
            try:
                outcomes.append(work(part))
                start = part.stop
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(at_once)  # outside the handler, where nothing holds the tensors that failed
        return outcomes

    def _halve(self, at_once: int) -> None:
        if at_once == 1:
            raise EntropyCliError(
                f"{self.device}: not enough memory for a single image. "
                "Use a smaller --image-size or another --device."
            )
        self.max_images = at_once // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "%s is out of memory: from now on %d images at once", self.device, self.max_images
        )


def _padded(input_B: Tensor, images: int) -> Tensor:
    """Pad a batch to so many images with copies of its first."""
    missing = max(0, images - len(input_B))
    return torch.cat([input_B, *[input_B[:1]] * missing]) if missing else input_B


def _concatenated(parts: list[EncodedBatch]) -> EncodedBatch:
    if len(parts) == 1:
        return parts[0]
    rest_BChws = [part.rest_BChw for part in parts if part.names]
    return EncodedBatch(
        torch.cat(rest_BChws) if rest_BChws else torch.empty(0),
        torch.cat([part.group_B for part in parts]),
        [name for part in parts for name in part.names],
        [place for part in parts for place in part.places],
        [failed for part in parts for failed in part.failed],
        parts[-1].completed_blocks,
    )
