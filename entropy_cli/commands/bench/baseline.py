"""The baseline of `bench`: the loop a researcher would write first.

Eager float32 in NCHW layout, images decoded one by one in the same process, the full distance matrix,
softmax and its logarithm, all sums in float32.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.entropy.codebook import Codebook
from entropy_cli.images.decode import read_image
from entropy_cli.images.image_set import ImageSet
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.layers.autoencoder import Encoder, ResnetBlock


class PlainLoop:
    """A tokenizer without the program's optimizations.

    Args:
        tokenizer: in float32, on the device; its modules are changed in place.
        temperatures: divisors of the squared distance.
    """

    def __init__(self, tokenizer: Tokenizer, temperatures: Sequence[float]) -> None:
        self.tokenizer, self.temperatures = tokenizer, temperatures
        networks = [part for part in vars(tokenizer).values() if isinstance(part, nn.Module)]
        for module in (module for network in networks for module in network.modules()):
            # Norms are torch's own where the layout is.
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.contiguous_format)
            elif isinstance(module, Encoder):
                module.memory_format = torch.contiguous_format
            elif isinstance(module, ResnetBlock):
                module.__class__ = _PublishedBlock

    def decode(self, images: ImageSet, indices: Iterable[int]) -> Tensor:
        """Decode images one by one: uint8 (B, 3, H, W)."""
        pictures = (read_image(images.locate(i), self.tokenizer.spec.crop.apply) for i in indices)
        return torch.stack([p.contiguous() for p in pictures if isinstance(p, Tensor)])

    def quantise(self, rest_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return assignment entropies (S, T), marginals (S, T, V) and hard tokens (B, L)."""
        scales = len(self.tokenizer.spec.scales)
        entropies, marginals, tokens = [], [], []
        for scale in range(scales):
            z_BlC = self.tokenizer.vectors(rest_BChw, scale)
            distance_NV = self._distances(z_BlC.reshape(-1, z_BlC.shape[2]), scale)
            idx_Bl = distance_NV.argmin(1).view(z_BlC.shape[:2])
            for temperature in self.temperatures:
                q_NV = torch.softmax(-distance_NV / temperature, dim=1)
                entropies.append(-(q_NV * torch.log(q_NV.clamp(min=1e-30))).sum(1).mean())
                marginals.append(q_NV.sum(0) / len(q_NV))
            tokens.append(idx_Bl)
            if scale + 1 < scales:
                rest_BChw = self.tokenizer.subtract(rest_BChw, idx_Bl, scale)
        shape = (scales, len(self.temperatures))
        marginal_STV = torch.stack(marginals).view(*shape, -1)
        return torch.stack(entropies).view(shape), marginal_STV, torch.cat(tokens, 1)

    def _distances(self, z_NC: Tensor, scale: int) -> Tensor:
        codebook = self.tokenizer.codebook(scale)
        assert isinstance(codebook, Codebook)
        codes_VC = codebook.codes_VC
        if codebook.rule == "cosine":
            z_NC, codes_VC = functional.normalize(z_NC, dim=1), functional.normalize(codes_VC, dim=1)
        norms_NV = z_NC.square().sum(1, keepdim=True) + codes_VC.square().sum(1)
        return norms_NV - 2 * z_NC @ codes_VC.T


class _PublishedBlock(ResnetBlock):
    """The residual block of the published code, which keeps its input."""

    def _run(self, x_BChw: Tensor) -> Tensor:
        h_BChw = self.conv1(self.norm1.then_silu(x_BChw))
        h_BChw = self.conv2(self.norm2.then_silu(h_BChw))
        return self.nin_shortcut(x_BChw) + h_BChw
