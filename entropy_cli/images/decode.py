"""Decode and crop images, with a reason for each one that can't be read."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import IMAGE_BYTES, OpenFile, is_out_of_handles
from entropy_cli.images.formats import READABLE
from entropy_cli.images.image_set import ImageSet
from entropy_cli.images.members import StoredImage

BITS, COMPRESSION, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 259, 262, 284, 339  # tags of a TIFF
CODE_STREAM = b"\xff\x4f\xff\x51"  # the start of a JPEG 2000 code stream

Crop = Callable[[Image.Image], Image.Image]  # from an image as it was opened to a cropped RGB one


@dataclass(frozen=True)
class CroppedImages:
    """A loader's source: images cropped to the tokenizer's input size."""

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


def read_image(source: Path | StoredImage, crop: Crop) -> Tensor | str:
    """Decode an image and crop it to RGB, uint8 (3, H, W), or return why it can't be read.

    Raises:
        OSError: no more files can be opened.
    """
    try:
        with _strict(), _open(source) as file, Image.open(file, formats=READABLE) as image:
            img_HW3 = np.array(crop(_to_8_bits(image)))  # a copy, which torch may write to
            return torch.from_numpy(img_HW3).permute(2, 0, 1)
    except DatasetError as error:
        return str(error)
    except MemoryError:
        return "not enough memory to decode it"
    except UnidentifiedImageError:
        return f"not identified as one of {', '.join(READABLE)}"
    except Exception as error:  # decoders raise anything on damaged files
        if is_out_of_handles(error):
            raise
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


def _open(source: Path | StoredImage) -> BinaryIO:
    """Open an image's file; Pillow would memory-map a path, and crash if the file is truncated later."""
    if not isinstance(source, Path):
        return source.open()
    try:
        return OpenFile(source, IMAGE_BYTES).reader()
    except OSError as error:
        if is_out_of_handles(error):
            raise
        raise DatasetError(str(error.strerror)) from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Return the image with the 8 highest bits of each value.

    Pillow keeps only these of colours, but all bits of grey values, which its `convert` then clips at
    255. The number of bits is read from the file, not guessed from the values: a dark 16-bit image may
    have no value above 255.

    Raises:
        DatasetError: the values are not whole numbers of at most 16 bits, or Pillow misreads them.
    """
    bits = 16  # what PNG has beside 8, and what Pillow brings PPM and JPEG 2000 to
    if image.format == "TIFF":
        bits = _tiff_bits(cast(Any, image).tag_v2)
    elif image.format == "JPEG2000":
        _check_jpeg2000(image)
    if image.mode == "F":
        raise DatasetError("its values are fractions, expected whole numbers of 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values_HW = np.asarray(image)
    grey = Image.fromarray((values_HW >> (bits - 8)).astype(np.uint8))
    if (transparent := image.info.get("transparency")) is None:
        return grey
    opaque_HW = np.where(values_HW == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(opaque_HW)))


def _tiff_bits(tags: Any) -> int:  # noqa: ANN401 - Pillow's, of any type
    """Return the number of bits of a value."""
    bits = max(tags.get(BITS, (1,)))
    if set(tags.get(SAMPLE_FORMAT, (1,))) != {1}:
        raise DatasetError("its values are signed or fractions, expected whole numbers from 0")
    if bits > 16:
        raise DatasetError(f"its values have {bits} bits, expected 8 or 16")
    if bits > 8 and tags.get(PHOTOMETRIC, 0) == 0:  # which Pillow would leave a negative
        raise DatasetError(f"its {bits}-bit values have 0 as white, expected 0 as black")
    if bits > 8 and tags.get(PLANAR) == 2 and tags.get(COMPRESSION, 1) == 1:  # which it would garble
        raise DatasetError(f"its {bits}-bit colours are stored in planes, expected interleaved")
    return bits


def _check_jpeg2000(image: Image.Image) -> None:
    """Reject deep colours: Pillow rounds them up to 256, which wraps, so that white becomes black."""
    file = cast(Any, image).fp
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    start = content.find(CODE_STREAM) + len(CODE_STREAM) + 36  # where the number of components is
    components = int.from_bytes(content[start : start + 2], "big")
    depths = content[start + 2 : start + 2 + 3 * components : 3]
    bits = 1 + max(depth & 0x7F for depth in depths)
    if bits > (16 if image.mode == "I;16" else 8):
        raise DatasetError(f"its values have {bits} bits, which Pillow misreads in a JPEG 2000")
