"""The work of one process on a batch: encode it, assign it to the codes, add it to the sums."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Grid
from entropy_cli.entropy.loss_tally import ImageLosses
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.images.loader import Batch, joined
from entropy_cli.images.plan import BLOCK
from entropy_cli.images.uniforms import uniforms
from entropy_cli.streaming.device import is_out_of_memory
from entropy_cli.streaming.given_tokens import GivenTokens
from entropy_cli.streaming.pending import Pending
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.scorer import Scorer
from entropy_cli.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")
# Advice that only the command line can follow.
SMALLER_BATCHES = (
    "Run the same command again with a smaller --batch-size: it resumes from what was saved."
)
MOST_SUMS_BYTES = 2**27  # of per-image sums over the codes that are held at once


@dataclass
class BatchProcessor:
    """Runs images through a tokenizer, as many at once as memory allows.

    `write_tokens` is called with the places of images and their tokens idx_BL, scale after scale. With a
    `scorer` a generator's losses are added up too. Inputs may be tokens, from a `GivenTokens`: then
    nothing is assigned.
    """

    tokenizer: Tokenizer  # on the device
    device: torch.device
    batch_size: int  # the most images in the encoder at once
    advance: Callable[[int], object] = lambda _: None  # called with the number of images encoded
    write_tokens: Callable[[list[int], Tensor], object] | None = None
    draw_seed: int | None = None  # of tokens drawn from q; None takes the nearest codes
    scorer: Scorer | None = None
    unreported_images: int = 0  # encoded since the processes of the run last met
    max_images: int = sys.maxsize  # at once; lowered when memory runs out

    def __post_init__(self) -> None:
        """Decide the shape of batches."""
        self._pending: deque[Pending] = deque()
        # Batches of several blocks are filled up to one shape: kernels round by shape, and how many
        # blocks are left for the last batch depends on where a run was cut.
        blocks = self.batch_size // BLOCK
        self.padded_size = blocks * BLOCK if blocks > 1 else 0

    def through(self, tokenizer: Tokenizer) -> "BatchProcessor":
        """Return one for single blocks that runs them through another tokenizer, and draws the same."""
        size = min(BLOCK, self.batch_size)
        return BatchProcessor(tokenizer, self.device, size, draw_seed=self.draw_seed)

    def encode(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Replace the images of batches by latents, and join batches that hold parts of one block."""
        parts: list[Batch] = []
        for batch in batches:
            parts.append(replace(batch, input_B=self._encode(batch)))
            if batch.completed_blocks:
                yield joined(parts)
                parts = []

    def _encode(self, batch: Batch) -> Tensor:
        """Return the latents of a batch; copies of its first image fill it up."""
        images, input_B = len(batch.names), batch.input_B
        if 0 < images < self.padded_size:
            input_B = torch.cat([input_B, *[input_B[:1]] * (self.padded_size - images)])

        def encode(part: slice) -> Tensor:
            return self.tokenizer.encode(input_B[part].to(self.device, non_blocking=True))

        rest_BChws = self._in_slices(len(input_B), self.batch_size, encode)
        self.unreported_images += images + len(batch.failed)
        self.advance(images + len(batch.failed))
        return torch.cat(rest_BChws) if rest_BChws else torch.empty(0)

    def add(self, batch: Batch, progress: Progress) -> None:
        """Assign a batch's latents to the codes and add its sums to the progress.

        On a GPU this does not wait for the batch: its latents are checked, and its tokens written, with
        the next.

        Raises:
            EntropyCliError: latents that are not finite, or outside the levels.
        """
        temperatures = progress.temperatures
        assert temperatures is not None

        def add(part: slice) -> None:
            names = batch.names[part]
            if not names:  # padding
                return
            sums, losses = self._sums(batch, part, temperatures, progress.nats_N)
            self.finish_batches(keep_last=self.device.type == "cuda")
            group_B = batch.group_B[part].to(self.device, non_blocking=True)
            progress.half_added = True
            try:
                if progress.tally is not None:
                    progress.tally.add(group_B, [scale_sums.first(len(names)) for scale_sums in sums])
                if progress.losses is not None and losses is not None:
                    progress.losses.add(group_B, losses.first(len(names)))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise EntropyCliError(  # not to be tried again: some of it may have been added
                    f"{self.device}: not enough memory to add up the codes' sums. {SMALLER_BATCHES}"
                ) from error

        an_image = 8 * (1 if progress.tally is None else progress.tally.soft_GSTE[0].numel())
        most = max(1, MOST_SUMS_BYTES // an_image)
        self._in_slices(len(batch.input_B), most, add)
        progress.images += len(batch.names)
        if batch.digests:
            progress.digest_N[batch.places] = torch.tensor(batch.digests)
        progress.failed += batch.failed
        progress.blocks_done[list(batch.completed_blocks)] = True
        progress.half_added = False

    def losses(self, batch: Batch, temperatures: Sequence[Sequence[float]]) -> ImageLosses:
        """Return the generator's losses of an encoded batch, without adding them to any sums."""
        at = temperatures if self.draw_seed is not None else [()] * len(temperatures)
        _, losses = self._sums(batch, slice(None), at, None)
        self.finish_batches()
        assert losses is not None
        return losses

    def _sums(
        self,
        batch: Batch,
        part: slice,
        temperatures: Sequence[Sequence[float]],
        nats_N: Tensor | None,
    ) -> tuple[list[ImageSums], ImageLosses | None]:
        """Return the sums of some images at every scale, and the generator's losses, if there is one.

        The next `finish_batches` puts the loss of each image into `nats_N`, at its place.
        """
        names, places = batch.names[part], batch.places[part]
        sums: list[ImageSums] = []
        z_SBlC: list[Tensor] = []
        if isinstance(self.tokenizer, GivenTokens):
            idx_BL = batch.input_B[part].to(self.device)
            none_1B = torch.zeros(1, len(names))
            self._pending.append(Pending(names, places, none_1B, None, self._arrival()))
        else:
            written = places if self.write_tokens is not None else None
            for z_BlC, sums_at in self.quantize_scales(
                batch.input_B[part], names, temperatures, written
            ):
                z_SBlC.append(z_BlC)
                sums.append(sums_at)
            idx_BL = torch.cat([sums_at.idx_Bl for sums_at in sums], 1)
        if self.scorer is None:
            return sums, None
        losses, pending = self.scorer.score(places, idx_BL, z_SBlC, temperatures), self._pending[-1]
        pending.places, pending.nats_N = places, nats_N
        pending.nats_B = losses.nats_B[: len(names)].to("cpu", non_blocking=True)
        if pending.arrived is not None:
            pending.arrived.record()
        return sums, losses

    def quantize_scales(
        self,
        rest_BChw: Tensor,
        names: list[str],
        temperatures: Sequence[Sequence[float]],
        places: list[int] | None = None,
    ) -> Iterator[tuple[Tensor, ImageSums]]:
        """Yield the vectors of each scale and their sums at the scale's temperatures.

        Tokens are subtracted on the way down: the nearest codes, or with a `draw_seed` those drawn at
        the scale's first temperature, if it has one. The next `finish_batches` checks the latents, and
        writes the tokens if the images' places are given.
        """
        last = len(self.tokenizer.spec.scales) - 1
        uniform_SBl = self._uniforms(names, len(rest_BChw))
        beyond_SB, idx_Bls = [], []
        for scale in range(last + 1):
            z_BlC, codebook = self.tokenizer.vectors(rest_BChw, scale), self.tokenizer.codebook(scale)
            uniform_Bl = uniform_SBl[scale] if uniform_SBl and temperatures[scale] else None
            sums = assign(z_BlC, codebook, temperatures[scale], uniform_Bl=uniform_Bl)
            # Not of z alone: the square of a number that is finite may not be.
            sums_BX = [sums.min_distance_B[:, None], sums.distance_BT, sums.entropy_BT]
            beyond_B = torch.cat([*sums_BX, sums.varentropy_BT], dim=1).mul_(0).sum(1)  # 0 or NaN
            if isinstance(codebook, Grid) and codebook.rule == "levels":
                beyond_B += codebook.overshoot(z_BlC)
            beyond_SB.append(beyond_B)
            idx_Bls.append(sums.idx_Bl)
            yield z_BlC, sums
            if scale < last:
                rest_BChw = self.tokenizer.subtract(rest_BChw, sums.idx_Bl, scale)
        on_cpu_SB = torch.stack(beyond_SB).to("cpu", non_blocking=True)
        idx_BL = None
        if places is not None:
            idx_BL = torch.cat(idx_Bls, 1)[: len(names)].to("cpu", non_blocking=True)
        self._pending.append(Pending(names, places or [], on_cpu_SB, idx_BL, self._arrival()))

    def _arrival(self) -> torch.cuda.Event | None:
        """Return an event on a GPU: once it has happened, all copies asked for so far are there."""
        if self.device.type != "cuda":
            return None
        # One that blocks leaves the core to the workers that decode.
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        arrived.record()
        return arrived

    def _uniforms(self, names: list[str], rows: int) -> Sequence[Tensor]:
        """Return the numbers that draw the tokens of each scale; those of rows that fill up are any."""
        if self.draw_seed is None:
            return ()
        tokens = [scale.tokens for scale in self.tokenizer.spec.scales]
        filled = [*names, *[""] * (rows - len(names))]
        uniform_BL = uniforms(filled, self.draw_seed, sum(tokens)).to(self.device, non_blocking=True)
        return torch.split(uniform_BL, tokens, 1)

    def finish_batches(self, *, keep_last: bool = False) -> None:
        """Check the images quantized so far and write their tokens; `keep_last` leaves the last batch.

        Raises:
            EntropyCliError: naming the first image whose latents are not finite, or outside the levels;
                or the tokens can't be written.
        """
        while len(self._pending) > keep_last:
            batch = self._pending[0]  # one that fails stays: nothing is saved after it
            if batch.arrived is not None:
                batch.arrived.synchronize()
            batch.check(self.tokenizer.spec)
            if batch.idx_BL is not None and self.write_tokens is not None:
                self.write_tokens(batch.places, batch.idx_BL)
            if batch.nats_B is not None and batch.nats_N is not None:
                batch.nats_N[batch.places] = batch.nats_B
            self._pending.popleft()

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
                said = str(error).partition("\n")[0].partition(". ")[0]
            # Outside the handler, where nothing holds the tensors that failed.
            self._halve(at_once, said)
        return outcomes

    def _halve(self, at_once: int, said: str) -> None:
        if at_once == 1:
            raise EntropyCliError(
                f"{self.device}: not enough memory for a single image ({said}). "
                "Use a smaller --image-size or another --device."
            )
        self.max_images = at_once // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "%s is out of memory: from now on %d images at once", self.device, self.max_images
        )
