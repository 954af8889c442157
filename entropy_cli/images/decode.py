"""Decoding and cropping images, with a reason for each one that can't be read."""

import contextlib
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
from entropy_cli.core.reading import IMAGE_BYTES, OpenFile
from entropy_cli.images.depth import to_8_bits
from entropy_cli.images.formats import READABLE
from entropy_cli.images.image_set import ImageSet
from entropy_cli.images.tar_index import TarImage

Crop = Callable[[Image.Image], Image.Image]  # from an image as it was opened to a cropped RGB one


@dataclass(frozen=True)
class CroppedImages:
    """Images cropped to the tokenizer's input size.

    Attributes:
        images: the images to read.
        crop: crops an image to the tokenizer's input size.
    """

    images: ImageSet
    crop: Crop

    def name(self, index: int) -> str:
        """Return an image's relative path."""
        return self.images.name(index)

    def group(self, index: int) -> int:
        """Return an image's jackknife group."""
        return self.images.group(index)

    def read(self, index: int) -> np.ndarray | str:
        """Decode and crop an image to uint8 (H, W, 3), or return why it can't be read."""
        img_3HW = read_image(self.images.locate(index), self.crop)
        return img_3HW if isinstance(img_3HW, str) else img_3HW.permute(1, 2, 0).numpy()


def read_image(source: Path | TarImage, crop: Crop) -> Tensor | str:
    """Decode an image and crop it to RGB, uint8 (3, H, W), or return why it can't be read."""
    try:
        with _strict(), _open(source) as file, Image.open(file, formats=READABLE) as image:
            img_HW3 = np.array(crop(to_8_bits(image)))  # a copy, which torch may write to
            return torch.from_numpy(img_HW3).permute(2, 0, 1)
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
    """Make Pillow reject truncated images, and silence its warnings about others."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES  # training code sets it: missing parts become grey
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            # Large but legal images, odd EXIF, palettes with transparency: Pillow decodes them.
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _open(source: Path | TarImage) -> BinaryIO:
    """Open an image's file; Pillow would memory-map a path, and crash if the file is truncated later."""
    if not isinstance(source, Path):
        return source.open()
    try:
        return OpenFile(source, IMAGE_BYTES).reader()
    except OSError as error:
        raise DatasetError(str(error.strerror)) from error
