"""Pictures of more than 8 bits a value, brought to 8, or why they can't be."""

from typing import Any, cast

import numpy as np
from PIL import Image

from entropy_cli.core.errors import DatasetError

BITS, COMPRESSION, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 259, 262, 284, 339  # tags of a TIFF
CODE_STREAM = b"\xff\x4f\xff\x51"  # how one of JPEG 2000 starts


def to_8_bits(picture: Image.Image) -> Image.Image:
    """Return the picture with the 8 highest bits of each value.

    Pillow keeps these of colours, but of grey values it keeps all, and its `convert` then clips them at
    255. How many there are is read from the file, not guessed from the values: of a dark picture of 16
    bits none may be above 255.

    Args:
        picture: as it was opened, not yet decoded.

    Raises:
        DatasetError: the values are no whole numbers of up to 16 bits, or Pillow misreads them.
    """
    bits = 16  # what PNG has beside 8, and what Pillow brings PPM and JPEG 2000 to
    if picture.format == "TIFF":
        bits = _tiff_bits(cast(Any, picture).tag_v2)
    elif picture.format == "JPEG2000":
        _check_jpeg2000(picture)
    if picture.mode == "F":
        raise DatasetError("its values are fractions, expected whole numbers of 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    values_HW = np.asarray(picture)
    grey = Image.fromarray((values_HW >> (bits - 8)).astype(np.uint8))
    if (transparent := picture.info.get("transparency")) is None:
        return grey
    opaque_HW = np.where(values_HW == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(opaque_HW)))


def _tiff_bits(tags: Any) -> int:  # noqa: ANN401 - Pillow's, of any type
    """How many bits a value has."""
    bits = max(tags.get(BITS, (1,)))
    if set(tags.get(SAMPLE_FORMAT, (1,))) != {1}:
        raise DatasetError("its values are signed or fractions, expected whole numbers from 0")
    if bits > 16:
        raise DatasetError(f"its values have {bits} bits, expected 8 or 16")
    if bits > 8 and tags.get(PHOTOMETRIC, 0) == 0:  # which Pillow would leave a negative
        raise DatasetError(f"its values of {bits} bits count from white, expected from black")
    if bits > 8 and tags.get(PLANAR) == 2 and tags.get(COMPRESSION, 1) == 1:  # which it would garble
        raise DatasetError(
            f"its colours of {bits} bits are stored one after the other, expected together"
        )
    return bits


def _check_jpeg2000(picture: Image.Image) -> None:
    """Pillow rounds deep colours up to 256, which wraps: white would become black."""
    file = cast(Any, picture).fp
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    start = content.find(CODE_STREAM) + len(CODE_STREAM) + 36  # of the number of components
    components = int.from_bytes(content[start : start + 2], "big")
    depths = content[start + 2 : start + 2 + 3 * components : 3]
    bits = 1 + max(depth & 0x7F for depth in depths)
    if bits > (16 if picture.mode == "I;16" else 8):
        raise DatasetError(f"its values have {bits} bits, which Pillow misreads in a JPEG 2000")
