"""A figure of images and their reconstructions by a tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import torch

from entropy_cli.commands.train.quality import reconstruct_by_scale
from entropy_cli.commands.train.reconstructions import draw
from entropy_cli.core.errors import CheckpointError, DatasetError
from entropy_cli.images.decode import read_image
from entropy_cli.images.psnr import psnr
from entropy_cli.tokenizers.convolutional import scale_pixels
from entropy_cli.tokenizers.layers.vqvae import load_vqvae
from entropy_cli.tokenizers.registry import find_family


def reconstruct(checkpoint: Path, images: Sequence[Path], output: Path) -> float:
    """Draw images beside their reconstructions, scale by scale.

    Args:
        checkpoint: a tokenizer of VAR's layout, with its decoder.
        images: image files.
        output: path of the PNG file.

    Returns:
        Mean PSNR of the reconstructions, in dB.

    Raises:
        CheckpointError: the tokenizer is of another family, or has no decoder.
        DatasetError: an image can't be read.
    """
    found = find_family(checkpoint)
    spec = found.describe()
    if found.name != "var":
        raise CheckpointError(f"{checkpoint}: family {found.name}, expected var.")
    crops = []
    for path in images:
        crop = read_image(path, spec.crop.apply)
        if isinstance(crop, str):
            raise DatasetError(f"{path}: can't be read: {crop}.")
        crops.append(crop)
    img_B3HW = torch.stack(crops)
    x_B3HW = scale_pixels(img_B3HW, spec.pixels)
    patch_nums = [n for n in spec.patch_nums if n is not None]
    model = load_vqvae(found.checkpoint, patch_nums, found.settings.quant_resi)
    recon_S = reconstruct_by_scale(model, x_B3HW)
    draw(output, x_B3HW, recon_S, patch_nums)
    return float(psnr(recon_S[-1], x_B3HW).mean())
