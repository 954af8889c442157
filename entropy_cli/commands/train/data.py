"""The data of a training: images to train on and held-out images."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from entropy_cli.commands.train.codebook import VECTORS_PER_CODE
from entropy_cli.commands.train.image_store import BatchSampler, ImageStore, crop, in_batches
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.folders import folder_around
from entropy_cli.images.image_set import find_images
from entropy_cli.images.synthetic import KINDS, synthetic_image
from entropy_cli.tokenizers.preprocess import resized_side, square_crop, var_crop

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
SYNTHETIC_TRAIN, SYNTHETIC_HELD_OUT = 4096, 256
HELD_OUT_SHARE, MAX_HELD_OUT = 0.1, 2000
MEAN_SAMPLE = 2048  # images that the mean is taken of where they are not cached


@dataclass(frozen=True)
class SyntheticImages:
    """A source of synthetic images; each depends on the seed and its index alone."""

    size: int
    seed: int

    def name(self, index: int) -> str:
        """Return kind and index."""
        return f"{KINDS[index % len(KINDS)]}/{index:06d}"

    def group(self, index: int) -> int:
        """Return 0: training needs no groups."""
        return 0

    def read(self, index: int) -> np.ndarray:
        """Generate an image: uint8 (H, W, 3)."""
        generator = torch.Generator().manual_seed((self.seed << 32) + index)
        img_3HW = synthetic_image(KINDS[index % len(KINDS)], self.size, generator)
        return img_3HW.mul(255).round().byte().permute(1, 2, 0).numpy()


@dataclass
class TrainingData:
    """The images of a training.

    Attributes:
        train: images to train on, stored a little larger than their crops.
        held_out: held-out images, resized and cropped as in `estimate`; always cached.
        description: of the data, for the record.
        fingerprint: identifies the set of images.
        notes: messages about files that were left aside.
    """

    train: ImageStore
    held_out: ImageStore
    description: str
    fingerprint: str
    notes: list[str]

    @property
    def failed(self) -> dict[str, str]:
        """The name and reason of the images known to be unreadable."""
        return self.train.failed | self.held_out.failed

    def held_out_images(self, size: int) -> Tensor:
        """Return the held-out images, uint8 (B, 3, H, W)."""
        assert self.held_out.img_N3HW is not None
        return crop(self.held_out.img_N3HW, size)

    def mean_image(self, size: int) -> Tensor:
        """Return the mean of the training images, or of a sample of those that are not cached.

        In [0, 255], float64 (3, H, W).
        """
        total, images = torch.zeros(3, size, size, dtype=torch.float64), 0
        sample = MEAN_SAMPLE if self.train.img_N3HW is None else len(self.train)
        for batch_B3HW in self.train.batches(in_batches(min(sample, len(self.train)), 64)):
            total += crop(batch_B3HW, size).double().sum(0)
            images += len(batch_B3HW)
        return total / max(1, images)

    def kmeans_images(self, recipe: Recipe, share: tuple[int, int]) -> Tensor:
        """Return a process's share of the crops for the k-means initialization, uint8 (B, 3, H, W)."""
        tokens = sum(patch_num**2 for patch_num in recipe.patch_nums)
        wanted = -(-VECTORS_PER_CODE * recipe.vocab_size // tokens)
        # Whole batches, so that their number does not depend on the number of processes.
        batches = min(-(-wanted // recipe.batch_size), len(self.train) // recipe.batch_size)
        return torch.cat(list(self.micro_batches(recipe, range(batches), share)))

    def micro_batches(self, recipe: Recipe, steps: range, share: tuple[int, int]) -> Iterator[Tensor]:
        """Yield a process's share of the micro-batches of some steps, uint8 (B, 3, H, W)."""
        counts, size = (recipe.batch_size, recipe.grad_accum_steps), recipe.image_size
        sampler = BatchSampler(len(self.train), *counts, steps.start, steps.stop, recipe.seed, share)
        for item, img_B3HW in enumerate(self.train.batches(sampler)):
            yield crop(img_B3HW, size, sampler.crop_corners(item, resized_side(size) - size))


def open_data(data: str, recipe: Recipe, workers: int, bars: Bars) -> TrainingData:
    """Find the images, and read the held-out ones, and those to train on if they fit in memory.

    With train/ and val/ in the folder, val/ is held out; otherwise the last tenth of the seeded order.
    At most MAX_HELD_OUT images are held out.

    Raises:
        DatasetError: there are no images, or too few to hold one out.
    """
    size, stored = recipe.image_size, resized_side(recipe.image_size)
    if data == SYNTHETIC:
        source, name = SyntheticImages(stored, recipe.seed), f"{SYNTHETIC}, seed {recipe.seed}"
        held_out = range(SYNTHETIC_TRAIN, SYNTHETIC_TRAIN + SYNTHETIC_HELD_OUT)
        train = ImageStore(source, range(SYNTHETIC_TRAIN), workers)
        found = TrainingData(train, ImageStore(source, held_out, workers), name, name, [])
        size = stored
    else:
        found = _find_folder(Path(data), recipe, workers, bars)
    images = len(found.held_out)
    with bars("reading images", len(found.train) + images, "img") as bar:
        found.held_out.cache(size, bar.update)
        if found.train.fits_in_memory(stored):
            found.train.cache(stored, bar.update)
    if not len(found.held_out):
        raise DatasetError(f"{data}: none of the {images} held-out images can be read.")
    for image, reason in found.failed.items():
        logger.warning("unreadable: %s: %s", image, reason)
    return found


def check_apart(data: str, output: Path) -> None:
    """Raise EntropyCliError if the files of a training would be among its images."""
    inside = None if data == SYNTHETIC else folder_around(Path(data), output)
    if inside is not None:
        raise EntropyCliError(
            f"--output {output}: is in {inside}, whose images are read: its figure would become one "
            "of them. Give an --output outside of --data."
        )


def _find_folder(data: Path, recipe: Recipe, workers: int, bars: Bars) -> TrainingData:
    with bars("listing images", None, "img") as bar:
        val = images = find_images(data, "auto", seed=recipe.seed, progress=bar.update, bars=bars)
        if val.split == "val":
            images = find_images(data, "train", seed=recipe.seed, progress=bar.update, bars=bars)
    if images is not val:
        train, held_out = range(len(images)), range(min(MAX_HELD_OUT, len(val)))
    else:
        last = len(images) - min(MAX_HELD_OUT, max(1, int(HELD_OUT_SHARE * len(images))))
        train, held_out = range(last), range(last, len(images))
    if not train:
        raise DatasetError(f"{data}: 1 image, expected at least 2: one is held out. Give more images.")
    larger_crop, center_crop = square_crop(resized_side(recipe.image_size)), var_crop(recipe.image_size)
    return TrainingData(
        ImageStore(CroppedImages(images, larger_crop.apply), train, workers),
        ImageStore(CroppedImages(val, center_crop.apply), held_out, workers),
        ", held out ".join(dict.fromkeys((images.location, val.location))),
        ", ".join(dict.fromkeys((images.fingerprint(), val.fingerprint()))),
        [note for note in dict.fromkeys((images.note, val.note)) if note],
    )
