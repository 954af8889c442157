"""A figure of images and their reconstructions by the demo's tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import torch

from entropy_cli.commands.train.reconstructions import draw_reconstructions
from entropy_cli.core.errors import DatasetError
from entropy_cli.images.decode import read_image
from entropy_cli.tokenizers.convolutional import scale_pixels
from entropy_cli.tokenizers.layers.vqvae import load_vqvae
from entropy_cli.tokenizers.registry import find_family


def reconstruct(checkpoint: Path, images: Sequence[Path], output: Path) -> float:
    """Draw images beside their reconstructions, scale by scale, and return the mean PSNR in dB.

    Args:
        checkpoint: a tokenizer of VAR's layout, with its decoder.
        images: image files.
        output: path of the PNG file.

    Raises:
        DatasetError: an image can't be read.
    """
    found = find_family(checkpoint)
    spec = found.describe()
    crops = []
    for path in images:
        crop = read_image(path, spec.crop.apply)
        if isinstance(crop, str):
            raise DatasetError(f"{path}: can't be read: {crop}.")
        crops.append(crop)
    patch_nums = [n for n in spec.patch_nums if n is not None]
    model = load_vqvae(found.checkpoint, patch_nums, found.settings.quant_resi)
    return draw_reconstructions(output, model, scale_pixels(torch.stack(crops), spec.pixels))
