"""The data of a training: images to train on and held-out images."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from entropy_cli.commands.train.codebook import VECTORS_PER_CODE
from entropy_cli.commands.train.image_store import (
    BatchSampler,
    ImageStore,
    Subset,
    SyntheticImages,
    crop,
    fits_in_memory,
    open_store,
)
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.core.errors import DatasetError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import ImageSet, find_images
from entropy_cli.tokenizers.preprocess import resized_side, square_crop, var_crop

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
SYNTHETIC_TRAIN, SYNTHETIC_HELD_OUT = 4096, 256
HELD_OUT_SHARE, MAX_HELD_OUT = 0.1, 2000
MEAN_SAMPLE = 2048  # images that the mean is taken of where they are not cached


@dataclass
class TrainingData:
    """The images of a training.

    Attributes:
        train: images to train on, stored a little larger than their crops.
        held_out_B3HW: held-out images, resized and cropped as in `estimate`, uint8.
        mean_3HW: mean of the training images, in [0, 255], float64.
        held_out_failed: name and reason of the unreadable held-out images.
        description: of the data, for the record.
        fingerprint: identifies the set of images.
        notes: messages about files that were left aside.
    """

    train: ImageStore
    held_out_B3HW: Tensor
    mean_3HW: Tensor
    held_out_failed: dict[str, str]
    description: str
    fingerprint: str
    notes: list[str]

    @property
    def failed(self) -> dict[str, str]:
        """The name and reason of the images known to be unreadable."""
        return self.train.failed | self.held_out_failed

    def kmeans_images(self, recipe: Recipe, share: tuple[int, int]) -> Tensor:
        """Return a process's share of the crops for the k-means initialization, uint8 (B, 3, H, W)."""
        tokens = sum(patch_num**2 for patch_num in recipe.patch_nums)
        wanted = -(-VECTORS_PER_CODE * recipe.vocab_size // tokens)
        # Whole batches, so that their number does not depend on the number of processes.
        batches = min(-(-wanted // recipe.batch_size), len(self.train) // recipe.batch_size)
        counts = len(self.train), recipe.batch_size, recipe.grad_accum_steps
        return torch.cat(
            list(self._crops(recipe, BatchSampler(*counts, 0, batches, recipe.seed, share)))
        )

    def micro_batches(self, recipe: Recipe, done: int, share: tuple[int, int]) -> Iterator[Tensor]:
        """Yield a process's share of the remaining micro-batches, uint8 (B, 3, H, W)."""
        counts = len(self.train), recipe.batch_size, recipe.grad_accum_steps
        return self._crops(recipe, BatchSampler(*counts, done, recipe.steps, recipe.seed, share))

    def _crops(self, recipe: Recipe, sampler: BatchSampler) -> Iterator[Tensor]:
        size = recipe.image_size
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
        source = SyntheticImages(stored, recipe.seed)
        train = Subset(source, range(SYNTHETIC_TRAIN))
        held_out = Subset(source, range(SYNTHETIC_TRAIN, SYNTHETIC_TRAIN + SYNTHETIC_HELD_OUT))
        description = fingerprint = f"{SYNTHETIC}, seed {recipe.seed}"
        held_out_size, notes = stored, list[str]()
    else:
        train, held_out, description, fingerprint, notes = _split_folder(Path(data), recipe, bars)
        held_out_size = size
    with bars("reading images", len(train) + len(held_out), "img") as bar:
        held_out_store = open_store(held_out, held_out_size, workers, bar.update, cache=True)
        cache = fits_in_memory(train, stored)
        store = open_store(train, stored, workers, bar.update, cache=cache)
    if held_out_store.img_N3HW is None or not len(held_out_store):
        raise DatasetError(f"{data}: none of the {len(held_out)} held-out images can be read.")
    failed = held_out_store.failed
    for name, reason in (store.failed | failed).items():
        logger.warning("unreadable: %s: %s", name, reason)
    mean_3HW = _mean_image(store, size)
    held_out_B3HW = crop(held_out_store.img_N3HW, size)
    return TrainingData(store, held_out_B3HW, mean_3HW, failed, description, fingerprint, notes)


def _split_folder(data: Path, recipe: Recipe, bars: Bars) -> tuple[Subset, Subset, str, str, list[str]]:
    center_crop, larger_crop = var_crop(recipe.image_size), square_crop(resized_side(recipe.image_size))
    with bars("listing images", None, "img") as bar:
        images = find_images(data, "auto", seed=recipe.seed, progress=bar.update)
        if images.split == "val":
            val = images
            images = find_images(data, "train", seed=recipe.seed, progress=bar.update)
            train_indices, val_indices = range(len(images)), range(min(MAX_HELD_OUT, len(val)))
        else:
            val = images
            held_out = min(MAX_HELD_OUT, max(1, int(HELD_OUT_SHARE * len(images))))
            train_indices = range(len(images) - held_out)
            val_indices = range(len(train_indices), len(images))
    if not train_indices:
        raise DatasetError(f"{data}: 1 image, expected at least 2: one is held out. Give more images.")
    train = Subset(CroppedImages(images, larger_crop.apply), train_indices)
    held_out_images = Subset(CroppedImages(val, center_crop.apply), val_indices)
    fingerprints = dict.fromkeys((images.fingerprint(), val.fingerprint()))
    notes = [note for note in dict.fromkeys((images.note, val.note)) if note]
    return train, held_out_images, _describe(images, val), ", ".join(fingerprints), notes


def _describe(images: ImageSet, val: ImageSet) -> str:
    other = f", held out {val.location}" if val is not images else ""
    return f"{images.location}{other}"


def _mean_image(store: ImageStore, size: int) -> Tensor:
    """Return the mean image (3, H, W); of a sample where images are not cached."""
    total, images = torch.zeros(3, size, size, dtype=torch.float64), 0
    indices = range(len(store) if store.img_N3HW is not None else min(MEAN_SAMPLE, len(store)))
    for batch_B3HW in store.batches([indices[i : i + 64] for i in range(0, len(indices), 64)]):
        total += crop(batch_B3HW, size).double().sum(0)
        images += len(batch_B3HW)
    return total / images if images else total
