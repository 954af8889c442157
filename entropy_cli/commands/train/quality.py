"""The quality of a tokenizer on held-out images."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.entropy.entropy import entropy
from entropy_cli.images.psnr import psnr
from entropy_cli.streaming.device import is_out_of_memory, to_device
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.vqvae import VQVAE


def mean_image_psnr(mean_3HW: Tensor, img_B3HW: Tensor) -> float:
    """Return the mean PSNR, in dB, of predicting one image for all; values in [0, 255]."""
    values = [
        psnr(mean_3HW.expand(part.shape) / 127.5 - 1, part.double() / 127.5 - 1)
        for part in torch.split(img_B3HW, 64)
    ]
    return float(torch.cat(values).mean())


@dataclass(frozen=True)
class ScaleQuality:
    """The codebook usage of the held-out images' tokens at one scale, or at all (patch_num 0).

    Attributes:
        usage: share of all codes chosen at least once.
        usage_of_possible: share of the codes that could be used, at most one per token.
        perplexity: exponential of the entropy of the code histogram.
    """

    patch_num: int
    tokens: int
    codes_used: int
    usage: float
    usage_of_possible: float
    perplexity: float

    @classmethod
    def of(cls, patch_num: int, count_V: Tensor) -> "ScaleQuality":
        """Return the usage of codes from the number of tokens assigned to each, int64 (V,)."""
        V, tokens, used = len(count_V), int(count_V.sum()), int((count_V > 0).sum())
        perplexity = float(entropy(count_V).exp())
        return cls(patch_num, tokens, used, used / V, used / min(V, tokens), perplexity)


@dataclass(frozen=True)
class Quality:
    """The quality of reconstructions and codebook usage over held-out images.

    Attributes:
        psnr_db: mean over images.
        count_SV: number of tokens of each scale assigned to each code, int64.
    """

    psnr_db: float
    count_SV: Tensor

    @property
    def total(self) -> ScaleQuality:
        """The codebook usage over all scales."""
        return ScaleQuality.of(0, self.count_SV.sum(0))

    def scales(self, patch_nums: Sequence[int]) -> list[ScaleQuality]:
        """Return the codebook usage of each scale."""
        return [
            ScaleQuality.of(n, count_V) for n, count_V in zip(patch_nums, self.count_SV, strict=True)
        ]


def round_weights(model: VQVAE, dtype: torch.dtype) -> VQVAE:
    """Return a copy with weights rounded to a narrower dtype, as in a saved file."""
    model = copy.deepcopy(model)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype).to(weight.dtype)
    return model


@torch.no_grad()
def evaluate(
    model: VQVAE,
    img_B3HW: Tensor,
    images_at_once: int,
    ranks: Ranks,
    progress: Callable[[int], object] = lambda _: None,
) -> Quality:
    """Reconstruct images and count their codes.

    Args:
        model: in training mode, and left in training mode.
        img_B3HW: this process's share of the images, uint8.
        images_at_once: the most in the model at once; fewer where memory runs out.
        ranks: the processes to sum over.
        progress: is called with the number of images after each batch.
    """
    model.eval()
    hits_SV, start = model.quantize.ema_vocab_hit_SV, 0
    total = torch.zeros((), dtype=torch.float64, device=hits_SV.device)
    count_SV = torch.zeros_like(hits_SV, dtype=torch.int64)

    def measure(img_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        x_B3HW = normalize(img_B3HW, hits_SV.device)
        recon_B3HW, quantised = model(x_B3HW)
        return psnr(recon_B3HW, x_B3HW).sum(), model.quantize.counts(quantised.idx_BL)

    while start < len(img_B3HW):
        part_B3HW, measured = img_B3HW[start : start + images_at_once], None
        try:
            measured = measure(part_B3HW)
        except RuntimeError as error:
            if not is_out_of_memory(error) or images_at_once == 1:
                raise
        if measured is None:  # outside the handler, where nothing holds what did not fit
            torch.cuda.empty_cache()
            images_at_once //= 2
            continue
        total += measured[0]
        count_SV += measured[1]
        start += len(part_B3HW)
        progress(len(part_B3HW))
    model.train()
    summed = ranks.all_reduce(torch.stack([total, torch.full_like(total, start)])).tolist()
    return Quality(summed[0] / summed[1], ranks.all_reduce(count_SV).cpu())


def normalize(img_B3HW: Tensor, device: torch.device) -> Tensor:
    """Move uint8 images to a device and scale them to float32 in [-1, 1]."""
    return to_device(img_B3HW, device).float().div_(127.5).sub_(1)
