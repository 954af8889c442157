"""Decoding and cropping pictures, and saying why one can't be read."""

import contextlib
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.depth import to_8_bits
from entropy_cli.images.formats import READABLE
from entropy_cli.images.image_set import ImageSet
from entropy_cli.images.tar_file import TarImage

Crop = Callable[[Image.Image], Image.Image]  # from a picture as it was opened to an RGB one


@dataclass(frozen=True)
class CroppedImages:
    """Images, each as a picture of the tokenizer's size.

    Attributes:
        images: which.
        crop: to the size that the tokenizer takes.
    """

    images: ImageSet
    crop: Crop

    def name(self, index: int) -> str:
        """Relative path."""
        return self.images.name(index)

    def group(self, index: int) -> int:
        """Jackknife group."""
        return self.images.group(index)

    def read(self, index: int) -> np.ndarray | str:
        """Decode and crop: uint8 (H, W, 3)."""
        picture = read_image(self.images.locate(index), self.crop)
        return picture if isinstance(picture, str) else picture.permute(1, 2, 0).numpy()


def read_image(source: Path | TarImage, crop: Crop) -> Tensor | str:
    """One picture, made RGB and cropped by the crop, uint8 (3, H, W); or why it can't be read."""
    try:
        with _strict(), _open(source) as file, Image.open(file, formats=READABLE) as picture:
            cropped = np.array(crop(to_8_bits(picture)))  # a copy, that torch may write to
            return torch.from_numpy(cropped).permute(2, 0, 1)
    except DatasetError as error:
        return str(error)
    except MemoryError:
        return "not enough memory to decode it"
    except UnidentifiedImageError:
        return f"not identified as one of {', '.join(READABLE)}"
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        return f"{type(error).__name__}: {error}".replace(f": {str(source)!r}", "").splitlines()[0]


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Let Pillow decode what is whole, whatever it warns of, and nothing that is cut off."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES  # training codes set it: what is missing becomes grey
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            # Large but legal, odd EXIF, palettes with transparency: PIL decodes them, we take it.
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _open(source: Path | TarImage) -> BinaryIO:
    """Open the file of a picture, which Pillow would map into memory: cut off meanwhile, a map kills."""
    if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
        raise DatasetError("not an ordinary file")
    return source.open("rb") if isinstance(source, Path) else source.open()
