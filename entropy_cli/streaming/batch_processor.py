"""One process's work: pictures through the tokenizer, in pieces that fit in memory, into the tally."""

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
    """One or several whole blocks whose pictures went through the encoder.

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
class _Flags:
    """Which images of a unit turned out finite, on their way from the device."""

    finite_SB: Tensor
    names: list[str]
    arrived: "torch.cuda.Event | None" = None


@dataclass
class BatchProcessor:
    """Runs pictures through a tokenizer, as many at once as memory allows.

    Attributes:
        tokenizer: on the device.
        device: where it runs.
        batch_size: the most pictures in the encoder at once.
        advance: is given the number of images that went through the encoder.
        keep_tokens: is given the places of images and their hard tokens idx_BL, scale after scale.
        fresh: how many did since the processes of the run last met.
    """

    tokenizer: Tokenizer
    device: torch.device
    batch_size: int
    advance: Callable[[int], object] = lambda _: None
    keep_tokens: Callable[[list[int], Tensor], object] | None = None
    fresh: int = 0
    _flags: deque[_Flags] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Start without knowing how much memory there is."""
        self.limit = sys.maxsize  # of images at once, from the day that memory runs out
        # Batches of several blocks are filled up to one shape: kernels round by shape, and how many
        # blocks are left for the last batch depends on where a run was cut.
        blocks = self.batch_size // BLOCK
        self.fill = blocks * BLOCK if blocks > 1 else 0

    def encode(self, batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
        """Latents of whole blocks, of as many batches as they take."""
        parts: list[EncodedBatch] = []
        for batch in batches:
            parts.append(self._encode(batch))
            if batch.completed_blocks:
                yield _joined(parts)
                parts = []

    def _encode(self, batch: Batch) -> EncodedBatch:
        images = len(batch.names)
        input_B = _filled(batch.input_B, self.fill if images else 0)

        def encode(part: slice) -> Tensor:
            return self.tokenizer.encode(input_B[part].to(self.device, non_blocking=True))

        rest_BChws = self._in_pieces(len(input_B), self.batch_size, encode)
        self.fresh += images + len(batch.failed)
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

    def add(self, unit: EncodedBatch, progress: Progress) -> None:
        """Assign a unit's latents to the codes and add what comes of it to the progress.

        On a GPU it does not wait for the unit: what is not finite there is found with the next one.

        Raises:
            EntropyCliError: latents that are not finite.
        """
        tally, temperatures = progress.tally, progress.temperatures
        assert tally is not None and temperatures is not None
        images, sums_bytes = len(unit.names), 8 * tally.soft_GSTE[0].numel()

        def assign_scale(scale: int, z_BlC: Tensor) -> ImageSums:
            return assign(z_BlC, self.tokenizer.codebook(scale), temperatures[scale])

        def add(part: slice) -> None:
            names = unit.names[part]
            if not names:  # what it was filled up with
                return
            walk = self.quantize_scales(unit.rest_BChw[part], names, assign_scale)
            sums = [of_scale.first(len(names)) for _, of_scale in walk]
            self.check_finite(keep=self.device.type == "cuda")
            if self.keep_tokens is not None:
                self.keep_tokens(unit.places[part], torch.cat([s.idx_Bl for s in sums], 1).cpu())
            progress.changing = True
            group_B = unit.group_B[part].to(self.device, non_blocking=True)
            try:
                for accumulator in progress.accumulators.values():
                    accumulator.add(group_B, sums)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise EntropyCliError(  # not to be tried again: some of it may have been added
                    f"{self.device}: not enough memory to add up the codes' sums. Run the same command "
                    "again with a smaller --batch-size: it goes on from what was saved."
                ) from error

        most = max(1, MOST_SUMS_BYTES // sums_bytes)
        self._in_pieces(len(unit.rest_BChw), most, add)
        progress.images += images
        progress.failed += unit.failed
        progress.blocks_done[unit.completed_blocks] = True
        progress.changing = False

    def quantize_scales(
        self,
        rest_BChw: Tensor,
        names: list[str],
        assign_scale: Callable[[int, Tensor], ImageSums],
    ) -> Iterator[tuple[Tensor, ImageSums]]:
        """At each scale the vectors and their sums, going down the residual by the hard tokens.

        Whether they are finite is known after the next `settle`.
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
        flags = _Flags(torch.stack(finite_SB).to("cpu", non_blocking=True), names)
        if self.device.type == "cuda":
            flags.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            flags.arrived.record()
        self._flags.append(flags)

    def check_finite(self, *, keep: bool = False) -> None:
        """Look at the flags that have come, or all but the last.

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

    def _in_pieces(self, images: int, most: int, work: Callable[[slice], Outcome]) -> list[Outcome]:
        """Do work on slices of a batch, in smaller ones from the day that memory runs out."""
        outcomes: list[Outcome] = []
        start = 0
        while start < images:
            at_once = min(most, images - start, self.limit)
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
        self.limit = at_once // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("%s is out of memory: going on with %d images at once", self.device, self.limit)


def _filled(input_B: Tensor, images: int) -> Tensor:
    """A batch filled up to so many images with its first."""
    missing = max(0, images - len(input_B))
    return torch.cat([input_B, *[input_B[:1]] * missing]) if missing else input_B


def _joined(parts: list[EncodedBatch]) -> EncodedBatch:
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
