"""Random weights of VAR's layout, as slow to compute with as trained ones."""

import torch
from torch import Tensor

from entropy_cli.tokenizers.layers.var_layout import VARSizes, var_shapes


def random_weights(sizes: VARSizes, seed: int) -> dict[str, Tensor]:
    """Return weights that preserve the variance of activations, with identity norms."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in var_shapes(sizes).items():
        if len(shape) > 1:
            fan_in = torch.Size(shape[1:]).numel()
            weights[name] = torch.randn(shape, generator=generator) / fan_in**0.5
        else:
            is_scale = ".norm" in name and name.endswith(".weight")
            weights[name] = torch.ones(shape) if is_scale else torch.zeros(shape)
    return weights
