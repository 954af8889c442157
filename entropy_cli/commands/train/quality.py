"""How good a tokenizer is on pictures that it was not trained on."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entropy_cli.entropy.entropy import entropy
from entropy_cli.images.psnr import psnr
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.vqvae import VQVAE


def score(mean_3HW: Tensor, img_B3HW: Tensor) -> float:
    """Mean PSNR of one picture in the place of all of these, values in [0, 255], in dB."""
    values = [
        psnr(mean_3HW.expand(part.shape) / 127.5 - 1, part.double() / 127.5 - 1)
        for part in torch.split(img_B3HW, 64)
    ]
    return float(torch.cat(values).mean())


@dataclass(frozen=True)
class ScaleQuality:
    """Codes that the held-out pictures' tokens of a scale are nearest to.

    Attributes:
        usage: share of all codes.
        usage_of_possible: share of as many as there could be: no more than there are tokens.
    """

    patch_num: int
    tokens: int
    codes_used: int
    usage: float
    usage_of_possible: float
    perplexity: float


@dataclass(frozen=True)
class Quality:
    """Of reconstructions and codes, over held-out pictures.

    Attributes:
        psnr_db: mean over pictures.
        count_SV: how many tokens of each scale each code is nearest to, int64.
        images: how many pictures.
    """

    psnr_db: float
    count_SV: Tensor
    images: int

    @staticmethod
    def usage(count_V: Tensor) -> float:
        """Share of the codes chosen at least once."""
        return float((count_V > 0).double().mean())

    @staticmethod
    def perplexity(count_V: Tensor) -> float:
        """Exponential of the entropy of how often each code was chosen."""
        return float(entropy(count_V).exp())

    def scales(self, patch_nums: Sequence[int]) -> list[ScaleQuality]:
        """Of each scale."""
        found = []
        for patch_num, count_V in zip(patch_nums, self.count_SV, strict=True):
            tokens, used = int(count_V.sum()), int((count_V > 0).sum())
            usage, possible = self.usage(count_V), used / min(len(count_V), tokens)
            perplexity = self.perplexity(count_V)
            found.append(ScaleQuality(patch_num, tokens, used, usage, possible, perplexity))
        return found


def rounded(model: VQVAE, dtype: torch.dtype) -> VQVAE:
    """A copy whose weights are those that a file of a narrower type holds."""
    model = copy.deepcopy(model)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype).to(weight.dtype)
    return model


@torch.no_grad()
def measure(
    model: VQVAE,
    batches: Iterable[Tensor],
    ranks: Ranks,
    progress: Callable[[int], object] = lambda _: None,
) -> Quality:
    """Reconstruct pictures and count their codes.

    Args:
        model: in training mode, in which it is left.
        batches: this process's share of the pictures, in [-1, 1], on the model's device.
        ranks: over which is summed.
        progress: is given how many pictures were done.
    """
    model.eval()
    S, V = model.quantize.ema_vocab_hit_SV.shape
    count_SV = torch.zeros(S, V, dtype=torch.int64)
    total = torch.zeros(2, dtype=torch.float64)
    for x_B3HW in batches:
        recon_B3HW, quantised = model(x_B3HW)
        total += torch.stack([psnr(recon_B3HW, x_B3HW).sum().cpu(), torch.tensor(float(len(x_B3HW)))])
        count_SV += model.quantize.counts(quantised.idx_BL).cpu()
        progress(len(x_B3HW))
    model.train()
    summed, images = ranks.all_reduce(total).tolist()
    return Quality(summed / images, ranks.all_reduce(count_SV), int(images))


@torch.no_grad()
def grown(model: VQVAE, x_B3HW: Tensor) -> list[Tensor]:
    """Images decoded from the first scale's codes, from the first two's ...: (B, 3, H, W) each."""
    model.eval()
    f_BChw = model.encode(x_B3HW)
    idx_BL = model.quantize(f_BChw).idx_BL
    pictures = [model.decode(f) for f in model.quantize.growing(idx_BL, f_BChw.shape[-1])]
    model.train()
    return pictures
