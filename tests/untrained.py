"""An untrained tokenizer of VAR's layout: a random encoder, and its own residuals as codes."""

from pathlib import Path

import torch

from entropy_cli.commands.bench.random_weights import random_weights
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.families.var import VAR, VARTokenizer

# Standard deviation of the latents: wide enough that a temperature of 1 tells codes apart.
LATENT_SPREAD = 3.0


@torch.no_grad()
def untrained_weights(img_B3HW, sizes, settings, seed):
    """A state dict of the published layout, with codes that fit these uint8 pictures."""
    weights = random_weights(sizes, seed)
    checkpoint = Checkpoint.of_tensors(Path("untrained"), weights)
    spread = VAR().build(checkpoint, settings).encode(img_B3HW).std()
    weights["quant_conv.weight"] *= LATENT_SPREAD / spread
    tokenizer = VAR().build(checkpoint, settings)
    weights["quantize.embedding.weight"] = _codes_from_residuals(tokenizer, img_B3HW, seed)
    return weights


def _codes_from_residuals(tokenizer, img_B3HW, seed):
    """A codebook whose rows are residuals of these pictures, some from each scale.

    Going down the scales, a share of what is left to be assigned is picked at random, then the
    residual is quantised with all codes so far. The tokenizer's own codes are replaced.
    """
    generator = torch.Generator().manual_seed(seed)
    spec = tokenizer.spec
    codebook_VC = torch.zeros(spec.vocab_size, spec.latent_dim)
    rest_BChw = tokenizer.encode(img_B3HW)
    filled = 0
    for s in range(len(spec.scales)):
        z_BlC = tokenizer.vectors(rest_BChw, s)
        z_NC = z_BlC.flatten(0, 1)
        wanted = (spec.vocab_size - filled) // (len(spec.scales) - s)
        picked = torch.randperm(len(z_NC), generator=generator)[:wanted]
        codebook_VC[filled:] = z_NC[picked[0]]  # no code is left unset; later scales overwrite
        codebook_VC[filled : filled + len(picked)] = z_NC[picked]
        filled += len(picked)
        tokenizer = VARTokenizer(spec, tokenizer.network, [Codebook(codebook_VC, spec.rule)])
        idx_Bl = assign(z_BlC, tokenizer.codebook(s), ()).idx_Bl
        rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)
    return codebook_VC
