"""The generator of a benchmark: random weights, and a plain forward pass with its losses."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.generators.base import Generator
from entropy_cli.generators.layers.var_transformer import Group, VARNetwork, VARSizes, levels
from entropy_cli.generators.network import NetworkGenerator
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.streaming.coarser_scales import teacher_inputs
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec

WIDTH_OF_A_BLOCK, CLASSES = 64, 1000  # of the published sizes


def random_generator(depth: int, tokenizer: TokenizerSpec, seed: int) -> dict[str, Tensor]:
    """Return weights of VAR's transformer of a depth, for a tokenizer, as slow as trained ones.

    They preserve the variance of activations and gate nothing away.
    """
    tokens_S = tuple(scale.tokens for scale in tokenizer.scales)
    width = WIDTH_OF_A_BLOCK * depth
    sizes = (width, depth, depth, 4 * width, tokenizer.latent_dim, tokenizer.vocab_size, CLASSES)
    with torch.device("meta"):
        network = VARNetwork(VARSizes(*sizes, tokens_S))
    generator = torch.Generator().manual_seed(seed)
    weights = {"lvl_1L": levels(tokens_S, torch.device("cpu"))[None]}
    for name, weight in network.named_parameters():
        factor = 1 / math.sqrt(weight.shape[-1]) if weight.ndim > 1 else 0.0
        weights[name] = torch.randn(weight.shape, generator=generator).mul_(factor)
    return weights


def settings_for(tokenizer: TokenizerSpec) -> GeneratorSettings:
    """Return what a tokenizer shows of its generators where their files don't."""
    sides = tuple(n for n in tokenizer.patch_nums if n is not None)
    return GeneratorSettings(tokenizer.image_size, sides)


class PlainForward:
    """Teacher forcing as a researcher would write it first: one mask, all logits at once, float32.

    Args:
        generator: in float32, on the device; VAR's network is changed in place.
        tokenizer: of its tokens.
    """

    def __init__(self, generator: Generator, tokenizer: Tokenizer) -> None:
        self.generator, self.tokenizer = generator, tokenizer
        if isinstance(generator, NetworkGenerator) and isinstance(generator.network, VARNetwork):
            generator.network.__class__ = _PublishedVAR

    def losses(self, idx_BL: Tensor) -> Tensor:
        """Return means of cross-entropy, accuracies and entropy over the tokens of class 0."""
        with_inputs = self.generator.spec.latent_dim is not None
        inputs_BMC = teacher_inputs(self.tokenizer, idx_BL) if with_inputs else None
        label_B = torch.zeros(len(idx_BL), dtype=torch.int64, device=idx_BL.device)
        hidden_NC = self.generator.hidden(idx_BL, label_B, inputs_BMC).flatten(0, 1)
        logits_NV, idx_N = self.generator.logits(hidden_NC), idx_BL.flatten()
        loss = functional.cross_entropy(logits_NV, idx_N)
        hit_N5 = logits_NV.topk(min(5, logits_NV.shape[1])).indices == idx_N[:, None]
        log_p_NV = logits_NV.log_softmax(1)
        entropy = -(log_p_NV.exp() * log_p_NV).sum(1).mean()
        top1, top5 = hit_N5[:, 0].float().mean(), hit_N5.any(1).float().mean()
        return torch.stack([loss, top1, top5, entropy])


class _PublishedVAR(VARNetwork):
    """The transformer with the published code's mask over all keys."""

    def groups(self, device: torch.device) -> list[Group]:
        level_L = levels(self.sizes.tokens_S, device)
        return [Group(0, len(level_L), level_L[:, None] >= level_L)]
