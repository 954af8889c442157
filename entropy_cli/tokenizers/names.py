"""Published names of weights, and the names that the shared encoder has for them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from entropy_cli.tokenizers.layers.autoencoder import LDM, Conventions, Shapes

CODEBOOK = "quantize.embedding.weight"  # where most families keep their codes

# The shared encoder makes queries, keys and values with one convolution, in this order.
SPLIT = {"q": 0, "k": 1, "v": 2}
# Parts of a checkpoint: how the names of its weights begin, and whether tokens depend on it.
PARTS = {
    "encoder": (r"encoder\.|latent_tokens$", True),
    "quant_conv": (r"quant_conv\.", True),
    "quantiser": (r"quantizer?\.", True),
    "post_quant_conv": (r"post_quant_conv2?\.", False),
    "decoder": (r"decoder2?\.|pixel_decoder\.|pixel_quantize\.", False),
    "loss": (r"(\w*loss|\w*discriminator|perceptual\w*)\.", False),
    "other": ("", False),
}
# What trainings leave among the weights: counters, and the colours that taming paints segmentations in.
BOOKKEEPING = re.compile(r"global_step|step|epoch|iteration|num_updates|n_averaged|colorize")
CONVOLUTION = re.compile(r".*(conv\w*|nin_shortcut|qkv|proj_out|phi\.\d+)\.weight")  # a name of ours


@dataclass(frozen=True)
class Layout:
    """How a family names its weights, and what of its encoder the weights don't show.

    Attributes:
        renames: regular expressions and what takes their place, one after the other.
        conventions: of its encoder.
        unused: beginnings of published names that tokens don't need, each with the reason.
    """

    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    conventions: Conventions = LDM
    unused: Mapping[str, str] = field(default_factory=dict)

    def with_groups(self, groups: int | None) -> "Layout":
        """The same for an encoder with another number of groups in its norms, if there is one."""
        return (
            replace(self, conventions=replace(self.conventions, norm_groups=groups)) if groups else self
        )

    def sources(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The shared encoder's names, with those published: several where weights are to be joined.

        Raises:
            KeyError: one of those is missing.
            ValueError: two of them stand for the same weight.
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
            other = found.setdefault(ours, {}).setdefault(place, name)
            if other != name:
                raise ValueError(f"{other} and {name} are names of the same weight")
        for ours in splits:
            for letter, place in SPLIT.items():
                if place not in found[ours]:
                    raise KeyError(ours.replace(".qkv.", f".{letter}."))
        return {ours: tuple(of[place] for place in sorted(of)) for ours, of in found.items()}


def part_of(name: str) -> str:
    """Name the part of a checkpoint that a weight belongs to."""
    return next(part for part, (begins, _) in PARTS.items() if re.match(begins, name))


def needless(names: Iterable[str], read: Collection[str], unused: Mapping[str, str]) -> list[str]:
    """List weights that could change the tokens and that nothing reads.

    Args:
        names: of all weights.
        read: those that the tokenizer is made of.
        unused: beginnings of those that a family knowingly leaves aside.
    """
    return [
        name
        for name in names
        if name not in read
        and not name.startswith(tuple(unused))
        and part_of(name) not in ("post_quant_conv", "decoder", "loss")
        and not BOOKKEEPING.fullmatch(name)
    ]


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
