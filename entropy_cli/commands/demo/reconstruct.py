"""What a tokenizer keeps of pictures, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import torch

from entropy_cli.commands.train.quality import grown
from entropy_cli.commands.train.reconstructions import draw
from entropy_cli.core.errors import CheckpointError, DatasetError
from entropy_cli.images.decode import read_image
from entropy_cli.images.psnr import psnr
from entropy_cli.tokenizers.convolutional import scale_pixels
from entropy_cli.tokenizers.layers.vqvae import load_vqvae
from entropy_cli.tokenizers.registry import find_family


def reconstruct(checkpoint: Path, pictures: Sequence[Path], output: Path) -> float:
    """Draw pictures beside their reconstructions, scale by scale.

    Args:
        checkpoint: a tokenizer of VAR's layout, with its decoder.
        pictures: files of images.
        output: PNG.

    Returns:
        Mean PSNR of the reconstructions, in dB.

    Raises:
        CheckpointError: the tokenizer is of another family, or has no decoder.
        DatasetError: a picture can't be read.
    """
    found = find_family(checkpoint)
    spec = found.describe()
    if found.name != "var":
        raise CheckpointError(f"{checkpoint}: is of family {found.name}, expected var.")
    read = [read_image(path, spec.crop.apply) for path in pictures]
    for path, picture in zip(pictures, read, strict=True):
        if isinstance(picture, str):
            raise DatasetError(f"{path}: can't be read: {picture}.")
    img_B3HW = torch.stack([picture for picture in read if not isinstance(picture, str)])
    x_B3HW = scale_pixels(img_B3HW, spec.pixels)
    patch_nums = [n for n in spec.patch_nums if n is not None]
    model = load_vqvae(found.checkpoint, patch_nums, found.settings.quant_resi)
    grown_S = grown(model, x_B3HW)
    draw(output, x_B3HW, grown_S, patch_nums)
    return float(psnr(grown_S[-1], x_B3HW).mean())
