"""The contenders of a benchmark: the stages as the program and as a plain loop compute them."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.commands.bench.generators import PlainForward, settings_for
from entropy_cli.commands.bench.result import Workload
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.tally import Tally
from entropy_cli.generators.base import Generator
from entropy_cli.generators.registry import load_generator
from entropy_cli.images.decode import CroppedImages, read_image
from entropy_cli.images.image_set import GROUPS, find_images
from entropy_cli.images.loader import Batch, Loader, open_loader, read_batches
from entropy_cli.images.plan import BLOCK, number_of_blocks, plan_batches
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import keep_freed_memory
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.reader import prefetch
from entropy_cli.streaming.scorer import Scorer
from entropy_cli.tokenizers.base import Tokenizer, sums_layout
from entropy_cli.tokenizers.layers.autoencoder import Encoder, ResnetBlock
from entropy_cli.tokenizers.precision import Precision
from entropy_cli.tokenizers.registry import Loaded, load_tokenizer

LEAST_DECODED = 128  # images, so that starting the loader hardly counts


class Contender:
    """One implementation of the stages, each a method without arguments; `encoder` makes the latents.

    `repeats` is how often the stages go over all images that do so more than once.
    """

    latent_batches: list[Tensor]

    def __init__(self, workload: Workload, precision: Precision) -> None:
        self.workload, self.device = workload, torch.device(workload.device)
        self.tokenizer = self.load().tokenizer.to(self.device, precision)
        self.images = find_images(workload.data, limit=workload.images)
        blocks = range(number_of_blocks(len(self.images)))
        self.plans = plan_batches(len(self.images), workload.batch_size, blocks)
        # A GPU would wait for the workers' first batches, which come late, if each made no second one.
        on_gpu = self.device.type == "cuda"
        least = 2 * workload.workers * workload.batch_size if on_gpu else 0
        decoded = -(-max(least, LEAST_DECODED) // len(self.images))
        self.repeats = {"decode": decoded, "end to end": decoded if on_gpu else 1}
        img_B3HWs = [img_B3HW for plan in self.plans if len(img_B3HW := self.read(plan))]
        if not img_B3HWs:
            raise EntropyCliError(f"{workload.data}: none of the first images can be read.")
        self.img_B3HW = torch.cat(img_B3HWs).to(self.device)
        self.model = None if workload.model is None else self.load_model(workload.model, precision)

    def load(self) -> Loaded:
        """Open the checkpoint and build its tokenizer."""
        return load_tokenizer(self.workload.checkpoint, self.workload.family, self.workload.tokenizer)

    def load_model(self, model: Path, precision: Precision) -> Generator:
        """Open a generator's checkpoint and build the generator."""
        loaded = load_generator(model, settings=settings_for(self.tokenizer.spec))
        return loaded.generator.to(self.device, precision)

    @cached_property
    def walks(self) -> list[tuple[Tensor, list[Tensor]]]:
        """The hard tokens idx_BL of each batch, and the vectors of each scale."""
        last, walks = len(self.tokenizer.spec.scales) - 1, []
        for rest_BChw in self.latent_batches:
            z_SBlC, idx_Bls = [], []
            for scale in range(last + 1):
                z_SBlC.append(self.tokenizer.vectors(rest_BChw, scale))
                idx_Bls.append(assign(z_SBlC[-1], self.tokenizer.codebook(scale), []).idx_Bl)
                if scale < last:
                    rest_BChw = self.tokenizer.subtract(rest_BChw, idx_Bls[-1], scale)
            walks.append((torch.cat(idx_Bls, 1), z_SBlC))
        return walks

    def read(self, indices: Iterable[int]) -> Tensor:
        """Decode images one by one, without those that can't be read."""
        crop = self.tokenizer.spec.crop.apply
        pictures = [read_image(self.images.locate(index), crop) for index in indices]
        readable = [picture.contiguous() for picture in pictures if isinstance(picture, Tensor)]
        return torch.stack(readable) if readable else torch.empty(0)

    def encoder(self) -> None:
        """Encode all images."""
        batches = torch.split(self.img_B3HW, self.workload.batch_size)
        self.latent_batches = [self.tokenizer.encode(img_B3HW) for img_B3HW in batches]


class EntropyCli(Contender):
    """The program, as in `estimate`."""

    def __init__(self, workload: Workload) -> None:
        keep_freed_memory()
        super().__init__(workload, workload.precision)
        self.img_B3HW = self.img_B3HW.contiguous(memory_format=torch.channels_last)  # as it reads them
        self.processor = BatchProcessor(self.tokenizer, self.device, workload.batch_size)
        self.scorer = None
        if self.model is not None:  # all images are of class 0
            label_N = torch.zeros(BLOCK * number_of_blocks(len(self.images)), dtype=torch.int64)
            self.scorer = Scorer(self.model, self.tokenizer, label_N, label_check=0, soft=True)

    @cached_property
    def loaders(self) -> dict[str, Loader]:
        """Readers of the stages, whose workers start before much is computed: a fork would copy that."""
        source = CroppedImages(self.images, self.tokenizer.spec.crop.apply)
        workers, loaders = self.workload.workers, {}
        for stage, n in self.repeats.items():
            loaders[stage] = open_loader(source, self.plans * n, workers=workers, persistent=True)
            next(read_batches(loaders[stage]))
        return loaders

    def load(self) -> Loaded:
        """Open the checkpoint, build its tokenizer and hash its bytes."""
        loaded = super().load()
        loaded.checkpoint.sha256()
        return loaded

    def decode(self) -> None:
        """Decode all images in the workers."""
        for _ in read_batches(self.loaders["decode"]):
            pass

    def quantiser(self) -> None:
        """Assign the latents of all images and add them to a tally, block by block."""
        self._add(self._encoded(torch.cat(self.latent_batches)))

    def generator(self) -> Tensor:
        """Score the hard tokens of all images; return the mean cross-entropy."""
        return self.score(slice(None))

    def score(self, images: slice) -> Tensor:
        """Score the hard tokens of some images of each batch; return the mean cross-entropy."""
        assert self.scorer is not None
        at = [self.workload.temperatures] * len(self.tokenizer.spec.scales)
        nats = []
        for idx_BL, z_SBlC in self.walks:
            idx_BL, z_SBlC = idx_BL[images], [z_BlC[images] for z_BlC in z_SBlC]
            nats.append(self.scorer.score(range(len(idx_BL)), idx_BL, z_SBlC, at).nats_B)
        return torch.cat(nats).mean() / self.walks[0][0].shape[1]

    def end_to_end(self) -> None:
        """Decode, encode, assign and, with a generator, score all images, from files to tallies."""
        self.processor.scorer = self.scorer
        try:
            self._whole_pass()
        finally:
            self.processor.scorer = None

    def _whole_pass(self) -> None:
        with contextlib.closing(
            prefetch(read_batches(self.loaders["end to end"]), self.device)
        ) as batches:
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
        layout = sums_layout(scales, GROUPS, len(temperatures))
        progress.allocate(layout, self.device, layout if self.processor.scorer else None)
        for batch in batches:
            self.processor.add(batch, progress)
        self.processor.finish_batches()
        assert progress.tally is not None
        return progress.tally


class Baseline(Contender):
    """The loop a researcher would write first; on a GPU with TF32 convolutions, torch's default.

    Eager float32 in NCHW layout, images decoded one by one in the same process, the full distance
    matrix, softmax and its logarithm, all sums in float32.
    """

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload, "fp32" if workload.device == "cpu" else "tf32")
        self.loop = PlainLoop(self.tokenizer, workload.temperatures)
        self.plain = None if self.model is None else PlainForward(self.model, self.tokenizer)

    def decode(self) -> None:
        """Decode all images one by one."""
        for plan in self.plans * self.repeats["decode"]:
            self.read(plan)

    def quantiser(self) -> None:
        """Assign the latents of all images, batch by batch."""
        for rest_BChw in self.latent_batches:
            self.loop.quantise(rest_BChw)

    def generator(self) -> Tensor:
        """Score the hard tokens of all images, batch by batch; return the mean cross-entropy."""
        assert self.plain is not None
        losses = torch.stack([self.plain.losses(idx_BL) for idx_BL, _ in self.walks])
        images_B = torch.tensor([len(idx_BL) for idx_BL, _ in self.walks], device=self.device)
        return (losses[:, 0] * images_B).sum() / images_B.sum()

    def end_to_end(self) -> None:
        """Decode, encode, assign and, with a generator, score all images, batch by batch."""
        for plan in self.plans * self.repeats["end to end"]:
            img_B3HW = self.read(plan)
            if len(img_B3HW):
                _, _, idx_BL = self.loop.quantise(self.tokenizer.encode(img_B3HW.to(self.device)))
                if self.plain is not None:
                    self.plain.losses(idx_BL)


class PlainLoop:
    """A tokenizer without the program's optimizations.

    Args:
        tokenizer: in float32, on the device; its modules are changed in place.
        temperatures: divisors of the squared distance.
    """

    def __init__(self, tokenizer: Tokenizer, temperatures: Sequence[float]) -> None:
        self.tokenizer, self.temperatures = tokenizer, temperatures
        networks = [part for part in vars(tokenizer).values() if isinstance(part, nn.Module)]
        for module in (module for network in networks for module in network.modules()):
            # Norms are torch's own where the layout is.
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.contiguous_format)
            elif isinstance(module, Encoder):
                module.memory_format = torch.contiguous_format
            elif isinstance(module, ResnetBlock):
                module.__class__ = _PublishedBlock

    def quantise(self, rest_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return assignment entropies (S, T), marginals (S, T, V) and hard tokens (B, L)."""
        scales = len(self.tokenizer.spec.scales)
        entropies, marginals, tokens = [], [], []
        for scale in range(scales):
            z_BlC = self.tokenizer.vectors(rest_BChw, scale)
            distance_NV = self._distances(z_BlC.flatten(0, 1), scale)
            idx_Bl = distance_NV.argmin(1).view(z_BlC.shape[:2])
            for temperature in self.temperatures:
                q_NV = torch.softmax(-distance_NV / temperature, dim=1)
                entropies.append(-(q_NV * torch.log(q_NV.clamp(min=1e-30))).sum(1).mean())
                marginals.append(q_NV.sum(0) / len(q_NV))
            tokens.append(idx_Bl)
            if scale + 1 < scales:
                rest_BChw = self.tokenizer.subtract(rest_BChw, idx_Bl, scale)
        shape = (scales, len(self.temperatures))
        marginal_STV = torch.stack(marginals).view(*shape, -1)
        return torch.stack(entropies).view(shape), marginal_STV, torch.cat(tokens, 1)

    def _distances(self, z_NC: Tensor, scale: int) -> Tensor:
        codebook = self.tokenizer.codebook(scale)
        assert isinstance(codebook, Codebook)
        codes_VC = codebook.codes_VC
        if codebook.rule == "cosine":
            z_NC, codes_VC = functional.normalize(z_NC, dim=1), functional.normalize(codes_VC, dim=1)
        norms_NV = z_NC.square().sum(1, keepdim=True) + codes_VC.square().sum(1)
        return norms_NV - 2 * z_NC @ codes_VC.T


class _PublishedBlock(ResnetBlock):
    """The residual block of the published code, which keeps its input."""

    def _run(self, x_BChw: Tensor) -> Tensor:
        h_BChw = self.conv1(self.norm1.then_silu(x_BChw))
        return self.nin_shortcut(x_BChw) + self.conv2(self.norm2.then_silu(h_BChw))
