"""The loop: batches of pictures through the tokenizer into the tally."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from entropy_cli.data.loader import BLOCK, Batch
from entropy_cli.engine.progress import Progress
from entropy_cli.engine.runtime import Signals, is_out_of_memory
from entropy_cli.errors import DatasetError, EntropyCliError
from entropy_cli.functional.assign import ImageSums, assign
from entropy_cli.functional.tally import Tally
from entropy_cli.functional.temperature import fit_temperature
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.precision import products

logger = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")

PILOT_BLOCKS = 1024 // BLOCK  # the images of the global order that `--temperature auto` is fitted to
SAVE_EVERY_S = 60.0


@dataclass
class Hooks:
    """What the caller wants to be told, and when.

    Attributes:
        save: is given the progress every `save_every_s` seconds, when interrupted and at the end.
        save_every_s: seconds between saves.
        advance: is given the number of images that went through the encoder.
        stage: is given words for what is going on; "" for the loop itself.
        fail_at_first: stop at the first unreadable image.
    """

    save: Callable[[Progress], None] = lambda _: None
    save_every_s: float = SAVE_EVERY_S
    advance: Callable[[int], object] = lambda _: None
    stage: Callable[[str], object] = lambda _: None
    fail_at_first: bool = False


@dataclass(frozen=True)
class Encoded:
    """A batch without its pictures, but with (group_B, z_SBlC) of each piece: the vectors of all scales.

    The vectors are on the CPU, filled up as the batch was: what is formed from them later rounds as if
    it had been formed at once.
    """

    batch: Batch
    pieces: list[tuple[Tensor, list[Tensor]]]


class Estimator:
    """Runs pictures through a tokenizer, as many at once as memory allows."""

    def __init__(self, tokenizer: Tokenizer, device: torch.device, batch_size: int, groups: int) -> None:
        self.tokenizer, self.device, self.groups = tokenizer.to(device, "fp32"), device, groups
        self.most_at_once = batch_size
        # Batches of several blocks are filled up to one shape: kernels round by shape, and how many
        # blocks are left for the last batch depends on where a run was cut.
        blocks = batch_size // BLOCK
        self.fill = blocks * BLOCK if blocks > 1 else 0

    @torch.inference_mode()
    @products(tf32=False)
    def run(
        self,
        batches: Iterable[Batch],
        progress: Progress,
        temperatures: list[float] | None,
        hooks: Hooks,
        signals: Signals,
    ) -> None:
        """Read every batch into the progress.

        Args:
            batches: of the blocks that are not done, in order.
            progress: where to go on from; changed in place.
            temperatures: the same for all scales; None fits one for each scale to the first images.
            hooks: saving and reporting.
            signals: held while the progress changes.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the progress was saved.
            EntropyCliError: what made it stop; the progress was saved.
        """
        items: Iterator[Batch | Encoded] = _readable(batches, hooks)
        try:
            if progress.temperatures is None and temperatures is not None:
                progress.temperatures = [temperatures for _ in self.tokenizer.spec.scales]
            elif progress.temperatures is None:
                items = chain(self._fit_temperatures(items, progress, hooks), items)
            self._tally(items, progress, hooks, signals)
        finally:
            if not progress.changing:
                with signals.held():
                    hooks.save(progress)

    def _tally(
        self, items: Iterator[Batch | Encoded], progress: Progress, hooks: Hooks, signals: Signals
    ) -> None:
        spec = self.tokenizer.spec
        assert progress.temperatures is not None
        if progress.tally is None:
            tokens_S = [scale.tokens for scale in spec.scales]
            temperatures = len(progress.temperatures[0])
            progress.tally = Tally.zeros(self.groups, tokens_S, temperatures, spec.vocab_size)
        progress.tally = progress.tally.to(self.device)
        saved = time.monotonic()
        block: list[tuple[Tensor, list[ImageSums]]] = []
        failed: list[tuple[str, str]] = []
        for item in items:
            block += self._assign(item, progress.temperatures, hooks)
            batch = item.batch if isinstance(item, Encoded) else item
            failed += batch.failed
            if not batch.completes:  # a block counts when all of it is there
                continue
            with signals.held():
                progress.changing = True
                for group_B, sums in block:
                    progress.tally.add_images(group_B, sums)
                progress.failed += failed
                progress.blocks_done[batch.completes] = True
                progress.note_history()
                progress.changing = False
                if time.monotonic() - saved >= hooks.save_every_s:
                    hooks.save(progress)
                    saved = time.monotonic()
            block, failed = [], []

    def _assign(
        self, item: Batch | Encoded, temperatures: list[list[float]], hooks: Hooks
    ) -> list[tuple[Tensor, list[ImageSums]]]:
        """Groups and sums of the pieces of a batch."""

        def assign_scale(scale: int, z_BlC: Tensor) -> ImageSums:
            z_BlC = z_BlC.to(self.device)
            return assign(z_BlC, self.tokenizer.codebook(scale), temperatures[scale])

        def assign_pictures(img_B3HW: Tensor, names: list[str]) -> list[ImageSums]:
            walk = self._scales(img_B3HW, names, assign_scale)
            return [sums.first(len(names)) for _, sums in walk]

        if isinstance(item, Encoded):
            return [
                (group_B, [assign_scale(s, z).first(len(group_B)) for s, z in enumerate(z_SBlC)])
                for group_B, z_SBlC in item.pieces
            ]
        return self._in_pieces(item, assign_pictures, hooks)

    def _scales(
        self,
        img_B3HW: Tensor,
        names: list[str],
        assign_scale: Callable[[int, Tensor], ImageSums],
    ) -> Iterator[tuple[Tensor, ImageSums]]:
        """At each scale the vectors and their sums, going down the residual by the hard tokens."""
        rest_BChw = self.tokenizer.encode(img_B3HW)
        last = len(self.tokenizer.spec.scales) - 1
        finite_SB = []
        for scale in range(last + 1):
            z_BlC = self.tokenizer.vectors(rest_BChw, scale)
            sums = assign_scale(scale, z_BlC)
            # Not of z alone: the square of a number that is finite may not be.
            sums_BX = torch.cat([sums.min_distance_B[:, None], sums.distance_BT, sums.entropy_BT], dim=1)
            finite_SB.append(sums_BX.isfinite().all(dim=1))
            yield z_BlC, sums
            if scale < last:
                rest_BChw = self.tokenizer.subtract(rest_BChw, sums.idx_Bl, scale)
        bad_XY = (~torch.stack(finite_SB)).nonzero()  # one wait for the device, not one a scale
        if len(bad_XY):
            scale, image = bad_XY[0].tolist()
            raise EntropyCliError(
                f"{names[image % len(names)]}: its latents at scale {scale} "
                f"({self.tokenizer.spec.scales[scale].name}) are NaN or infinite, "
                "or too large. The checkpoint is damaged, or the precision too low for it."
            )

    def _in_pieces(
        self, batch: Batch, work: Callable[[Tensor, list[str]], Outcome], hooks: Hooks
    ) -> list[tuple[Tensor, Outcome]]:
        """Do work on a batch, in smaller pieces from the day that memory runs out.

        Work is given pictures, filled up to a constant number where that matters, and the names of
        those that count.
        """
        outcomes: list[tuple[Tensor, Outcome]] = []
        start = 0
        while start < len(batch.names):
            piece = slice(start, start + self.most_at_once)
            img_B3HW, names = batch.img_B3HW[piece], batch.names[piece]
            images = len(names)
            missing = max(0, min(self.fill, self.most_at_once) - images)
            try:
                if missing:
                    img_B3HW = torch.cat([img_B3HW, img_B3HW[:1].expand(missing, -1, -1, -1)])
                outcome = work(img_B3HW.to(self.device, non_blocking=True), names)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                outcome = None
            if outcome is None:  # outside the handler, where nothing holds the tensors that failed
                self._halve()
                continue
            outcomes.append((batch.group_B[piece].to(self.device), outcome))
            start += images
            hooks.advance(images)
        hooks.advance(len(batch.failed))
        return outcomes

    def _halve(self) -> None:
        if self.most_at_once == 1:
            raise EntropyCliError(
                f"{self.device}: not enough memory for a single image. "
                "Use a smaller --image-size or another --device."
            )
        self.most_at_once //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "%s is out of memory: going on with %d images at once", self.device, self.most_at_once
        )

    def _fit_temperatures(
        self, items: Iterator[Batch | Encoded], progress: Progress, hooks: Hooks
    ) -> Iterator[Encoded]:
        """Encode the first images, fit a temperature for each scale to them, and give them on."""
        scales = self.tokenizer.spec.scales

        def assign_hard(scale: int, z_BlC: Tensor) -> ImageSums:
            return assign(z_BlC, self.tokenizer.codebook(scale), ())

        def vectors(img_B3HW: Tensor, names: list[str]) -> list[Tensor]:
            walk = self._scales(img_B3HW, names, assign_hard)
            return [z_BlC.cpu() for z_BlC, _ in walk]

        hooks.stage("pilot for the temperature")
        encoded = []
        last = min(PILOT_BLOCKS, len(progress.blocks_done)) - 1
        for batch in items:
            assert isinstance(batch, Batch)
            pieces = self._in_pieces(batch, vectors, hooks)
            encoded.append(Encoded(replace(batch, img_B3HW=torch.empty(0)), pieces))
            if batch.completes and batch.completes[-1] >= last:
                break
        all_pieces = [piece for item in encoded for piece in item.pieces]
        if not all_pieces:
            raise DatasetError("temperature auto: none of the first images could be read.")
        fits = []
        for s in range(len(scales)):
            hooks.stage(f"fitting the temperature of scale {s + 1} of {len(scales)}")
            z_BlCs = [z_SBlC[s][: len(group_B)].to(self.device) for group_B, z_SBlC in all_pieces]
            fits.append(fit_temperature(z_BlCs, self.tokenizer.codebook(s)))
        hooks.stage("")
        progress.temperatures = [[fit.value] for fit in fits]
        progress.pilot = {
            "images": sum(len(item.batch.names) for item in encoded),
            "hard": [fit.hard for fit in fits],
            "steps": [fit.steps for fit in fits],
            "ended": [fit.ended for fit in fits],
        }
        return iter(encoded)


def _readable(batches: Iterable[Batch], hooks: Hooks) -> Iterator[Batch]:
    """Say which images can't be read, or stop at the first."""
    for batch in batches:
        for path, reason in batch.failed:
            if hooks.fail_at_first:
                raise DatasetError(f"{path}: can't be read: {reason}. Stopped by --on-error fail.")
            logger.warning("unreadable: %s: %s", path, reason)
        yield batch
