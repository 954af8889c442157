"""The sufficient statistic of a run: sums over images by jackknife group, added by `+`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from entropy_cli.entropy.sums import ImageSums, SumsLayout

INTEGERS = ("tokens_S", "images_G", "counts_GSE", "count_squares_SE")
ROUNDING = 1e-6  # relative, of sums in float64 of numbers that were float32


@dataclass
class Tally:
    """Sums over the images read so far, for G groups, S scales, T temperatures and E entries.

    Entries are codes, or the levels of every dimension where codes are too many to count; a scale with
    fewer entries than others leaves the last ones zero. Sums are float64, counts int64. Adding two
    tallies of disjoint images gives the tally of their union.
    """

    NAME: ClassVar[str] = "tally"
    VERSION: ClassVar[int] = 2
    CONSTANTS: ClassVar[tuple[str, ...]] = ("tokens_S",)

    tokens_S: Tensor  # tokens of an image at each scale: a constant, not a sum
    images_G: Tensor
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

    @classmethod
    def zeros(cls, layout: SumsLayout, device: torch.device | str = "cpu") -> "Tally":
        """Return an empty tally, the neutral element of `+`."""
        size = {"G": layout.groups, "S": len(layout.tokens_S), "T": layout.temperatures}
        size["E"] = max(vocabulary.entries for vocabulary in layout.vocabularies)
        tensors = {}
        for field in fields(cls):  # whose name ends in its shape
            shape = [size[axis] for axis in field.name.rpartition("_")[2]]
            dtype = torch.int64 if field.name in INTEGERS else torch.float64
            tensors[field.name] = torch.zeros(shape, dtype=dtype, device=device)
        tensors["tokens_S"] += torch.tensor(layout.tokens_S, device=device)
        return cls(**tensors)

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

    def __add__(self, other: "Tally") -> "Tally":
        """Return the tally of the union of two disjoint sets of images."""
        if not torch.equal(self.tokens_S, other.tokens_S):
            raise ValueError("tallies of different scales can't be added")
        left, right = self.state_dict(), other.state_dict()
        sums = {name: left[name] + right[name] for name in left if name not in self.CONSTANTS}
        return Tally(tokens_S=self.tokens_S, **sums)

    def to(self, device: torch.device | str) -> "Tally":
        """Copy to a device; return the tally itself if it is there already."""
        return Tally(**{name: tensor.to(device) for name, tensor in self.state_dict().items()})

    @property
    def watched(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `history_point`: what a run watches on the way."""
        return self.entropy_GST[..., 0], self.entropy_products_SS, self.images_G, self.tokens_S

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor by name."""
        return dict(vars(self))

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], layout: SumsLayout, images: int) -> "Tally":
        """Rebuild a tally from tensors that may have been damaged.

        Args:
            tensors: the output of `state_dict`, on the CPU.
            layout: the shapes according to the run's settings.
            images: the number of images summed up.

        Raises:
            ValueError: names, dtypes, shapes or values are not those of sums over that many images.
        """
        empty = cls.zeros(layout).state_dict()
        if tensors.keys() != empty.keys():
            wrong = ", ".join(sorted(tensors.keys() ^ empty.keys()))
            raise ValueError(f"has missing or unknown tensors: {wrong}")
        for name, zero in empty.items():
            tensor = tensors[name]
            if (tensor.dtype, tensor.shape) != (zero.dtype, zero.shape):
                got = f"{tensor.dtype} of shape {list(tensor.shape)}"
                raise ValueError(f"{name} is {got}, expected {zero.dtype} of shape {list(zero.shape)}")
            if not tensor.isfinite().all():
                raise ValueError(f"{name} has NaN or infinity")
            if "distance" not in name and tensor.min() < -ROUNDING:
                raise ValueError(f"{name} has negative values")
        tally = cls(**tensors)
        tally._check_counts(layout, images)
        return tally

    def _check_counts(self, layout: SumsLayout, images: int) -> None:
        """Check that counts and probabilities add up to the number of tokens of the images."""
        # A token is counted once, or once in each dimension.
        counts_S = [1 if v.counted else len(v.levels or ()) for v in layout.vocabularies]
        expected_GS = self.images_G[:, None] * torch.tensor(layout.tokens_S) * torch.tensor(counts_S)
        if self.tokens_S.tolist() != list(layout.tokens_S) or int(self.images_G.sum()) != images:
            raise ValueError(f"its sums are not of {images} images of these scales")
        if not torch.equal(self.counts_GSE.sum(2), expected_GS):
            raise ValueError("its counts of codes do not add up to the tokens")
        excess_GST = (self.soft_GSTE.sum(3) - expected_GS[..., None]).abs()
        if (excess_GST > ROUNDING * expected_GS[..., None]).any():
            raise ValueError("its soft assignments do not add up to the tokens")
        log_size_S = torch.tensor([math.log(vocabulary.size) for vocabulary in layout.vocabularies])
        bound_GS = self.images_G[:, None] * self.tokens_S * log_size_S.double() * (1 + ROUNDING)
        if (self.entropy_GST > bound_GS[..., None]).any():
            raise ValueError("its entropies are above the logarithm of the number of codes")
