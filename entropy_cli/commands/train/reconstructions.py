"""A figure of held-out images and their reconstructions, scale by scale."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from entropy_cli.core.files import write_atomically

GAP, MARGIN, LEAST_SIDE, FONT_SIZE = 4, 12, 96, 15
PAPER, INK = (255, 255, 255), (40, 40, 40)


def draw(path: Path, x_B3HW: Tensor, recon_S: Sequence[Tensor], patch_nums: Sequence[int]) -> None:
    """Write a PNG with a row per image: the original, its reconstruction, and that after each scale.

    Args:
        path: of the PNG file.
        x_B3HW: the images, in [-1, 1].
        recon_S: for each scale, images (B, 3, H, W) decoded from the codes up to it; clipped to [-1, 1].
        patch_nums: sides of the scales' grids.
    """
    columns = [("original", x_B3HW), ("reconstruction", recon_S[-1])]
    for i, (patch_num, img_B3HW) in enumerate(zip(patch_nums, recon_S, strict=True)):
        columns.append((f"{'+ ' if i else ''}{patch_num} x {patch_num}", img_B3HW))
    size = columns[0][1].shape[-1]
    factor = max(1, -(-LEAST_SIDE // size))
    side, font = size * factor, ImageFont.load_default(FONT_SIZE)
    top = MARGIN + 2 * FONT_SIZE
    width = 2 * MARGIN + len(columns) * (side + GAP) - GAP
    sheet = Image.new("RGB", (width, top + MARGIN + len(columns[0][1]) * (side + GAP) - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, (title, img_B3HW) in enumerate(columns):
        left = MARGIN + column * (side + GAP)
        pen.text((left + side // 2, MARGIN + FONT_SIZE // 2), title, INK, font, anchor="mm")
        for row, img_3HW in enumerate(img_B3HW.float().cpu().clamp(-1, 1).add(1).div(2)):
            tile = to_pil_image(img_3HW).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, top + row * (side + GAP)))
    write_atomically(
        path, lambda temporary: sheet.save(temporary, "PNG", optimize=True), announced=False
    )
