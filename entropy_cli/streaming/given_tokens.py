"""Tokens that a run saved, as the inputs of another: nothing is encoded or assigned."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.quantity import Cluster
from entropy_cli.images.image_set import group_of
from entropy_cli.streaming.token_table import ReadRows
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.precision import Precision


@dataclass(frozen=True)
class TokenSet:
    """The tokens of images, in the order in which the run that saved them read the images.

    Attributes:
        location: the file.
        names: relative paths of the images.
        read_rows: reads some rows by their numbers.
        split, found, seed, cluster: as of the run that saved them.
    """

    location: str
    names: list[str]
    read_rows: ReadRows
    split: str
    found: int
    seed: int
    cluster: Cluster

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the relative path of an image."""
        return self.names[index]

    def group(self, index: int) -> int:
        """Return an image's jackknife group, as the run that saved the tokens did."""
        return group_of(self.name(index), self.seed, self.cluster)

    def read(self, index: int) -> np.ndarray | str:
        """Return the tokens of an image, int64 (L,)."""
        return self.read_rows([index])[0]

    def fingerprint(self) -> str:
        """Return a hash of the paths, in order."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()


class GivenTokens:
    """A tokenizer whose inputs are tokens already; see `tokenizers.base.Tokenizer`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.spec = tokenizer, tokenizer.spec

    def to(self, device: torch.device, precision: Precision) -> Tokenizer:
        """Return the same on a device; no precision matters, because nothing is encoded."""
        return GivenTokens(self.tokenizer.to(device, precision))

    def codebook(self, scale: int) -> Codebook | Grid:
        """Return the codes of a scale."""
        return self.tokenizer.codebook(scale)

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Return the tokens idx_BL as they are."""
        return img_B3HW

    def vectors(self, rest_BChw: Tensor, scale: int) -> Tensor:
        """Return the latents at a scale."""
        return self.tokenizer.vectors(rest_BChw, scale)

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """Return the residual minus what a scale's codes explain."""
        return self.tokenizer.subtract(rest_BChw, idx_Bl, scale)
