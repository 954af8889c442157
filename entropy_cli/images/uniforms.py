"""Random numbers of an image's tokens, the same in every run and part of a run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from entropy_cli.images.image_set import hash_path


def uniforms(names: Sequence[str], seed: int, tokens: int) -> Tensor:
    """Return a uniform number in (0, 1) for each token of each image, float64 (B, L).

    They depend on the image's relative path, the seed and the token's place alone: Philox counts up from
    a key that is their hash.

    Source:
        Salmon, Moraes, Dror & Shaw 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    raw_BL = np.empty((len(names), tokens), np.uint64)
    for raw_L, name in zip(raw_BL, names, strict=True):
        high, low = hash_path(name, seed)
        raw_L[:] = np.random.Philox(key=high << 64 | low).random_raw(tokens)
    return torch.from_numpy(((raw_BL >> np.uint64(12)) + 0.5) * 2.0**-52)  # exact: neither 0 nor 1
