"""The soft assignments of one image, token by token and scale by scale."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from entropy_cli.commands.show.result import ShownScale
from entropy_cli.entropy.assign import MAX_INDEXABLE, assign
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.images.loader import Batch
from entropy_cli.images.psnr import psnr
from entropy_cli.streaming.batch_processor import BatchProcessor

TOP_CODES = 3  # per token, the most probable first
MOST_PROBABILITIES = 2**23  # held at once


def encode_images(processor: BatchProcessor, names: Sequence[str], img_B3HW: Tensor) -> Tensor:
    """Return the latents f_BChw of uint8 images of the tokenizer's size, the same as in `estimate`.

    Raises:
        EntropyCliError: not enough memory for a single image.
    """
    group_B = torch.zeros(len(names), dtype=torch.int64)
    indices = list(range(len(names)))
    (batch,) = processor.encode([Batch(img_B3HW, group_B, list(names), indices, [], (0,))])
    return batch.input_B[: len(names)]


def assign_image(
    processor: BatchProcessor,
    name: str,
    img_3HW: Tensor,
    f_BChw: Tensor,
    temperatures: Sequence[float],
    decoder: nn.Module | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[list[ShownScale], list[Tensor]]:
    """Assign the tokens of an image to codes, scale by scale.

    Args:
        processor: holds the tokenizer.
        name: of the image, for messages.
        img_3HW: uint8, of the tokenizer's size.
        f_BChw: latent of this one image (B = 1), from `encode_images`.
        temperatures: of each scale, divisors of the squared distance.
        decoder: maps a reconstructed latent to an image around [-1, 1], on the device.
        advance: is called with 1 after each scale.

    Returns:
        The scales, and the images decoded from the codes up to each, uint8 (H, W, 3) on the CPU; none
        without a decoder.

    Raises:
        EntropyCliError: the latents are not finite.
    """
    tokenizer = processor.tokenizer
    scale_sums = processor.quantize_scales(f_BChw, [name], [[t] for t in temperatures])
    quantized = [(z_BlC[0], sums.idx_Bl) for z_BlC, sums in scale_sums]
    processor.finish_batches()
    rest_BChw, scales, recons = f_BChw, [], []
    for s, (z_lC, idx_Bl) in enumerate(quantized):
        psnr_db = None
        if decoder is not None:
            rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)
            recon_B3HW = decoder(f_BChw - rest_BChw).float().clamp(-1, 1).cpu()
            psnr_db = psnr(recon_B3HW, img_3HW[None].double() / 127.5 - 1).item()
            recons.append(((recon_B3HW[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0))
        spec, T = tokenizer.spec.scales[s], temperatures[s]
        tokens = (tensor.tolist() for tensor in assign_tokens(z_lC, tokenizer.codebook(s), T))
        place = s, spec.name, spec.patch_num, _grid(len(z_lC), spec.patch_num, f_BChw)
        scales.append(ShownScale(*place, T, psnr_db, *tokens))
        advance(1)
    return scales, recons


def _grid(tokens: int, patch_num: int | None, f_BChw: Tensor) -> tuple[int, int]:
    """Return the rows and columns of the tokens: a square, or one row where latents have no grid."""
    if patch_num is not None:
        return patch_num, patch_num
    height, side = f_BChw.shape[2], math.isqrt(tokens)
    return (side, side) if height > 1 and side * side == tokens else (1, tokens)


def assign_tokens(
    z_lC: Tensor, codebook: Codebook | Grid, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each token's entropy, most probable codes, and their probabilities, (l,) and twice (l, K).

    The entropy is in nats, float64. There are no codes where they have no index.
    """
    at_once = max(1, MOST_PROBABILITIES // codebook.vocabulary.entries)
    parts = [_assign_separately(z_NC, codebook, temperature) for z_NC in torch.split(z_lC, at_once)]
    entropy_l, code_lK, probability_lK = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return entropy_l, code_lK, probability_lK


def _assign_separately(
    z_NC: Tensor, codebook: Codebook | Grid, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    # Each token is passed as an image of its own, so that nothing is summed over tokens.
    sums, vocabulary = assign(z_NC[:, None], codebook, (temperature,)), codebook.vocabulary
    q_NE = sums.soft_BTE[:, 0]
    if vocabulary.counted:
        probability_NK, code_NK = q_NE.topk(min(TOP_CODES, vocabulary.size))
    else:  # too many to list: the nearest, whose probability is the product over its levels
        assert vocabulary.levels is not None
        best = [q_NL.amax(1) for q_NL in torch.split(q_NE, list(vocabulary.levels), 1)]
        probability_NK, code_NK = torch.stack(best).prod(0)[:, None], sums.idx_Bl
    numbered = vocabulary.size <= MAX_INDEXABLE
    return sums.entropy_BT[:, 0], code_NK[:, : len(code_NK[0]) * numbered], probability_NK
