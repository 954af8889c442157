"""One picture through a tokenizer, token by token: where its assignment is undecided."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entropy_cli.entropy.assign import MAX_INDEXABLE, assign
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.images.loader import Batch
from entropy_cli.images.psnr import psnr
from entropy_cli.streaming.batch_processor import BatchProcessor

MOST_CODES = 3  # of a token, the most probable first
MOST_PROBABILITIES = 2**23  # held at once


@dataclass(frozen=True)
class ScaleLook:
    """The l tokens of one scale, on the CPU.

    Attributes:
        grid: rows and columns that the tokens lie in, (1, l) of those without a grid.
        entropy_l: of the soft assignment of each token, nats, float64.
        code_lK: the most probable codes, the most probable first; K = 0 where they have no numbers.
        probability_lK: of these.
        picture_3HW: decoded from the codes of the scales up to this one, uint8; None without a decoder.
        psnr_db: of that picture.
    """

    grid: tuple[int, int]
    entropy_l: Tensor
    code_lK: Tensor
    probability_lK: Tensor
    picture_3HW: Tensor | None
    psnr_db: float | None


def encoded(worker: BatchProcessor, names: Sequence[str], img_B3HW: Tensor) -> Tensor:
    """Latents of pictures, uint8 of the tokenizer's size, as `estimate` has them: (B, C, h, w).

    Raises:
        EntropyCliError: not enough memory for a single picture.
    """
    group_B = torch.zeros(len(names), dtype=torch.int64)
    places = list(range(len(names)))
    (unit,) = worker.encode([Batch(img_B3HW, group_B, list(names), places, [], (0,))])
    return unit.rest_BChw[: len(names)]


def look(
    worker: BatchProcessor,
    name: str,
    img_3HW: Tensor,
    latent_BChw: Tensor,
    temperatures: Sequence[float],
    decoder: nn.Module | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> list[ScaleLook]:
    """Assign the tokens of a picture, scale by scale.

    Args:
        worker: with the tokenizer.
        name: of the picture, for people.
        img_3HW: uint8, of the tokenizer's size.
        latent_BChw: of this one picture, from `encoded`.
        temperatures: of each scale, divisors of the squared distance.
        decoder: from what the codes explain of the latent to a picture around [-1, 1], on the device.
        advance: is given 1 for each scale that is done.

    Raises:
        EntropyCliError: latents that are not finite.
    """
    tokenizer = worker.tokenizer

    def assign_scale(scale: int, z_BlC: Tensor) -> ImageSums:
        return assign(z_BlC, tokenizer.codebook(scale), temperatures[scale : scale + 1])

    walk = [
        (z_BlC[0], sums.idx_Bl)
        for z_BlC, sums in worker.quantize_scales(latent_BChw, [name], assign_scale)
    ]
    worker.check_finite()
    rest_BChw, looks = latent_BChw, []
    for s, (z_lC, idx_Bl) in enumerate(walk):
        tokens = _tokens(z_lC, tokenizer.codebook(s), temperatures[s])
        picture_3HW, decibels = None, None
        if decoder is not None:
            rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)
            recon_B3HW = decoder(latent_BChw - rest_BChw).float().clamp(-1, 1).cpu()
            decibels = psnr(recon_B3HW, img_3HW[None].double() / 127.5 - 1).item()
            picture_3HW = ((recon_B3HW[0] + 1) * 127.5).round().to(torch.uint8)
        grid = _grid(len(z_lC), latent_BChw)
        looks.append(ScaleLook(grid, *tokens, picture_3HW, decibels))
        advance(1)
    return looks


def _grid(tokens: int, latent_BChw: Tensor) -> tuple[int, int]:
    """Rows and columns: a square of the picture's, or one row where latents have no grid."""
    height, side = latent_BChw.shape[2], math.isqrt(tokens)
    on_picture = height > 1 and side * side == tokens
    return (side, side) if on_picture else (1, tokens)


def _tokens(
    z_lC: Tensor, codebook: Codebook | Grid, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's entropy, most probable codes, and their probabilities."""
    at_once = max(1, MOST_PROBABILITIES // codebook.vocabulary.entries)
    # Each token goes as an image of its own, so that nothing is summed over tokens.
    parts = [_alone(z_NC, codebook, temperature) for z_NC in torch.split(z_lC, at_once)]
    entropy_l, code_lK, probability_lK = (torch.cat(one).cpu() for one in zip(*parts, strict=True))
    return entropy_l, code_lK, probability_lK


def _alone(z_NC: Tensor, codebook: Codebook | Grid, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    sums, vocabulary = assign(z_NC[:, None], codebook, (temperature,)), codebook.vocabulary
    q_NE = sums.soft_BTE[:, 0]
    if vocabulary.counted:
        probability_NK, code_NK = q_NE.topk(min(MOST_CODES, vocabulary.size))
    else:  # too many to list: the nearest, whose probability is the product over its levels
        assert vocabulary.levels is not None
        best = [q_NL.amax(1) for q_NL in torch.split(q_NE, list(vocabulary.levels), 1)]
        probability_NK, code_NK = torch.stack(best).prod(0)[:, None], sums.idx_Bl
    known = vocabulary.size <= MAX_INDEXABLE
    return sums.entropy_BT[:, 0], code_NK[:, : len(code_NK[0]) * known], probability_NK
