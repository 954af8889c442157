"""The sufficient statistic of a run: sums over images, kept apart by jackknife group, added by `+`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from entropy_cli.entropy.sums import ImageSums, SumsLayout

ROUNDING = 1e-6  # relative, of sums in float64 of numbers that were float32


@dataclass
class Tally:
    """Sums over the images read so far, for G groups, S scales, T temperatures and E entries.

    Entries are codes, or the levels of every dimension of codes too many to count; scales that have
    fewer than others leave the last ones zero. float64 sums and int64 counts. Adding two tallies of
    disjoint images gives the tally of their union.
    """

    NAME: ClassVar[str] = "tally"
    VERSION: ClassVar[int] = 1
    CONSTANTS: ClassVar[tuple[str, ...]] = ("tokens_S",)

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
    def zeros(cls, layout: SumsLayout, device: torch.device | str = "cpu") -> "Tally":
        """Return an empty tally, the neutral element of `+`."""
        G, S, T, E = layout.groups, len(layout.tokens_S), layout.temperatures, layout.entries
        sums: dict[str, Any] = {"dtype": torch.float64, "device": device}
        counts: dict[str, Any] = {"dtype": torch.int64, "device": device}
        return cls(
            tokens_S=torch.tensor(list(layout.tokens_S), **counts),
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

    def add(self, group_B: Tensor, scales: Sequence[ImageSums]) -> None:
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
        """Return the tally of the union of two disjoint sets of images."""
        if not torch.equal(self.tokens_S, other.tokens_S):
            raise ValueError("tallies of other scales can't be added")
        mine, theirs = self.state_dict(), other.state_dict()
        sums = {name: mine[name] + theirs[name] for name in mine if name not in self.CONSTANTS}
        return Tally(tokens_S=self.tokens_S, **sums)

    def to(self, device: torch.device | str) -> "Tally":
        """Copy to a device; return the tally itself if it is there already."""
        return Tally(**{name: tensor.to(device) for name, tensor in self.state_dict().items()})

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], layout: SumsLayout, images: int) -> "Tally":
        """Rebuild a tally from tensors that may have been damaged.

        Args:
            tensors: what `state_dict` gave, on the CPU.
            layout: the shapes that the run's settings ask for.
            images: how many images were summed up.

        Raises:
            ValueError: names, types, shapes or values that no sums of so many images have.
        """
        empty = cls.zeros(layout).state_dict()
        if tensors.keys() != empty.keys():
            raise ValueError(f"has {', '.join(sorted(tensors.keys() ^ empty.keys()))} too few or many")
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
        """Check that counts and probabilities add up to the tokens of the images."""
        counted_S = torch.tensor(layout.counted_S)
        expected_GS = self.images_G[:, None] * counted_S
        if self.tokens_S.tolist() != list(layout.tokens_S) or int(self.images_G.sum()) != images:
            raise ValueError(f"its sums are not of {images} images of these scales")
        if not torch.equal(self.counts_GSE.sum(2), expected_GS):
            raise ValueError("its counts of codes do not add up to the tokens")
        excess_GST = (self.soft_GSTE.sum(3) - expected_GS[..., None]).abs()
        if (excess_GST > ROUNDING * expected_GS[..., None]).any():
            raise ValueError("its soft assignments do not add up to the tokens")
        most_S = torch.tensor([math.log(vocabulary.size) for vocabulary in layout.vocabularies])
        bound_GS = self.images_G[:, None] * self.tokens_S * most_S.double() * (1 + ROUNDING)
        if (self.entropy_GST > bound_GS[..., None]).any():
            raise ValueError("its entropies are above the logarithm of the number of codes")
