"""Published names of weights, and the names that the shared encoder has for them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from entropy_cli.tokenizers.autoencoder import LDM, Conventions, Shapes

CODEBOOK = "quantize.embedding.weight"  # where most families keep their codes

# The shared encoder makes queries, keys and values with one convolution, in this order.
SPLIT = {"q": 0, "k": 1, "v": 2}
CONVOLUTION = re.compile(r".*(conv\w*|nin_shortcut|qkv|proj_out|phi\.\d+)\.weight")  # a name of ours


@dataclass(frozen=True)
class Layout:
    """How a family names its weights, and what of its encoder the weights don't show.

    Attributes:
        renames: regular expressions and what takes their place, one after the other.
        conventions: of its encoder.
        unused: beginnings of names of the encoder or quantiser, as published, that tokens don't need.
    """

    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    conventions: Conventions = LDM
    unused: tuple[str, ...] = ()

    def with_groups(self, groups: int | None) -> "Layout":
        """The same for an encoder with another number of groups in its norms, if there is one."""
        return (
            replace(self, conventions=replace(self.conventions, norm_groups=groups)) if groups else self
        )

    def sources(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The shared encoder's names, with those published: several where weights are to be joined.

        Raises:
            KeyError: one of those is missing.
        """
        found: dict[str, dict[int, str]] = {}
        splits: set[str] = set()
        for name in names:
            ours = name
            for pattern, replacement in self.renames:
                ours = re.sub(pattern, replacement, ours)
            part = re.fullmatch(r"(.*\.attn[._]\d+)\.([qkv])\.(weight|bias)", ours)
            place = 0
            if part:
                ours, place = f"{part[1]}.qkv.{part[3]}", SPLIT[part[2]]
                splits.add(ours)
            found.setdefault(ours, {})[place] = name
        for ours in splits:
            for letter, place in SPLIT.items():
                if place not in found[ours]:
                    raise KeyError(ours.replace(".qkv.", f".{letter}."))
        return {ours: tuple(of[place] for place in sorted(of)) for ours, of in found.items()}


def joined_shapes(shapes: Shapes, sources: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """Shapes by the shared encoder's names; linear layers are convolutions of one pixel there.

    Raises:
        ValueError: weights that are to be joined don't fit together, or are of no convolution.
    """
    found = {}
    for ours, theirs in sources.items():
        shape = shapes[theirs[0]]
        if len(theirs) > 1:
            if not shape or any(shapes[name][1:] != shape[1:] for name in theirs):
                raise ValueError(f"{', '.join(theirs)} are of different sizes")
            shape = (sum(shapes[name][0] for name in theirs), *shape[1:])
        shape = (*shape, 1, 1) if ".attn" in ours and len(shape) == 2 else shape
        if len(shape) != 4 and CONVOLUTION.fullmatch(ours):
            raise ValueError(f"{theirs[0]} has shape {shape}, expected that of a convolution")
        found[ours] = shape
    return found
