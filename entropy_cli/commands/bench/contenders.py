"""What is timed: the stages as the program does them, and as the plain loop does."""

import contextlib
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entropy_cli.commands.bench.baseline import Plain
from entropy_cli.commands.bench.counts import Work, count, measure_peak
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.assign import assign
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import GROUPS, ImageSet, find_images
from entropy_cli.images.loader import Loader, open_loader, read_batches
from entropy_cli.images.plan import BLOCK, number_of_blocks, plan_batches
from entropy_cli.streaming.batch_processor import BatchProcessor, EncodedBatch
from entropy_cli.streaming.device import device_name, keep_freed_memory
from entropy_cli.streaming.prefetch import prefetch
from entropy_cli.streaming.progress import Progress
from entropy_cli.tokenizers.base import sums_layout
from entropy_cli.tokenizers.precision import DTYPES, Precision
from entropy_cli.tokenizers.registry import load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings

LEAST_DECODED = 128  # images, so that the start of a reading does not count for much


@dataclass(frozen=True)
class Workload:
    """What is timed: so many images of a folder through a checkpoint's tokenizer."""

    checkpoint: Path
    data: Path
    images: int
    batch_size: int
    workers: int
    device: str
    precision: Precision
    temperatures: tuple[float, ...]
    family: str = "auto"
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)

    def load(self, precision: Precision) -> tuple[BatchProcessor, ImageSet]:
        """The tokenizer on the device, and the images."""
        device = torch.device(self.device)
        loaded = load_tokenizer(self.checkpoint, self.family, self.tokenizer)
        worker = BatchProcessor(loaded.tokenizer.to(device, precision), device, self.batch_size)
        return worker, find_images(self.data, limit=self.images)


@dataclass(frozen=True)
class Assigned:
    """What a quantiser makes of latents, as arrays that travel between processes."""

    entropy_ST: np.ndarray
    idx_BL: np.ndarray


class Arm:
    """One way of doing the stages, with what each needs made ready before it is timed."""

    def __init__(self, workload: Workload, precision: Precision) -> None:
        self.workload = workload
        self.worker, self.images = workload.load(precision)
        self.device, self.tokenizer = self.worker.device, self.worker.tokenizer
        self.repeats = -(-LEAST_DECODED // len(self.images.files))
        # The workers start here: a fork of a process that has computed much already copies its memory.
        self.loader = self._loader()
        img_B3HWs = [batch.input_B for batch in read_batches(self.loader)]
        self.img_B3HW = torch.cat(img_B3HWs).to(self.device)
        self.often = self._loader(self.repeats)
        next(read_batches(self.often))
        if not len(self.img_B3HW):
            raise EntropyCliError(f"{workload.data}: none of the first images can be read.")
        self.rest_BChws = self._latents()

    def _loader(self, times: int = 1) -> Loader:
        """Reads all images so many times."""
        images = len(self.images.files)
        plans = plan_batches(images, self.workload.batch_size, range(number_of_blocks(images)))
        source = CroppedImages(self.images, self.tokenizer.spec.crop.apply)
        return open_loader(source, plans * times, workers=self.workload.workers, persistent=True)

    def _latents(self) -> list[Tensor]:
        return [
            self.tokenizer.encode(img) for img in torch.split(self.img_B3HW, self.workload.batch_size)
        ]

    def encoder(self) -> None:
        """All images through the encoder."""
        self._latents()

    def latents(self) -> np.ndarray:
        """Of all images."""
        return torch.cat(self.rest_BChws).cpu().numpy()

    def peak_bytes(self) -> int:
        """Largest memory of the process so far; on a GPU what torch had there."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Ours(Arm):
    """What `estimate` does."""

    def __init__(self, workload: Workload) -> None:
        if workload.device == "cpu":
            keep_freed_memory()
        super().__init__(workload, workload.precision)

    def decode(self) -> None:
        """All images read by the workers, several times."""
        for _ in read_batches(self.often):
            pass

    def quantiser(self) -> None:
        """The latents of all images into a tally, a block at a time."""
        progress = self._progress()
        at_once = max(BLOCK, self.workload.batch_size)
        for rest_BChw in torch.split(torch.cat(self.rest_BChws), at_once):
            names = ["" for _ in rest_BChw]
            group_B = torch.arange(len(names)) % GROUPS
            self.worker.add(EncodedBatch(rest_BChw, group_B, names, [], [], []), progress)
        self.worker.check_finite()

    def end_to_end(self) -> None:
        """From the files to a tally."""
        progress = self._progress()
        with contextlib.closing(prefetch(read_batches(self.loader), self.device)) as batches:
            for unit in self.worker.encode(batches):
                self.worker.add(unit, progress)
        self.worker.check_finite()

    def _progress(self) -> Progress:
        spec, temperatures = self.tokenizer.spec, list(self.workload.temperatures)
        progress = Progress.start(number_of_blocks(len(self.images.files)))
        progress.temperatures = [temperatures for _ in spec.scales]
        progress.allocate(sums_layout(spec.scales, GROUPS, len(temperatures)), self.device)
        return progress

    def assigned(self, latent_BChw: np.ndarray) -> Assigned:
        """What the quantiser makes of these latents."""
        rest_BChw = torch.from_numpy(latent_BChw).to(self.device)
        names = ["" for _ in latent_BChw]
        codebook, temperatures = self.tokenizer.codebook, self.workload.temperatures
        sums = [
            of_scale
            for _, of_scale in self.worker.quantize_scales(
                rest_BChw, names, lambda s, z_BlC: assign(z_BlC, codebook(s), temperatures)
            )
        ]
        entropy_ST = torch.stack([s.entropy_BT.mean(0) / s.tokens for s in sums])
        return Assigned(entropy_ST.cpu().numpy(), torch.cat([s.idx_Bl for s in sums], 1).cpu().numpy())

    def counts(self) -> dict[str, Any]:
        """What an image costs at least, and what the device can do."""
        one = self.img_B3HW[:1]
        tokenizer, spec = self.tokenizer, self.tokenizer.spec
        tokens = sum(scale.tokens for scale in spec.scales)
        logits = tokens * spec.vocab_size
        return {
            "encoder": count(lambda: tokenizer.encode(one)),
            # The distances, written and read once.
            "quantiser": Work(2.0 * logits * spec.latent_dim, 2.0 * 4 * logits),
            "peak_encoder": measure_peak(self.device, DTYPES[self.workload.precision]),
            "peak_quantiser": measure_peak(self.device, torch.float32),
            "device": device_name(self.device),
            "tokenizer": {
                name: getattr(spec, name)
                for name in ("family", "image_size", "patch_nums", "vocab_size", "latent_dim")
            },
        }


class PlainLoop(Arm):
    """The plain loop; on a GPU with the TF32 convolutions that torch does by itself."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload, "fp32" if workload.device == "cpu" else "tf32")
        self.plain = Plain(self.tokenizer, workload.temperatures)
        self.rest_BChws = self._latents()

    def decode(self) -> None:
        """All images, one after the other, several times."""
        for _ in range(self.repeats):
            self.plain.decode(self.images, range(len(self.images.files)))

    def quantiser(self) -> None:
        """The latents of all images, a batch at a time."""
        for rest_BChw in self.rest_BChws:
            self.plain.quantise(rest_BChw)

    def end_to_end(self) -> None:
        """From the files to the sums of a batch."""
        images = len(self.images.files)
        for start in range(0, images, self.workload.batch_size):
            stop = min(images, start + self.workload.batch_size)
            img_B3HW = self.plain.decode(self.images, range(start, stop)).to(self.device)
            self.plain.quantise(self.tokenizer.encode(img_B3HW))

    def assigned(self, latent_BChw: np.ndarray) -> Assigned:
        """What the plain quantiser makes of these latents."""
        rest_BChw = torch.from_numpy(latent_BChw).to(self.device)
        entropy_ST, _, idx_BL = self.plain.quantise(rest_BChw)
        return Assigned(entropy_ST.cpu().numpy(), idx_BL.cpu().numpy())
