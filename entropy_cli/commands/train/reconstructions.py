"""A figure of images and their reconstructions, scale by scale."""

from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from entropy_cli.core.files import write_atomically
from entropy_cli.images.psnr import psnr
from entropy_cli.tokenizers.layers.vqvae import VQVAE

GAP, MARGIN, LEAST_SIDE, FONT_SIZE = 4, 12, 96, 15
PAPER, INK = (255, 255, 255), (40, 40, 40)


@torch.no_grad()
def draw_reconstructions(path: Path, model: VQVAE, x_B3HW: Tensor) -> float:
    """Write a PNG with a row per image: the original, and what is decoded up to each scale.

    Args:
        path: of the PNG file.
        model: in inference mode afterwards only if it was before.
        x_B3HW: the images, in [-1, 1], on the model's device.

    Returns:
        Mean PSNR of the reconstructions from all scales, in dB.
    """
    training = model.training
    model.eval()
    f_BChw = model.encode(x_B3HW)
    idx_BL = model.quantize(f_BChw).idx_BL
    recon_S = [model.decode(f) for f in model.quantize.growing(idx_BL, f_BChw.shape[-1])]
    model.train(training)
    psnr_S = [float(psnr(recon_B3HW, x_B3HW).mean()) for recon_B3HW in recon_S]
    names = [f"{n} x {n}" for n in model.quantize.patch_nums]
    columns = [("original", "", x_B3HW)]
    for i, (name, psnr_db, recon_B3HW) in enumerate(zip(names, psnr_S, recon_S, strict=True)):
        columns.append((f"{'+ ' if i else ''}{name}", f"{psnr_db:.1f} dB", recon_B3HW))
    title = f"Mean PSNR {psnr_S[-1]:.1f} dB from all scales, {psnr_S[0]:.1f} dB from the first"
    sheet = _sheet(title, columns)
    save = partial(sheet.save, format="PNG", optimize=True)
    write_atomically(path, save, announced=False)
    return psnr_S[-1]


def _sheet(title: str, columns: list[tuple[str, str, Tensor]]) -> Image.Image:
    """Draw columns of images in [-1, 1] below their two lines of text."""
    images, size = len(columns[0][2]), columns[0][2].shape[-1]
    side, line = size * max(1, -(-LEAST_SIDE // size)), FONT_SIZE + GAP
    top, step = MARGIN + 4 * line + GAP, side + GAP
    font = ImageFont.load_default(FONT_SIZE)
    width = max(len(columns) * step - GAP, int(font.getlength(title)))
    sheet = Image.new("RGB", (2 * MARGIN + width, top + images * step - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, font)
    for column, (*texts, img_B3HW) in enumerate(columns):
        left = MARGIN + column * step
        for row, text in enumerate(texts):
            pen.text((left + side // 2, top - GAP - (1.5 - row) * line), text, INK, font, anchor="mm")
        for row, img_3HW in enumerate(img_B3HW.float().cpu().clamp(-1, 1).add(1).div(2)):
            tile = to_pil_image(img_3HW).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, top + row * step))
    return sheet
