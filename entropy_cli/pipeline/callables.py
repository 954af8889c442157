"""A Python callable that makes latents, as a tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor

from entropy_cli.errors import DatasetError, EntropyCliError, ShapeError
from entropy_cli.functional.codebook import VECTOR_RULES, Rule
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.latents import LatentsTokenizer, describe_latents

Encode: TypeAlias = Callable[[Tensor], Tensor | Sequence[Tensor]]


@dataclass(frozen=True)
class Given:
    """A callable and what its latents are assigned to."""

    encode: Encode
    codebook: Tensor | Sequence[Tensor] | None
    rule: Rule
    levels: tuple[int, ...] | None

    def opened(self, images: Iterator[Tensor]) -> tuple[Tokenizer, Iterator[Tensor]]:
        """A tokenizer that fits the first batch's latents, and all latents, a row for each image."""
        first = next(images, None)
        if first is None:
            raise DatasetError("there are no images.")
        self._check()
        latents = self._latents(first)
        tables = self._tables(len(latents))
        names = [f"scale {s}" for s in range(len(latents))]
        described = [
            describe_latents(name, tuple(of_scale.shape), self.rule, table, self.levels)
            for name, of_scale, table in zip(names, latents, tables, strict=True)
        ]
        scales = [
            scale if len(latents) > 1 else replace(scale, name=scale.grid) for _, scale in described
        ]
        shapes = [of_scale.shape[1:] for of_scale in latents]

        def packed(latents: Sequence[Tensor]) -> Tensor:
            got = [of_scale.shape[1:] for of_scale in latents]
            if got != shapes:
                raise ShapeError(f"latents: got shapes {got} an image, expected {shapes} as before")
            rows = [
                (of_scale.flatten(2).transpose(1, 2) if first else of_scale).flatten(1)
                for of_scale, (first, _) in zip(latents, described, strict=True)
            ]
            return torch.cat(rows, 1).to("cpu", torch.float32)

        model = LatentsTokenizer(scales, self.rule, "none: latents of a Python callable")
        return model, chain([packed(latents)], (packed(self._latents(batch)) for batch in images))

    def _check(self) -> None:
        """That the rule has what it needs, and nothing else."""
        if self.rule not in (*VECTOR_RULES, "sign", "bsq", "levels"):
            raise EntropyCliError(f"rule {self.rule}: expected l2, cosine, dot, sign, bsq or levels.")
        for name, value, wanted in (
            ("codebook", self.codebook, self.rule in VECTOR_RULES),
            ("levels", self.levels, self.rule == "levels"),
        ):
            if (value is not None) != wanted:
                what = "needs" if wanted else "has no use for"
                raise EntropyCliError(f"rule {self.rule}: {what} {name}.")

    def _latents(self, batch: Tensor) -> list[Tensor]:
        latents = self.encode(batch)
        found = [latents] if isinstance(latents, Tensor) else list(latents)
        for of_scale in found:
            if not isinstance(of_scale, Tensor) or len(of_scale) != len(batch):
                raise ShapeError(f"latents: expected a tensor of {len(batch)} images for each scale")
        return found

    def _tables(self, scales: int) -> list[Tensor | None]:
        if self.codebook is None or isinstance(self.codebook, Tensor):
            return [self.codebook] * scales
        if len(self.codebook) != scales:
            raise ShapeError(
                f"codebook: got {len(self.codebook)}, expected one, or {scales} for the scales"
            )
        return list(self.codebook)
