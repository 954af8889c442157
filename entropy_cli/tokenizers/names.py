"""Published names of weights, and the names that the shared encoder has for them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from entropy_cli.tokenizers.autoencoder import LDM, Conventions, Shapes

# The shared encoder makes queries, keys and values with one convolution, in this order.
SPLIT = {"q": 0, "k": 1, "v": 2}


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

    def sources(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The shared encoder's names, with those published: several where weights are to be joined."""
        found: dict[str, dict[int, str]] = {}
        for name in names:
            ours = name
            for pattern, replacement in self.renames:
                ours = re.sub(pattern, replacement, ours)
            part = re.fullmatch(r"(.*\.attn[._]\d+)\.([qkv])\.(weight|bias)", ours)
            place = 0
            if part:
                ours, place = f"{part[1]}.qkv.{part[3]}", SPLIT[part[2]]
            found.setdefault(ours, {})[place] = name
        return {ours: tuple(of[place] for place in sorted(of)) for ours, of in found.items()}


def joined_shapes(shapes: Shapes, sources: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """Shapes by the shared encoder's names; linear layers are convolutions of one pixel there."""
    found = {}
    for ours, theirs in sources.items():
        first, *rest = shapes[theirs[0]]
        rows = first if len(theirs) == 1 or not shapes[theirs[0]] else sum(shapes[n][0] for n in theirs)
        linear = ".attn" in ours and len(rest) == 1
        found[ours] = (rows, *rest, 1, 1) if linear else (rows, *rest)
    return found
