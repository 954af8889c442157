"""Resizing and cropping of images, equal to the pixel to the published data loaders.

Each crop takes an 8-bit image of any mode as PIL opened it, is picklable, and needs no extra library.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from entropy_cli.tokenizers.base import Crop
from entropy_cli.tokenizers.opencv import resize_window


@dataclass(frozen=True)
class ResizeCenterCrop:
    """Resize the shorter side as torchvision does, the longer truncated, then crop the centre."""

    shorter_side: int
    image_size: int
    filter: InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a crop of image_size x image_size."""
        longer_side = self.shorter_side * max(image.size) // min(image.size)
        _refuse_gigantic(image, (self.shorter_side, longer_side))
        resized = functional.resize(image.convert("RGB"), self.shorter_side, self.filter)
        return functional.center_crop(resized, self.image_size)


@dataclass(frozen=True)
class AdmCrop:
    """Halve by BOX while the image stays large enough, resize by BICUBIC, then crop the centre."""

    image_size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a crop of image_size x image_size."""
        width, height = image.size
        halved = []
        while min(width, height) >= 2 * self.image_size:
            width, height = width // 2, height // 2
            halved.append((width, height))
        size = _scaled((width, height), self.image_size)
        _refuse_gigantic(image, size)
        image = image.convert("RGB")
        for half in halved:
            image = image.resize(half, Image.Resampling.BOX)
        return _centre(image.resize(size, Image.Resampling.BICUBIC), self.image_size)


@dataclass(frozen=True)
class OpencvCrop:
    """Resize the shorter side by OpenCV's INTER_LINEAR, then crop the centre."""

    image_size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a crop of image_size x image_size."""
        size = _scaled(image.size, self.image_size)
        _refuse_gigantic(image, size)
        img_HWC = np.asarray(image.convert("RGB"))
        corner = _corner(size, self.image_size)
        return Image.fromarray(resize_window(img_HWC, size, corner, self.image_size))


@dataclass(frozen=True)
class ChameleonCrop:
    """Blend transparency with white, resize the shorter side by LANCZOS, then crop the centre."""

    image_size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a crop of image_size x image_size."""
        size = _scaled(image.size, self.image_size)
        _refuse_gigantic(image, size)
        return _centre(_on_white(image).resize(size, Image.Resampling.LANCZOS), self.image_size)


def var_crop(image_size: int) -> Crop:
    """Return VAR's preprocessing for evaluation, which vaex and Switti share.

    Source:
        FoundationVision/VAR utils/data.py: mid_reso = 1.125.
    """
    return _torchvision_crop(resized_side(image_size), image_size, InterpolationMode.LANCZOS)


def resized_side(image_size: int) -> int:
    """Return the shorter side before VAR's crop.

    Source:
        FoundationVision/VAR utils/data.py: mid_reso = 1.125.
    """
    return round(1.125 * image_size)


def square_crop(side: int) -> Crop:
    """Return the preprocessing that keeps the whole centre square: training takes its crops from it."""
    return _torchvision_crop(side, side, InterpolationMode.LANCZOS)


def resize_crop(image_size: int, interpolation: InterpolationMode) -> Crop:
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
    return Crop(AdmCrop(image_size), words)


def opencv_crop(image_size: int) -> Crop:
    """Return albumentations' SmallestMaxSize and CenterCrop, which taming-transformers and IBQ use.

    Source:
        CompVis/taming-transformers taming/data/base.py: ImagePaths.
    """
    words = f"shorter side to {image_size} (INTER_LINEAR of OpenCV), {_centre_words(image_size)}"
    return Crop(OpencvCrop(image_size), words)


def chameleon_crop(image_size: int) -> Crop:
    """Return Chameleon's preprocessing.

    Source:
        facebookresearch/chameleon chameleon/inference/image_tokenizer.py.
    """
    words = f"transparency on white, shorter side to {image_size} (LANCZOS), {_centre_words(image_size)}"
    return Crop(ChameleonCrop(image_size), words)


def _torchvision_crop(shorter_side: int, image_size: int, interpolation: InterpolationMode) -> Crop:
    words = f"shorter side to {shorter_side} ({interpolation.name}), {_centre_words(image_size)}"
    return Crop(ResizeCenterCrop(shorter_side, image_size, interpolation), words)


def _centre_words(image_size: int) -> str:
    return f"centre crop {image_size} x {image_size}"


def _scaled(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    """Return width and height for another shorter side, rounded half to even."""
    scale = shorter_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def _corner(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Return the left and top of the centre crop, rounded down."""
    return (size[0] - image_size) // 2, (size[1] - image_size) // 2


def _centre(image: Image.Image, image_size: int) -> Image.Image:
    left, top = _corner(image.size, image_size)
    return image.crop((left, top, left + image_size, top + image_size))


def _refuse_gigantic(image: Image.Image, size: tuple[int, int]) -> None:
    """Refuse a long and narrow image that is small as a file and enormous once resized.

    Raises:
        Image.DecompressionBombError: the size is one at which PIL refuses to open an image.
    """
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
