"""Peak signal-to-noise ratio of images."""

from torch import Tensor

HIGHEST_PSNR = 100.0


def psnr(img_B3HW: Tensor, target_B3HW: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in [-1, 1], in dB, float64 (B,).

    At most HIGHEST_PSNR, so that one perfect reconstruction does not make a mean infinite.
    """
    error_B3HW = img_B3HW.double().clamp(-1, 1) - target_B3HW.double()
    return (-10 * (error_B3HW.square().mean((1, 2, 3)) / 4).log10()).clamp(max=HIGHEST_PSNR)
