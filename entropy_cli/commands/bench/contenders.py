"""The contenders of a benchmark: the stages as the program and as the baseline compute them."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from entropy_cli.commands.bench.baseline import PlainLoop
from entropy_cli.commands.bench.result import Workload
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.tally import Tally
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import GROUPS, find_images
from entropy_cli.images.loader import Batch, open_loader, read_batches
from entropy_cli.images.plan import BLOCK, number_of_blocks, plan_batches
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import keep_freed_memory
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.reader import prefetch
from entropy_cli.tokenizers.base import sums_layout
from entropy_cli.tokenizers.precision import Precision
from entropy_cli.tokenizers.registry import Loaded, load_tokenizer

LEAST_DECODED = 128  # images, so that starting the loader hardly counts


class Contender:
    """One implementation of the stages, each a method without arguments; `encoder` makes the latents."""

    latent_batches: list[Tensor]

    def __init__(self, workload: Workload, precision: Precision) -> None:
        self.workload, self.device = workload, torch.device(workload.device)
        self.tokenizer = self.load().tokenizer.to(self.device, precision)
        self.images = find_images(workload.data, limit=workload.images)
        blocks = range(number_of_blocks(len(self.images)))
        self.plans = plan_batches(len(self.images), workload.batch_size, blocks)
        self.repeats = -(-LEAST_DECODED // len(self.images))
        source = CroppedImages(self.images, self.tokenizer.spec.crop.apply)
        # The workers start here: forking after much computation would copy its memory.
        self.loader, self.repeated_loader = (
            open_loader(source, self.plans * n, workers=workload.workers, persistent=True)
            for n in (1, self.repeats)
        )
        next(read_batches(self.repeated_loader))
        img_B3HWs = [batch.input_B for batch in read_batches(self.loader) if batch.names]
        if not img_B3HWs:
            raise EntropyCliError(f"{workload.data}: none of the first images can be read.")
        self.img_B3HW = torch.cat(img_B3HWs).to(self.device)

    def load(self) -> Loaded:
        """Open the checkpoint and build its tokenizer."""
        return load_tokenizer(self.workload.checkpoint, self.workload.family, self.workload.tokenizer)

    def encoder(self) -> None:
        """Encode all images."""
        batches = torch.split(self.img_B3HW, self.workload.batch_size)
        self.latent_batches = [self.tokenizer.encode(img_B3HW) for img_B3HW in batches]


class EntropyCli(Contender):
    """The program, as in `estimate`."""

    def __init__(self, workload: Workload) -> None:
        if workload.device == "cpu":
            keep_freed_memory()
        super().__init__(workload, workload.precision)
        self.processor = BatchProcessor(self.tokenizer, self.device, workload.batch_size)

    def load(self) -> Loaded:
        """Open the checkpoint, build its tokenizer and hash its bytes."""
        loaded = super().load()
        loaded.checkpoint.sha256()
        return loaded

    def decode(self) -> None:
        """Decode all images in the workers, `repeats` times."""
        for _ in read_batches(self.repeated_loader):
            pass

    def quantiser(self) -> None:
        """Assign the latents of all images and add them to a tally, block by block."""
        self._add(self._encoded(torch.cat(self.latent_batches)))

    def end_to_end(self) -> None:
        """Decode, encode and assign all images, from files to a tally."""
        with contextlib.closing(prefetch(read_batches(self.loader), self.device)) as batches:
            self._add(self.processor.encode(batches))

    def assign(self, f_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Assign latents to codes; return assignment entropies (S, T) and hard tokens (B, L)."""
        idx_BLs: list[Tensor] = []
        self.processor.write_tokens = lambda _, idx_BL: idx_BLs.append(idx_BL)
        tally = self._add(self._encoded(f_BChw))
        entropy_ST = tally.entropy_GST.sum(0) / (len(f_BChw) * tally.tokens_S[:, None])
        return entropy_ST, torch.cat(idx_BLs).to(self.device)

    def _encoded(self, f_BChw: Tensor) -> Iterator[Batch]:
        for rest_BChw in torch.split(f_BChw, max(BLOCK, self.workload.batch_size)):
            group_B = torch.arange(len(rest_BChw)) % GROUPS
            yield Batch(rest_BChw, group_B, [""] * len(rest_BChw), [], [], ())

    def _add(self, batches: Iterable[Batch]) -> Tally:
        scales, temperatures = self.tokenizer.spec.scales, list(self.workload.temperatures)
        progress = Progress.start(number_of_blocks(len(self.images)))
        progress.temperatures = [temperatures for _ in scales]
        progress.allocate(sums_layout(scales, GROUPS, len(temperatures)), self.device)
        for batch in batches:
            self.processor.add(batch, progress)
        self.processor.check_finite()
        assert progress.tally is not None
        return progress.tally


class Baseline(Contender):
    """The plain loop; on a GPU with TF32 convolutions, torch's default."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload, "fp32" if workload.device == "cpu" else "tf32")
        self.loop = PlainLoop(self.tokenizer, workload.temperatures)

    def decode(self) -> None:
        """Decode all images one by one, `repeats` times."""
        for plan in self.plans * self.repeats:
            self.loop.decode(self.images, plan)

    def quantiser(self) -> None:
        """Assign the latents of all images, batch by batch."""
        for rest_BChw in self.latent_batches:
            self.loop.quantise(rest_BChw)

    def end_to_end(self) -> None:
        """Decode, encode and assign all images, batch by batch."""
        for plan in self.plans:
            img_B3HW = self.loop.decode(self.images, plan).to(self.device)
            self.loop.quantise(self.tokenizer.encode(img_B3HW))
