"""The sufficient statistic of a run: sums over images, kept apart by jackknife group, added by `+`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from entropy_cli.entropy.sums import ImageSums


@dataclass
class Tally:
    """Sums over the images read so far, for G groups, S scales, T temperatures and E entries.

    Entries are codes, or the levels of every dimension of codes too many to count; scales that have
    fewer than others leave the last ones zero. float64 sums and int64 counts. Adding two tallies of
    disjoint images gives the tally of their union.
    """

    tokens_S: Tensor  # tokens an image has at each scale: a constant, not a sum
    images_G: Tensor
    entropy_GST: Tensor  # nats, over tokens
    varentropy_GST: Tensor  # nats^2, over tokens
    distance_GST: Tensor  # expected squared distance under q, over tokens
    min_distance_GS: Tensor  # squared distance to the nearest code, over tokens
    soft_GSTE: Tensor  # soft assignment, over tokens
    counts_GSE: Tensor  # hard assignment, over tokens
    # Squares over images, which measure how alike the tokens of one image are.
    entropy_squares_ST: Tensor  # of an image's mean entropy
    soft_squares_STE: Tensor  # of an image's mean soft assignment
    count_squares_SE: Tensor  # of an image's counts

    @classmethod
    def zeros(
        cls,
        groups: int,
        tokens_S: Sequence[int],
        temperatures: int,
        entries: int,
        device: torch.device | str = "cpu",
    ) -> "Tally":
        """An empty tally, the neutral element of `+`."""
        G, S, T, E = groups, len(tokens_S), temperatures, entries
        sums: dict[str, Any] = {"dtype": torch.float64, "device": device}
        counts: dict[str, Any] = {"dtype": torch.int64, "device": device}
        return cls(
            tokens_S=torch.tensor(list(tokens_S), **counts),
            images_G=torch.zeros(G, **counts),
            entropy_GST=torch.zeros(G, S, T, **sums),
            varentropy_GST=torch.zeros(G, S, T, **sums),
            distance_GST=torch.zeros(G, S, T, **sums),
            min_distance_GS=torch.zeros(G, S, **sums),
            soft_GSTE=torch.zeros(G, S, T, E, **sums),
            counts_GSE=torch.zeros(G, S, E, **counts),
            entropy_squares_ST=torch.zeros(S, T, **sums),
            soft_squares_STE=torch.zeros(S, T, E, **sums),
            count_squares_SE=torch.zeros(S, E, **counts),
        )

    def add_images(self, group_B: Tensor, scales: Sequence[ImageSums]) -> None:
        """Add B images in place, given their group and their sums at every scale."""
        self.images_G.index_add_(0, group_B, torch.ones_like(group_B))
        for s, image in enumerate(scales):
            counts_BE = image.counts_BE
            entries = slice(counts_BE.shape[1])
            for total_G, image_B in (
                (self.entropy_GST[:, s], image.entropy_BT),
                (self.varentropy_GST[:, s], image.varentropy_BT),
                (self.distance_GST[:, s], image.distance_BT),
                (self.min_distance_GS[:, s], image.min_distance_B),
                (self.soft_GSTE[:, s, :, entries], image.soft_BTE),
                (self.counts_GSE[:, s, entries], counts_BE),
            ):
                total_G.index_add_(0, group_B, image_B)
            self.entropy_squares_ST[s] += (image.entropy_BT / image.tokens).square().sum(0)
            self.soft_squares_STE[s, :, entries] += (image.soft_BTE / image.tokens).square().sum(0)
            self.count_squares_SE[s, entries] += counts_BE.square().sum(0)

    def __add__(self, other: "Tally") -> "Tally":
        """Tally of the union of two disjoint sets of images."""
        if not torch.equal(self.tokens_S, other.tokens_S):
            raise ValueError("tallies of other scales can't be added")
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name != "tokens_S"
        }
        return Tally(tokens_S=self.tokens_S, **sums)

    def to(self, device: torch.device | str) -> "Tally":
        """Copy to a device; the tally itself if it is there already."""
        return Tally(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Every field by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
