"""The sufficient statistic of a generator's losses: sums over images by jackknife group."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from entropy_cli.entropy.accumulator import ROUNDING, Accumulator
from entropy_cli.entropy.sums import SumsLayout


@dataclass
class ImageLosses:
    """Sums of a model's token losses over the tokens of each image at each scale, float64.

    Some images are checked: their losses are computed with the null class too.
    """

    cross_entropy_BS: Tensor  # nats
    top1_BS: Tensor  # tokens that are the most likely code
    top5_BS: Tensor  # or among the five most likely
    predictive_entropy_BS: Tensor  # nats
    kl_BST: Tensor  # nats, of the soft labels at T temperatures; T is 0 without soft labels
    checked_B: Tensor  # bool
    null_BS: Tensor  # nats, the cross-entropy with the null class; 0 for images that are not checked

    @classmethod
    def joined(cls, parts: list["ImageLosses"]) -> "ImageLosses":
        """Join the losses of consecutive images."""
        return cls(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})

    @property
    def nats_B(self) -> Tensor:
        """The loss of all tokens of each image; NaN where any of its losses is not finite."""
        others = (self.predictive_entropy_BS, self.null_BS, self.kl_BST.flatten(1))
        not_finite_B = torch.cat([value_BX.mul(0) for value_BX in others], 1).sum(1)
        return self.cross_entropy_BS.sum(1) + not_finite_B

    def first(self, images: int) -> "ImageLosses":
        """Return the losses of only the first images."""
        return ImageLosses(**{name: value_B[:images] for name, value_B in vars(self).items()})


@dataclass
class LossTally(Accumulator):
    """Sums of a model's token losses over the images read so far: G groups, S scales, T temperatures.

    The checked images are those whose losses are computed with the null class too.
    """

    NAME: ClassVar[str] = "losses"
    VERSION: ClassVar[int] = 1
    INTEGERS: ClassVar[tuple[str, ...]] = ("tokens_S", "images_G", "top1_GS", "top5_GS", "checked_G")

    cross_entropy_GS: Tensor  # nats, over tokens
    top1_GS: Tensor  # tokens that are the most likely code
    top5_GS: Tensor
    predictive_entropy_GS: Tensor  # nats, over tokens
    kl_GST: Tensor  # nats, over tokens
    cross_entropy_products_SS: Tensor  # sums over images of products of an image's mean cross-entropies
    checked_G: Tensor  # images
    checked_cross_entropy_GS: Tensor  # nats, over tokens of checked images
    checked_null_GS: Tensor  # the same with the null class
    worth_squares_G: Tensor  # over checked images, of what the class is worth: nats^2 an image

    def add(self, group_B: Tensor, losses: ImageLosses) -> None:
        """Add B images in place, given their group and their losses."""
        mean_BS = losses.cross_entropy_BS / self.tokens_S
        self.cross_entropy_products_SS.add_(mean_BS.T @ mean_BS)
        checked_B1 = losses.checked_B[:, None]
        worth_B = (losses.null_BS - losses.cross_entropy_BS).sum(1)
        for total_G, image_B in (
            (self.images_G, torch.ones_like(group_B)),
            (self.cross_entropy_GS, losses.cross_entropy_BS),
            (self.top1_GS, losses.top1_BS.long()),
            (self.top5_GS, losses.top5_BS.long()),
            (self.predictive_entropy_GS, losses.predictive_entropy_BS),
            (self.kl_GST, losses.kl_BST),
            (self.checked_G, losses.checked_B.long()),
            (self.checked_cross_entropy_GS, losses.cross_entropy_BS * checked_B1),
            (self.checked_null_GS, losses.null_BS),
            (self.worth_squares_G, worth_B.square() * losses.checked_B),
        ):
            total_G.index_add_(0, group_B, image_B)

    @property
    def watched(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `history_point`: what a run watches on the way."""
        products_SS = self.cross_entropy_products_SS
        return self.cross_entropy_GS, products_SS, self.images_G, self.tokens_S

    def check_values(self, layout: SumsLayout) -> None:
        """Raise ValueError for counts and entropies that so many tokens can't have."""
        tokens_GS = self.images_G[:, None] * self.tokens_S
        if (self.top1_GS > self.top5_GS).any() or (self.top5_GS > tokens_GS).any():
            raise ValueError("it has more tokens that were predicted than tokens")
        if (self.checked_G > self.images_G).any():
            raise ValueError("it has more images that were checked than images")
        log_size_S = torch.tensor([math.log(vocabulary.size) for vocabulary in layout.vocabularies])
        if (self.predictive_entropy_GS > tokens_GS * log_size_S.double() * (1 + ROUNDING)).any():
            raise ValueError("its entropies are above the logarithm of the number of codes")
