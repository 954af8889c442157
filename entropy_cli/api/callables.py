"""A Python callable that makes latents, as a tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor

from entropy_cli.api.arrays import Array, check_batch, describe, to_tensor
from entropy_cli.api.batches import whole_numbers
from entropy_cli.core.errors import DatasetError, EntropyCliError, ShapeError
from entropy_cli.entropy.codebook import Rule
from entropy_cli.entropy.vocabulary import MOST_LEVELS, VECTOR_RULES
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.latents import (
    Channels,
    LatentsTokenizer,
    codes_of_scales,
    describe_latents,
)

# Takes a batch, whose type is the user's own affair.
Encode: TypeAlias = Callable[[Any], Array | Sequence[Array]]


@dataclass(frozen=True)
class Codes:
    """Hold what the latents of a callable are assigned to; see `estimate`."""

    codebook: Array | Sequence[Array] | None
    rule: Rule | None
    levels: Sequence[int] | None
    channels: Channels | None

    def open(self, encode: Encode, images: Iterator[Array]) -> tuple[Tokenizer, Iterator[Tensor]]:
        """Return a tokenizer that fits the first batch's latents, and all latents, a row an image."""
        rule = self.rule or "l2"
        levels = whole_numbers("levels", self.levels, MOST_LEVELS, 2)
        self._check(rule)
        first = next(images, None)
        if first is None:
            raise DatasetError("there are no images.")
        latents = _latents(encode, first)
        tables = self._tables(len(latents))
        names = [f"scale {s}" for s in range(len(latents))]
        described = [
            describe_latents(name, tuple(latent.shape), rule, table, levels, self.channels)
            for name, latent, table in zip(names, latents, tables, strict=True)
        ]
        scales = [
            scale if len(latents) > 1 else replace(scale, name=scale.grid) for _, scale in described
        ]
        shapes = [latent.shape[1:] for latent in latents]

        def packed(latents: Sequence[Tensor]) -> Tensor:
            got = [latent.shape[1:] for latent in latents]
            if got != shapes:
                was, now = (", ".join(str(tuple(shape)) for shape in each) for each in (shapes, got))
                raise ShapeError(f"latents: got shapes {now} an image, expected {was} as before.")
            rows = [
                (latent.flatten(2).transpose(1, 2) if first else latent).flatten(1)
                for latent, (first, _) in zip(latents, described, strict=True)
            ]
            return torch.cat([row_BX.to("cpu", torch.float32) for row_BX in rows], 1)

        model = LatentsTokenizer(scales, rule, "none: latents of a Python callable")
        return model, chain([packed(latents)], (packed(_latents(encode, batch)) for batch in images))

    def _check(self, rule: Rule) -> None:
        """Raise EntropyCliError unless the rule has what it needs, and nothing else."""
        if rule not in (*VECTOR_RULES, "sign", "bsq", "levels"):
            raise EntropyCliError(f"rule {rule}: expected l2, cosine, dot, sign, bsq or levels.")
        for name, value, wanted in (
            ("codebook", self.codebook, rule in VECTOR_RULES),
            ("levels", self.levels, rule == "levels"),
        ):
            if (value is not None) != wanted:
                what = "needs" if wanted else "has no use for"
                raise EntropyCliError(f"rule {rule}: {what} {name}.")
        if self.channels not in (None, "first", "last"):
            raise EntropyCliError(f"channels {self.channels}: expected first or last.")

    def _tables(self, scales: int) -> list[Tensor | None]:
        if self.codebook is None:
            return [None] * scales
        listed = self.codebook if isinstance(self.codebook, (list, tuple)) else [self.codebook]
        codebooks = []
        for codebook in listed:
            if not isinstance(codebook, Array):
                raise EntropyCliError(f"codebook: got {describe(codebook)}, expected a tensor (V, C).")
            codebooks.append(to_tensor("codebook", codebook))
        tables = codes_of_scales(codebooks, scales)
        if tables is None:
            shapes = ", ".join(str(tuple(codebook.shape)) for codebook in codebooks) or "none"
            raise ShapeError(
                f"codebook: got {shapes} for {scales} scale{'s' * (scales > 1)} of latents, expected "
                "one (V, C) for all, or one for each."
            )
        return [*tables]


def _latents(encode: Encode, batch: Array) -> list[Tensor]:
    """Return the latents of each scale."""
    check_batch(batch)
    given = encode(batch)
    listed = [given] if isinstance(given, Array) else given
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ShapeError(
            f"latents: got {describe(given)}, expected a tensor, or a sequence of one for each scale."
        )
    latents = []
    for value in listed:
        latent = to_tensor("latents", value) if isinstance(value, Array) else None
        if latent is None or not latent.is_floating_point():
            raise ShapeError(
                f"latents: got {describe(value)}, expected tensors of floating-point numbers."
            )
        if latent.ndim < 2 or len(latent) != len(batch):
            raise ShapeError(
                f"latents: got {describe(latent)} for a batch of {len(batch)} images, "
                f"expected ({len(batch)}, C, h, w), ({len(batch)}, C, l) or ({len(batch)}, C)."
            )
        latents.append(latent)
    return latents
