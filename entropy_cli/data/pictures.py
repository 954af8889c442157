"""Decoding and cropping pictures, and saying why one can't be read."""

import io
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entropy_cli.data.images import ImageSet
from entropy_cli.data.tar_file import TarPicture
from entropy_cli.errors import DatasetError

Crop = Callable[[Image.Image], Image.Image]  # from a picture as it was opened to an RGB one


@dataclass(frozen=True)
class Pictures:
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
        picture = read_picture(self.images.picture(index), self.crop)
        return picture if isinstance(picture, str) else picture.permute(1, 2, 0).numpy()


def read_picture(source: Path | TarPicture, crop: Crop) -> Tensor | str:
    """One picture, made RGB and cropped by the crop, uint8 (3, H, W); or why it can't be read."""
    file: Any = source
    try:
        with warnings.catch_warnings():
            # Large but legal, odd EXIF, palettes with transparency: PIL decodes them, we take it.
            warnings.simplefilter("ignore")
            if isinstance(source, TarPicture):
                file = io.BytesIO(source.read())
            elif not stat.S_ISREG(source.stat().st_mode):
                return "not an ordinary file"
            with Image.open(file) as picture:
                cropped = np.array(crop(picture))  # a copy, that torch may write to
                return torch.from_numpy(cropped).permute(2, 0, 1)
    except DatasetError as error:
        return str(error)
    except MemoryError:
        return "not enough memory to decode it"
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        named = str(file) if isinstance(file, Path) else file  # as PIL names it
        return f"{type(error).__name__}: {error}".replace(f" {named!r}", "").splitlines()[0]
