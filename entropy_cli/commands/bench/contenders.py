"""The contenders of a benchmark: the stages as the program and as the baseline compute them."""

import contextlib
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entropy_cli.commands.bench.baseline import PlainLoop
from entropy_cli.commands.bench.roofline import Work, count_work, measure_peak
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

LEAST_DECODED = 128  # images, so that starting the loader hardly counts


@dataclass(frozen=True)
class Workload:
    """The images and the tokenizer to time, with the settings of the pass."""

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
        """Return a processor with the tokenizer on the device, and the images."""
        device = torch.device(self.device)
        loaded = load_tokenizer(self.checkpoint, self.family, self.tokenizer)
        processor = BatchProcessor(loaded.tokenizer.to(device, precision), device, self.batch_size)
        return processor, find_images(self.data, limit=self.images)


@dataclass(frozen=True)
class Assignments:
    """Assignment entropies and hard tokens, as arrays that can be sent between processes."""

    entropy_ST: np.ndarray
    idx_BL: np.ndarray


class Contender:
    """One implementation of the stages, with their inputs prepared before they are timed."""

    def __init__(self, workload: Workload, precision: Precision) -> None:
        self.workload = workload
        self.processor, self.images = workload.load(precision)
        self.device, self.tokenizer = self.processor.device, self.processor.tokenizer
        self.repeats = -(-LEAST_DECODED // len(self.images.files))
        # The workers start here: forking after much computation would copy its memory.
        self.loader = self._loader()
        batches = [batch.input_B for batch in read_batches(self.loader)]
        self.img_B3HW = torch.cat(batches).to(self.device)
        self.repeated_loader = self._loader(self.repeats)
        next(read_batches(self.repeated_loader))
        if not len(self.img_B3HW):
            raise EntropyCliError(f"{workload.data}: none of the first images can be read.")
        self.latent_batches = self._encode()

    def _loader(self, repeats: int = 1) -> Loader:
        """Open a loader that reads all images `repeats` times."""
        images = len(self.images.files)
        plans = plan_batches(images, self.workload.batch_size, range(number_of_blocks(images)))
        source = CroppedImages(self.images, self.tokenizer.spec.crop.apply)
        return open_loader(source, plans * repeats, workers=self.workload.workers, persistent=True)

    def _encode(self) -> list[Tensor]:
        return [
            self.tokenizer.encode(img) for img in torch.split(self.img_B3HW, self.workload.batch_size)
        ]

    def encoder(self) -> None:
        """Encode all images."""
        self._encode()

    def latents(self) -> np.ndarray:
        """Return the latents f_BChw of all images."""
        return torch.cat(self.latent_batches).cpu().numpy()

    def peak_bytes(self) -> int:
        """Return the peak memory of the process; on a GPU, torch's peak allocation there."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class EntropyCli(Contender):
    """The program, as in `estimate`."""

    def __init__(self, workload: Workload) -> None:
        if workload.device == "cpu":
            keep_freed_memory()
        super().__init__(workload, workload.precision)

    def decode(self) -> None:
        """Decode all images in the workers, `repeats` times."""
        for _ in read_batches(self.repeated_loader):
            pass

    def quantiser(self) -> None:
        """Assign the latents of all images and add them to a tally, block by block."""
        progress = self._progress()
        at_once = max(BLOCK, self.workload.batch_size)
        for rest_BChw in torch.split(torch.cat(self.latent_batches), at_once):
            names = ["" for _ in rest_BChw]
            group_B = torch.arange(len(names)) % GROUPS
            self.processor.add(EncodedBatch(rest_BChw, group_B, names, [], [], []), progress)
        self.processor.check_finite()

    def end_to_end(self) -> None:
        """Decode, encode and assign all images, from files to a tally."""
        progress = self._progress()
        with contextlib.closing(prefetch(read_batches(self.loader), self.device)) as batches:
            for batch in self.processor.encode(batches):
                self.processor.add(batch, progress)
        self.processor.check_finite()

    def _progress(self) -> Progress:
        spec, temperatures = self.tokenizer.spec, list(self.workload.temperatures)
        progress = Progress.start(number_of_blocks(len(self.images.files)))
        progress.temperatures = [temperatures for _ in spec.scales]
        progress.allocate(sums_layout(spec.scales, GROUPS, len(temperatures)), self.device)
        return progress

    def assign(self, f_BChw: np.ndarray) -> Assignments:
        """Assign latents to codes."""
        rest_BChw = torch.from_numpy(f_BChw).to(self.device)
        names = ["" for _ in f_BChw]
        codebook, temperatures = self.tokenizer.codebook, self.workload.temperatures
        sums = [
            scale_sums
            for _, scale_sums in self.processor.quantize_scales(
                rest_BChw, names, lambda s, z_BlC: assign(z_BlC, codebook(s), temperatures)
            )
        ]
        entropy_ST = torch.stack([s.entropy_BT.mean(0) / s.tokens for s in sums])
        idx_BL = torch.cat([s.idx_Bl for s in sums], 1)
        return Assignments(entropy_ST.cpu().numpy(), idx_BL.cpu().numpy())

    def counts(self) -> dict[str, Any]:
        """Return the least work per image, the device's peaks, and the tokenizer's sizes."""
        one = self.img_B3HW[:1]
        tokenizer, spec = self.tokenizer, self.tokenizer.spec
        tokens = sum(scale.tokens for scale in spec.scales)
        logits = tokens * spec.vocab_size
        return {
            "encoder": count_work(lambda: tokenizer.encode(one)),
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


class Baseline(Contender):
    """The plain loop; on a GPU with TF32 convolutions, torch's default."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload, "fp32" if workload.device == "cpu" else "tf32")
        self.loop = PlainLoop(self.tokenizer, workload.temperatures)
        self.latent_batches = self._encode()

    def decode(self) -> None:
        """Decode all images one by one, `repeats` times."""
        for _ in range(self.repeats):
            self.loop.decode(self.images, range(len(self.images.files)))

    def quantiser(self) -> None:
        """Assign the latents of all images, batch by batch."""
        for rest_BChw in self.latent_batches:
            self.loop.quantise(rest_BChw)

    def end_to_end(self) -> None:
        """Decode, encode and assign all images, batch by batch."""
        images = len(self.images.files)
        for start in range(0, images, self.workload.batch_size):
            stop = min(images, start + self.workload.batch_size)
            img_B3HW = self.loop.decode(self.images, range(start, stop)).to(self.device)
            self.loop.quantise(self.tokenizer.encode(img_B3HW))

    def assign(self, f_BChw: np.ndarray) -> Assignments:
        """Assign latents to codes."""
        rest_BChw = torch.from_numpy(f_BChw).to(self.device)
        entropy_ST, _, idx_BL = self.loop.quantise(rest_BChw)
        return Assignments(entropy_ST.cpu().numpy(), idx_BL.cpu().numpy())
