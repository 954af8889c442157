"""Latents that were made elsewhere, read row by row from memory-mapped files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.image_set import GROUPS, Progress, hash_path

# The fingerprint looks at all of a tensor up to so many bytes, else at so many rows: each that is
# touched brings its surroundings into memory.
WHOLE_BYTES, SAMPLED = 2**26, 512


@dataclass(frozen=True)
class ScaleLatents:
    """The latents of one scale.

    Attributes:
        name: of the tensor, for people.
        latents_MX: of M images: (M, C), (M, l, C), (M, h, w, C), or channels first (M, C, ...).
        channels_first: which.
    """

    name: str
    latents_MX: Tensor
    channels_first: bool

    def row(self, index: int) -> np.ndarray:
        """An image's l latents, one after the other, float32."""
        row_X = self.latents_MX[index].to(torch.float32)
        return (row_X.flatten(1).T if self.channels_first else row_X).flatten().numpy()


@dataclass(frozen=True)
class LatentSet:
    """Images of which there are only latents, in the seeded order; named by their numbers.

    Attributes:
        location: where they are, for people.
        scales: of the same images.
        order_N: numbers of the images to read.
        seed: of the order and the groups.
    """

    location: str
    scales: Sequence[ScaleLatents]
    order_N: np.ndarray
    seed: int
    split = "latents"

    def __len__(self) -> int:
        """How many are to be read."""
        return len(self.order_N)

    @property
    def found(self) -> int:
        """How many there are."""
        return len(self.scales[0].latents_MX)

    def name(self, index: int) -> str:
        """An image's number in the file."""
        return str(self.order_N[index])

    def group(self, index: int) -> int:
        """Jackknife group: by the number alone, so that every run and shard agrees."""
        return hash_path(self.name(index), self.seed)[1] % GROUPS

    def read(self, index: int) -> np.ndarray | str:
        """The latents of all scales, one after the other."""
        image = int(self.order_N[index])
        row_X = np.concatenate([scale.row(image) for scale in self.scales])
        return row_X if np.isfinite(row_X).all() else "its latents have NaN or infinity"

    def fingerprint(self) -> str:
        """Hash of shapes, types and numbers, or of a sample of them if they are very many."""
        digest = hashlib.sha256()
        for scale in self.scales:
            latents_MX = scale.latents_MX
            digest.update(
                f"{tuple(latents_MX.shape)} {latents_MX.dtype} {scale.channels_first}".encode()
            )
            is_small = latents_MX.numel() * latents_MX.element_size() <= WHOLE_BYTES
            sampled = len(latents_MX) if is_small else min(SAMPLED, len(latents_MX))
            rows = np.linspace(0, len(latents_MX) - 1, sampled)
            for row in rows.astype(np.int64).tolist():
                digest.update(latents_MX[row].contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def find_latents(
    location: str, scales: Sequence[ScaleLatents], *, seed: int, limit: int | None, progress: Progress
) -> LatentSet:
    """Put the images of these latents in the seeded order, that of their numbers' hashes.

    Raises:
        DatasetError: there are none, or not the same number at every scale.
    """
    images = {scale.name: len(scale.latents_MX) for scale in scales}
    if len(set(images.values())) > 1:
        listed = ", ".join(f"{number} in {name}" for name, number in images.items())
        raise DatasetError(
            f"{location}: got {listed}; expected latents of the same images at every scale."
        )
    number = next(iter(images.values()))
    if not number:
        raise DatasetError(f"{location}: no latents found. Expected (images, ...).")
    key_N = np.empty(number, np.uint64)
    for i in range(number):
        key_N[i] = hash_path(str(i), seed)[0]
        progress(1)
    return LatentSet(location, scales, np.argsort(key_N, kind="stable")[:limit], seed)
