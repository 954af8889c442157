"""Resizing and cropping of images, equal to the pixel to the published data loaders.

Each crop takes an 8-bit image of any mode as PIL opened it, is picklable, and needs no extra library:
neither OpenCV nor torchvision, whose import takes seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from entropy_cli.tokenizers.base import Crop

WEIGHT_ONE = 2048  # OpenCV's fixed point of 11 bits
VAR_MARGIN = 1.125  # mid_reso in FoundationVision/VAR utils/data.py


@dataclass(frozen=True)
class _With:
    """A function of an image and some arguments; it equals another of the same, unlike a partial."""

    function: Callable[..., Image.Image]
    arguments: tuple[Any, ...]

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.function(image, *self.arguments)


def resized_side(image_size: int) -> int:
    """Return the shorter side before VAR's crop."""
    return round(VAR_MARGIN * image_size)


def var_crop(image_size: int) -> Crop:
    """Return VAR's preprocessing for evaluation, which vaex and Switti share."""
    return _torchvision_crop(resized_side(image_size), image_size, Image.Resampling.LANCZOS)


def square_crop(side: int) -> Crop:
    """Return the preprocessing that keeps the whole centre square: training takes its crops from it."""
    return resize_crop(side, Image.Resampling.LANCZOS)


def resize_crop(image_size: int, interpolation: Image.Resampling) -> Crop:
    """Return torchvision's Resize and CenterCrop of a PIL image, which is always antialiased.

    Source:
        kakaobrain/rq-vae-transformer rqvae/img_datasets/transforms.py: BILINEAR.
        TencentARC/Open-MAGVIT2 src/Open_MAGVIT2/data/base.py: BILINEAR.
        markweberdev/maskbit data/webdataset_reader.py, huggingface/open-muse training/data.py: BILINEAR.
        bytedance/1d-tokenizer data/webdataset_reader.py: BICUBIC.
    """
    return _torchvision_crop(image_size, image_size, interpolation)


def adm_crop(image_size: int) -> Crop:
    """Return ADM's preprocessing, which LlamaGen uses.

    Source:
        FoundationVision/LlamaGen dataset/augmentation.py: center_crop_arr.
    """
    words = f"halved (BOX) while the shorter side is at least {2 * image_size}"
    words += f", then shorter side to {image_size} (BICUBIC), {_centre_words(image_size)}"
    return Crop(_With(_adm, (image_size,)), words)


def opencv_crop(image_size: int) -> Crop:
    """Return albumentations' SmallestMaxSize and CenterCrop, which taming-transformers and IBQ use.

    Source:
        CompVis/taming-transformers taming/data/base.py: ImagePaths.
    """
    words = f"shorter side to {image_size} (INTER_LINEAR of OpenCV), {_centre_words(image_size)}"
    return Crop(_With(_opencv, (image_size,)), words)


def chameleon_crop(image_size: int) -> Crop:
    """Return Chameleon's preprocessing.

    Source:
        facebookresearch/chameleon chameleon/inference/image_tokenizer.py.
    """
    words = f"transparency on white, shorter side to {image_size} (LANCZOS), {_centre_words(image_size)}"
    return Crop(_With(_chameleon, (image_size,)), words)


def infinity_crop(image_size: int) -> Crop:
    """Return Infinity's preprocessing for a square target.

    Source:
        FoundationVision/Infinity tools/run_infinity.py: transform.
    """
    words = f"shorter side to {image_size} (LANCZOS), {_centre_words(image_size)}"
    return Crop(_With(_infinity, (image_size,)), words)


def dall_e_crop(image_size: int) -> Crop:
    """Return DALL-E's preprocessing.

    Source:
        openai/DALL-E notebooks/usage.ipynb: preprocess.
    """
    words = f"shorter side to {image_size} (LANCZOS), {_centre_words(image_size)}"
    return Crop(_With(_dall_e, (image_size,)), words)


def beit_crop(image_size: int) -> Crop:
    """Return BEiT v2's preprocessing: 224 pixels of 256.

    Source:
        microsoft/unilm beit2/test_get_code.py.
    """
    return _torchvision_crop(round(image_size * 256 / 224), image_size, Image.Resampling.BICUBIC)


def squeeze(image_size: int) -> Crop:
    """Return the preprocessing that changes an image's shape to a square, as FLAVA's codebook takes it.

    Source:
        huggingface/transformers models/flava (FlavaImageProcessor, codebook_size).
    """
    words = f"both sides to {image_size} (LANCZOS), without a crop"
    return Crop(_With(_squeezed, (image_size,)), words)


def _torchvision_crop(shorter_side: int, image_size: int, interpolation: Image.Resampling) -> Crop:
    words = f"shorter side to {shorter_side} ({interpolation.name}), {_centre_words(image_size)}"
    return Crop(_With(_torchvision, (shorter_side, image_size, interpolation)), words)


def _centre_words(image_size: int) -> str:
    return f"centre crop {image_size} x {image_size}"


def _torchvision(
    image: Image.Image, shorter_side: int, image_size: int, interpolation: Image.Resampling
) -> Image.Image:
    """Truncate the longer side, and round the corner of the crop half to even."""
    width, height = (int(shorter_side * n / min(image.size)) for n in image.size)
    _refuse_gigantic(image, (width, height))
    resized = image.convert("RGB").resize((width, height), interpolation)
    corner = round((width - image_size) / 2), round((height - image_size) / 2)
    return _cut(resized, corner, image_size)


def _adm(image: Image.Image, image_size: int) -> Image.Image:
    """Halve by BOX while the image stays large enough, then resize by BICUBIC."""
    width, height = image.size
    halved = []
    while min(width, height) >= 2 * image_size:
        width, height = width // 2, height // 2
        halved.append((width, height))
    size, corner = _placed(image, (width, height), image_size)
    image = image.convert("RGB")
    for half in halved:
        image = image.resize(half, Image.Resampling.BOX)
    return _cut(image.resize(size, Image.Resampling.BICUBIC), corner, image_size)


def _opencv(image: Image.Image, image_size: int) -> Image.Image:
    size, corner = _placed(image, image.size, image_size)
    return Image.fromarray(resize_window(np.asarray(image.convert("RGB")), size, corner, image_size))


def _chameleon(image: Image.Image, image_size: int) -> Image.Image:
    size, corner = _placed(image, image.size, image_size)
    return _cut(_on_white(image).resize(size, Image.Resampling.LANCZOS), corner, image_size)


def _infinity(image: Image.Image, image_size: int) -> Image.Image:
    """Truncate the longer side and the corner of the crop."""
    ratio = image.width / image.height
    size = (image_size, int(image_size / ratio)) if ratio <= 1 else (int(ratio * image_size), image_size)
    _refuse_gigantic(image, size)
    resized = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return _cut(resized, ((size[0] - image_size) // 2, (size[1] - image_size) // 2), image_size)


def _dall_e(image: Image.Image, image_size: int) -> Image.Image:
    size, _ = _placed(image, image.size, image_size)
    resized = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    corner = round((size[0] - image_size) / 2), round((size[1] - image_size) / 2)
    return _cut(resized, corner, image_size)


def _squeezed(image: Image.Image, image_size: int) -> Image.Image:
    return image.convert("RGB").resize((image_size, image_size), Image.Resampling.LANCZOS)


def _placed(
    image: Image.Image, old: tuple[int, int], image_size: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size for another shorter side, rounded half to even, and the crop's corner, down."""
    scale = image_size / min(old)
    width, height = round(old[0] * scale), round(old[1] * scale)
    _refuse_gigantic(image, (width, height))
    return (width, height), ((width - image_size) // 2, (height - image_size) // 2)


def _cut(image: Image.Image, corner: tuple[int, int], image_size: int) -> Image.Image:
    left, top = corner
    return image.crop((left, top, left + image_size, top + image_size))


def _refuse_gigantic(image: Image.Image, size: tuple[int, int]) -> None:
    """Refuse a long and narrow image that is small as a file and enormous once resized, as PIL would."""
    if Image.MAX_IMAGE_PIXELS and size[0] * size[1] > 2 * Image.MAX_IMAGE_PIXELS:
        old = f"{image.width} x {image.height} pixels"
        raise Image.DecompressionBombError(f"{old} would be resized to {max(size)} on the longer side")


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image in RGB, with transparency blended with white and truncated to an int."""
    if image.mode == "RGB":
        return image
    rgba_HWC = np.array(image.convert("RGBA"))
    if (rgba_HWC[:, :, 3] == 255).all():
        return image.convert("RGB")
    opacity = np.arange(256)[:, None] / 255
    blended = ((1 - opacity) * 255 + opacity * np.arange(256)).astype(np.uint8)  # by alpha and value
    for row_WC in rgba_HWC:  # row by row, for fancy indices take eight times the memory
        row_WC[:, :3] = blended[row_WC[:, 3:], row_WC[:, :3]]
    return Image.fromarray(rgba_HWC[:, :, :3])


def resize_window(
    img_HWC: np.ndarray, size: tuple[int, int], corner: tuple[int, int], window: int
) -> np.ndarray:
    """Return a square window of what cv2.resize(img_HWC, size) with INTER_LINEAR gives.

    There is no antialiasing: at any size each pixel is a mean of the four around its centre. OpenCV has
    a special case where both sides are halved, but its mean of 2 x 2 is the same number. At the border
    the two axes differ: a column gets all the weight at once, a row gets it in two rounded parts.

    Args:
        img_HWC: uint8.
        size: width and height of the whole resized image.
        corner: left and top of the window in it.
        window: side of the window.

    Returns:
        uint8 of shape (window, window, C).

    Source:
        opencv/opencv modules/imgproc/src/resize.cpp: HResizeLinear, VResizeLinear and the tables of
        offsets and weights that hal::resize makes for them.
    """
    (height, width), (new_width, new_height), (left, top) = img_HWC.shape[:2], size, corner
    first_column, fraction = _positions(width, new_width, left, window)
    outside = (first_column < 0) | (first_column >= width - 1)
    columns, column_weights = _taps(first_column, np.where(outside, np.float32(0), fraction), width)
    rows, row_weights = _taps(*_positions(height, new_height, top, window), height)
    total_HWC = np.full((window, window, img_HWC.shape[2]), 2, np.int32)
    for row, row_weight in zip(rows, row_weights, strict=True):
        picked = img_HWC[row]
        mean_HWC = picked[:, columns[0]] * column_weights[0, :, None]
        mean_HWC += picked[:, columns[1]] * column_weights[1, :, None]
        mean_HWC >>= 4
        mean_HWC *= row_weight[:, None, None]
        mean_HWC >>= 16
        total_HWC += mean_HWC
    return (total_HWC >> 2).astype(np.uint8)


def _positions(old: int, new: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the old pixel before the centre of each new one, and the distance to it."""
    step = 1 / (new / old)
    at = ((np.arange(start, start + count) + 0.5) * step - 0.5).astype(np.float32)
    first = np.floor(at)
    return first.astype(np.int64), at - first


def _taps(first: np.ndarray, fraction: np.ndarray, old: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two old pixels of each new one, within the image, and their weights, (2, N) both."""
    weights = np.rint(np.stack([1 - fraction, fraction]) * WEIGHT_ONE).astype(np.int32)
    return np.clip(np.stack([first, first + 1]), 0, old - 1), weights
