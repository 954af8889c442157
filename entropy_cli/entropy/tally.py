"""The sufficient statistic of an estimate: sums over images by jackknife group, added by `+`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from entropy_cli.entropy.accumulator import ROUNDING, Accumulator
from entropy_cli.entropy.sums import ImageSums, SumsLayout


@dataclass
class Tally(Accumulator):
    """Sums over the images read so far, for G groups, S scales, T temperatures and E entries.

    Entries are codes, or the levels of every dimension where codes are too many to count; a scale with
    fewer entries than others leaves the last ones zero.
    """

    NAME: ClassVar[str] = "tally"
    VERSION: ClassVar[int] = 2
    INTEGERS: ClassVar[tuple[str, ...]] = ("tokens_S", "images_G", "counts_GSE", "count_squares_SE")
    SIGNED: ClassVar[tuple[str, ...]] = ("distance_GST", "min_distance_GS")

    entropy_GST: Tensor  # nats, over tokens
    varentropy_GST: Tensor  # nats^2, over tokens
    distance_GST: Tensor  # expected squared distance under q, over tokens
    min_distance_GS: Tensor  # squared distance to the nearest code, over tokens
    soft_GSTE: Tensor  # soft assignment, over tokens
    counts_GSE: Tensor  # hard assignment, over tokens
    # Sums over images of squares, which measure how correlated the tokens of one image are.
    entropy_products_SS: Tensor  # of an image's mean entropies, at the first temperature
    soft_squares_STE: Tensor  # of an image's mean soft assignment
    count_squares_SE: Tensor  # of an image's counts

    def add(self, group_B: Tensor, scales: Sequence[ImageSums]) -> None:
        """Add B images in place, given their group and their sums at every scale."""
        self.images_G.index_add_(0, group_B, torch.ones_like(group_B))
        mean_BS = torch.stack([image.entropy_BT[:, 0] / image.tokens for image in scales], 1)
        self.entropy_products_SS.add_(mean_BS.T @ mean_BS)
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
            # Methods in place: `+=` on a slice also copies the slice onto itself.
            soft_squares_TE = (image.soft_BTE / image.tokens).square().sum(0)
            self.soft_squares_STE[s, :, entries].add_(soft_squares_TE)
            self.count_squares_SE[s, entries].add_(counts_BE.square().sum(0))

    @property
    def watched(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `history_point`: what a run watches on the way."""
        return self.entropy_GST[..., 0], self.entropy_products_SS, self.images_G, self.tokens_S

    def check_values(self, layout: SumsLayout) -> None:
        """Raise ValueError unless counts and probabilities add up to the tokens of the images."""
        # A token is counted once, or once in each dimension.
        counts_S = [1 if v.counted else len(v.levels or ()) for v in layout.vocabularies]
        expected_GS = self.images_G[:, None] * torch.tensor(layout.tokens_S) * torch.tensor(counts_S)
        if not torch.equal(self.counts_GSE.sum(2), expected_GS):
            raise ValueError("its counts of codes do not add up to the tokens")
        excess_GST = (self.soft_GSTE.sum(3) - expected_GS[..., None]).abs()
        if (excess_GST > ROUNDING * expected_GS[..., None]).any():
            raise ValueError("its soft assignments do not add up to the tokens")
        log_size_S = torch.tensor([math.log(vocabulary.size) for vocabulary in layout.vocabularies])
        bound_GS = self.images_G[:, None] * self.tokens_S * log_size_S.double() * (1 + ROUNDING)
        if (self.entropy_GST > bound_GS[..., None]).any():
            raise ValueError("its entropies are above the logarithm of the number of codes")
