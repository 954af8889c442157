"""Conversion of images with more than 8 bits a value to 8 bits."""

from typing import Any, cast

import numpy as np
from PIL import Image

from entropy_cli.core.errors import DatasetError

BITS, COMPRESSION, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 259, 262, 284, 339  # tags of a TIFF
CODE_STREAM = b"\xff\x4f\xff\x51"  # the start of a JPEG 2000 code stream


def to_8_bits(image: Image.Image) -> Image.Image:
    """Return the image with the 8 highest bits of each value.

    Pillow keeps only these of colours, but all bits of grey values, which its `convert` then clips at
    255. The number of bits is read from the file, not guessed from the values: a dark 16-bit image may
    have no value above 255.

    Args:
        image: an image that was opened but not yet decoded.

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
