"""Opening the pictures of a training: those to learn from, and those held out to judge by."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from entropy_cli.commands.train.codes import VECTORS_PER_CODE
from entropy_cli.commands.train.image_store import (
    Order,
    Part,
    Shelf,
    SyntheticPictures,
    cropped,
    fits_memory,
    open_shelf,
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
HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 2000
SAMPLED = 2048  # pictures of which the mean is taken where not all are in memory


@dataclass
class TrainingData:
    """Images of a training.

    Attributes:
        train: stored a little larger than they are cropped to.
        held_out_B3HW: as `estimate` would see them, uint8.
        mean_3HW: of the training pictures, in [0, 255], float64.
        failed: name and reason of those that can't be read, as far as is known.
        words: what they are, for the record.
        fingerprint: the same for the same pictures.
        notes: lines about files that were left aside.
    """

    train: Shelf
    held_out_B3HW: Tensor
    mean_3HW: Tensor
    held_out_failed: dict[str, str]
    words: str
    fingerprint: str
    notes: list[str]

    @property
    def failed(self) -> dict[str, str]:
        """Name and reason of the pictures that can't be read, as far as is known."""
        return self.train.failed | self.held_out_failed

    def first(self, recipe: Recipe, share: tuple[int, int]) -> Tensor:
        """A process's share of the pictures that codes begin with."""
        tokens = sum(patch_num**2 for patch_num in recipe.patch_nums)
        wanted = -(-VECTORS_PER_CODE * recipe.vocab_size // tokens)
        # Whole batches: as many whatever the number of processes.
        batches = min(-(-wanted // recipe.batch_size), len(self.train) // recipe.batch_size)
        counts = len(self.train), recipe.batch_size, recipe.grad_accum_steps
        return torch.cat(list(self._crops(recipe, Order(*counts, 0, batches, recipe.seed, share))))

    def parts(self, recipe: Recipe, done: int, share: tuple[int, int]) -> Iterator[Tensor]:
        """A process's share of the batches that are left, in the parts that it computes."""
        counts = len(self.train), recipe.batch_size, recipe.grad_accum_steps
        return self._crops(recipe, Order(*counts, done, recipe.steps, recipe.seed, share))

    def _crops(self, recipe: Recipe, order: Order) -> Iterator[Tensor]:
        size = recipe.image_size
        for item, img_B3HW in enumerate(self.train.batches(order)):
            yield cropped(img_B3HW, size, order.corners(item, resized_side(size) - size))


def open_data(data: str, recipe: Recipe, workers: int, bars: Bars) -> TrainingData:
    """Find the pictures and read those held out, and those to train on if they fit in memory.

    With train/ and val/ in the folder, val/ is held out; else the last tenth of the seeded order, of
    either 2,000 at most.

    Raises:
        DatasetError: there are no pictures, or too few to hold one out.
    """
    size, stored = recipe.image_size, resized_side(recipe.image_size)
    if data == SYNTHETIC:
        source = SyntheticPictures(stored, recipe.seed)
        train = Part(source, range(SYNTHETIC_TRAIN))
        held_out = Part(source, range(SYNTHETIC_TRAIN, SYNTHETIC_TRAIN + SYNTHETIC_HELD_OUT))
        words = fingerprint = f"{SYNTHETIC}, seed {recipe.seed}"
        held_size, notes = stored, list[str]()
    else:
        train, held_out, words, fingerprint, notes = _of_folder(Path(data), recipe, bars)
        held_size = size
    with bars("reading pictures", len(train) + len(held_out), "img") as bar:
        held_shelf = open_shelf(held_out, held_size, workers, bar.update, keep=True)
        shelf = open_shelf(train, stored, workers, bar.update, keep=fits_memory(train, stored))
    if held_shelf.img_N3HW is None or not len(held_shelf):
        raise DatasetError(f"{data}: none of the {len(held_out)} held-out pictures can be read.")
    for name, reason in (shelf.failed | held_shelf.failed).items():
        logger.warning("unreadable: %s: %s", name, reason)
    mean_3HW = _mean(shelf, size)
    held_B3HW = cropped(held_shelf.img_N3HW, size)
    return TrainingData(shelf, held_B3HW, mean_3HW, held_shelf.failed, words, fingerprint, notes)


def _of_folder(data: Path, recipe: Recipe, bars: Bars) -> tuple[Part, Part, str, str, list[str]]:
    crop, larger_crop = var_crop(recipe.image_size), square_crop(resized_side(recipe.image_size))
    with bars("listing pictures", None, "img") as bar:
        images = find_images(data, "auto", seed=recipe.seed, progress=bar.update)
        if images.split == "val":
            held = images
            images = find_images(data, "train", seed=recipe.seed, progress=bar.update)
            kept, held_places = range(len(images)), range(min(MOST_HELD_OUT, len(held)))
        else:
            held = images
            wanted = min(MOST_HELD_OUT, max(1, int(HELD_OUT_SHARE * len(images))))
            kept = range(len(images) - wanted)
            held_places = range(len(kept), len(images))
    if not kept:
        raise DatasetError(f"{data}: has 1 picture, expected several to train on and one to judge by.")
    train = Part(CroppedImages(images, larger_crop.apply), kept)
    held_out = Part(CroppedImages(held, crop.apply), held_places)
    fingerprints = dict.fromkeys((images.fingerprint(), held.fingerprint()))
    notes = [note for note in dict.fromkeys((images.note, held.note)) if note]
    return train, held_out, _described(images, held), ", ".join(fingerprints), notes


def _described(images: ImageSet, held: ImageSet) -> str:
    other = f", held out {held.location}" if held is not images else ""
    return f"{images.location}{other}"


def _mean(shelf: Shelf, size: int) -> Tensor:
    """The mean picture; of a sample where pictures are not in memory."""
    total, images = torch.zeros(3, size, size, dtype=torch.float64), 0
    numbers = range(len(shelf) if shelf.img_N3HW is not None else min(SAMPLED, len(shelf)))
    for batch_B3HW in shelf.batches([numbers[i : i + 64] for i in range(0, len(numbers), 64)]):
        total += cropped(batch_B3HW, size).double().sum(0)
        images += len(batch_B3HW)
    return total / images if images else total
