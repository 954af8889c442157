"""Latents computed elsewhere, read row by row from their files."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from entropy_cli.core.errors import DatasetError
from entropy_cli.entropy.quantity import Cluster
from entropy_cli.images.image_set import group_of, hash_path
from entropy_cli.images.roots import Progress

# The fingerprint hashes all of a tensor of up to WHOLE_BYTES, else SAMPLED rows.
WHOLE_BYTES, SAMPLED = 2**26, 512


class _ArraySource(Protocol):
    """An array in a file; `read` reads the part that slices of the first axes select."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def read(self, *index: slice) -> Tensor: ...


@dataclass(frozen=True)
class ScaleLatents:
    """The latents of one scale."""

    name: str  # of the tensor
    source: _ArraySource  # of M images: (M, C), (M, l, C), (M, h, w, C), or channels first (M, C, ...)
    channels_first: bool

    def row(self, index: int) -> np.ndarray:
        """Return an image's l latents, flattened from (l, C), float32."""
        row_X = self.source.read(slice(index, index + 1))[0].to(torch.float32)
        return (row_X.flatten(1).T if self.channels_first else row_X).flatten().numpy()


@dataclass(frozen=True)
class LatentSet:
    """Latents of images in the seeded order; an image is named by its row number."""

    location: str  # the path of the file
    scales: Sequence[ScaleLatents]
    order_N: np.ndarray  # row numbers of the images to read
    seed: int  # of the order and the groups
    split = "latents"
    cluster: ClassVar[Cluster] = "image"  # what the groups keep together

    def __len__(self) -> int:
        """Return the number of images to read."""
        return len(self.order_N)

    @property
    def found(self) -> int:
        """The number of images in the file."""
        return self.scales[0].source.shape[0]

    def name(self, index: int) -> str:
        """Return an image's row number in the file."""
        return str(self.order_N[index])

    def group(self, index: int) -> int:
        """Return an image's jackknife group, from its row number alone: every run and shard agrees."""
        return group_of(self.name(index), self.seed)

    def read(self, index: int) -> np.ndarray | str:
        """Return the latents of all scales, concatenated, or why they are unusable."""
        image = int(self.order_N[index])
        row_X = np.concatenate([scale.row(image) for scale in self.scales])
        return row_X if np.isfinite(row_X).all() else "its latents have NaN or infinity"

    def fingerprint(self) -> str:
        """Return a hash of shapes, dtypes and values, or of a sample of the values of a large file."""
        digest = hashlib.sha256()
        for scale in self.scales:
            shape, dtype = tuple(scale.source.shape), scale.source.dtype
            digest.update(f"{shape} {dtype} {scale.channels_first}".encode())
            if math.prod(shape) * dtype.itemsize <= WHOLE_BYTES:
                parts = [slice(None)]
            else:
                rows = np.linspace(0, shape[0] - 1, min(SAMPLED, shape[0])).astype(np.int64).tolist()
                parts = [slice(row, row + 1) for row in rows]
            for part in parts:
                number_MX = scale.source.read(part).contiguous()
                digest.update(number_MX.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def find_latents(
    location: str, scales: Sequence[ScaleLatents], *, seed: int, limit: int | None, progress: Progress
) -> LatentSet:
    """Put the images of these latents in the seeded order, by the hashes of their row numbers.

    Raises:
        DatasetError: there are no images, or scales have different numbers of images.
    """
    images = {scale.name: scale.source.shape[0] for scale in scales}
    if len(set(images.values())) > 1:
        listed = ", ".join(f"{count} in {name}" for name, count in images.items())
        raise DatasetError(
            f"{location}: got {listed}; expected latents of the same images at every scale."
        )
    count = next(iter(images.values()))
    if not count:
        raise DatasetError(f"{location}: no latents found. Expected (images, ...).")
    key_N = np.empty(count, np.uint64)
    for i in range(count):
        key_N[i] = hash_path(str(i), seed)[0]
        progress(1)
    return LatentSet(location, scales, np.argsort(key_N, kind="stable")[:limit], seed)
