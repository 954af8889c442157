"""Procedural images for the demo and for tests."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

KINDS = ("shapes", "gradients", "textures", "noise")
SHORTEST_WAVE, MIN_WAVE_NUMBER = 6, 3.0  # of textures: pixels, and radians in half an image


def synthetic_image(kind: str, size: int, generator: torch.Generator) -> Tensor:
    """Draw an image of one of KINDS, float32 (3, size, size) in [0, 1]."""
    axis = torch.linspace(-1, 1, size)
    y_HW, x_HW = torch.meshgrid(axis, axis, indexing="ij")

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    makers = {"shapes": _shapes, "gradients": _gradients, "textures": _textures, "noise": _noise}
    return makers[kind](x_HW, y_HW, random).clamp(0, 1)


def write_image_folder(
    root: Path, images: int, size: int, seed: int, progress: Callable[[int], object] = lambda _: None
) -> list[Path]:
    """Write JPEGs, a subfolder for each of KINDS, and return their paths; replace existing files."""
    paths = []
    generator = torch.Generator().manual_seed(seed)
    for i in range(images):
        kind = KINDS[i % len(KINDS)]
        folder = root / kind
        folder.mkdir(parents=True, exist_ok=True)
        image = to_pil_image(synthetic_image(kind, size, generator))
        paths.append(folder / f"{kind}_{i:05d}.jpg")
        image.save(paths[-1], quality=92)
        progress(1)
    return paths


Random = Callable[..., Tensor]


def _gradients(x_HW: Tensor, y_HW: Tensor, random: Random) -> Tensor:
    """Draw a linear or radial gradient between two colours."""
    angle = (2 * math.pi * random(1)).item()
    straight_HW = 0.5 + 0.35 * (x_HW * math.cos(angle) + y_HW * math.sin(angle))
    cx, cy = (2 * random(2) - 1).tolist()
    round_HW = ((x_HW - cx) ** 2 + (y_HW - cy) ** 2).sqrt() / 2
    t_HW = round_HW if random(1).item() < 0.4 else straight_HW
    from_311, to_311 = random(2, 3, 1, 1)
    return from_311 + (to_311 - from_311) * t_HW


def _shapes(x_HW: Tensor, y_HW: Tensor, random: Random) -> Tensor:
    """Draw discs and rotated rectangles of plain colour over a gradient."""
    img_3HW = _gradients(x_HW, y_HW, random)
    for _ in range(2 + int(5 * random(1).item())):
        cx, cy = (1.6 * random(2) - 0.8).tolist()
        width, height = (0.12 + 0.5 * random(2)).tolist()
        angle = (math.pi * random(1)).item()
        u_HW = (x_HW - cx) * math.cos(angle) + (y_HW - cy) * math.sin(angle)
        v_HW = (y_HW - cy) * math.cos(angle) - (x_HW - cx) * math.sin(angle)
        disc = random(1).item() < 0.5
        rectangle_HW = (u_HW.abs() < width) & (v_HW.abs() < height)
        inside_HW = u_HW.square() + v_HW.square() < width**2 if disc else rectangle_HW
        img_3HW = torch.where(inside_HW, random(3, 1, 1), img_3HW)
    return img_3HW


def _textures(x_HW: Tensor, y_HW: Tensor, random: Random) -> Tensor:
    """Draw a sum of waves of several lengths and directions, each with its own colour."""
    highest = math.pi * len(x_HW) / SHORTEST_WAVE
    img_3HW = 0.3 + 0.4 * random(3, 1, 1).expand(3, *x_HW.shape)
    for _ in range(2 + int(3 * random(1).item())):
        angle, phase = (2 * math.pi * random(2)).tolist()
        frequency = MIN_WAVE_NUMBER * (highest / MIN_WAVE_NUMBER) ** random(1).item()
        wave_HW = (frequency * (x_HW * math.cos(angle) + y_HW * math.sin(angle)) + phase).sin()
        img_3HW = img_3HW + 0.3 * (random(3, 1, 1) - 0.3) * wave_HW
    return img_3HW


def _noise(x_HW: Tensor, y_HW: Tensor, random: Random) -> Tensor:
    """Draw noise of a random coarseness, mixed with a gradient."""
    size = len(x_HW)
    cells = max(2, int(size / 2 ** (4 * random(1).item())))
    noise_13HW = torch.nn.functional.interpolate(
        random(1, 3, cells, cells), size=size, mode="bilinear", align_corners=False
    )
    share = 0.3 + 0.6 * random(1).item()
    return (1 - share) * _gradients(x_HW, y_HW, random) + share * noise_13HW[0]
