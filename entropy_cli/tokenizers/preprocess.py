"""Resizing and cropping of pictures as the published data loaders do it."""

from dataclasses import dataclass

from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pictures

from entropy_cli.tokenizers.base import Crop


@dataclass(frozen=True)
class ResizeCenterCrop:
    """Resize the shorter side, longer side truncated to an int, then crop the centre."""

    shorter_side: int
    image_size: int
    filter: InterpolationMode

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Crop of image_size x image_size."""
        width, height = picture.size
        longer_side = self.shorter_side * max(width, height) // min(width, height)
        if Image.MAX_IMAGE_PIXELS and longer_side * self.shorter_side > 2 * Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(
                f"{width} x {height} pixels would be resized to {longer_side} on the longer side"
            )
        resized = pictures.resize(picture, self.shorter_side, self.filter)
        return pictures.center_crop(resized, self.image_size)


def var_crop(image_size: int) -> Crop:
    """VAR's preprocessing for evaluation.

    Source:
        FoundationVision/VAR utils/data.py: mid_reso = 1.125.
    """
    shorter_side = round(1.125 * image_size)
    return Crop(
        apply=ResizeCenterCrop(shorter_side, image_size, InterpolationMode.LANCZOS),
        words=f"shorter side to {shorter_side} (LANCZOS), centre crop {image_size} x {image_size}, "
        "pixels to [-1, 1]",
    )
