"""Published names of weights, and the shared encoder's names for them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from entropy_cli.tokenizers.layers.autoencoder import LDM, Conventions, Shapes

CODEBOOK = "quantize.embedding.weight"  # where most families keep their codes
# Weights of latent diffusion's encoder, under the names that the shared one has too.
ENCODER = (
    "encoder.conv_in.weight",
    "encoder.down.0.block.0.conv1.weight",
    "encoder.mid.block_1.conv1.weight",
    "encoder.mid.block_2.conv1.weight",
    "encoder.conv_out.weight",
    "quant_conv.weight",
)

# The shared encoder computes queries, keys and values with one convolution, in this order.
SPLIT = {"q": 0, "k": 1, "v": 2}
# Parts of a checkpoint: how the names of its weights begin, and whether tokens depend on it.
PARTS = {
    "encoder": (r"encoder\.|latent_tokens$|blocks\.(input|group_\d|output)\.|encode_task_layer\.", True),
    "quant_conv": (r"quant_conv\.", True),
    "quantiser": (r"quantizer?\.", True),
    "post_quant_conv": (r"post_quant_conv2?\.", False),
    "decoder": (r"decoder2?\.|pixel_decoder\.|pixel_quantize\.", False),
    "loss": (r"(\w*loss|\w*discriminator|perceptual\w*)\.", False),
    "other": ("", False),
}
# What training code stores among the weights: counters, and taming's colours of segmentation maps.
BOOKKEEPING = re.compile(
    r"global_step|step|epoch|iteration|num_updates|n_averaged|colorize|.*\.num_batches_tracked"
)
# Attention of the shared encoder, and its convolutions.
ATTENTION = re.compile(r".*\.attn[._]\d+\.")
CONVOLUTION = re.compile(r".*(conv\w*|nin_shortcut|attn[._]\d+\.(qkv|proj_out)|phi\.\d+)\.weight")


@dataclass(frozen=True)
class Layout:
    """How a family names its weights, and the conventions of its encoder that weights don't show.

    Attributes:
        renames: regular expressions and their replacements, applied one after the other.
        conventions: the encoder's.
        unused: prefixes of published names that tokens don't depend on, each with what it is.
    """

    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    conventions: Conventions = LDM
    unused: Mapping[str, str] = field(default_factory=dict)

    def conventions_with(self, groups: int | None) -> Conventions:
        """Return the conventions with another number of groups in the norms; None changes nothing."""
        return replace(self.conventions, norm_groups=(groups,)) if groups else self.conventions

    def sources(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Map the shared encoder's names to published ones, several where weights have to be joined.

        Raises:
            KeyError: a published name is missing.
            ValueError: two published names are of the same weight.
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
    """Return the part of a checkpoint that a weight belongs to."""
    return next(part for part, (begins, _) in PARTS.items() if re.match(begins, name))


def unread_weights(names: Iterable[str], read: Collection[str], unused: Mapping[str, str]) -> list[str]:
    """List those of all weights that could change the tokens and that nothing reads.

    The family knowingly ignores those whose names begin as one of `unused`.
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
    """Return shapes by the shared encoder's names, with linear layers as 1 x 1 convolutions.

    Raises:
        ValueError: weights to be joined don't fit together, or a convolution's don't have 4 axes.
    """
    found = {}
    for ours, theirs in sources.items():
        shape = shapes[theirs[0]]
        if len(theirs) > 1:
            if not shape or any(shapes[name][1:] != shape[1:] for name in theirs):
                raise ValueError(f"{', '.join(theirs)} are of different sizes")
            shape = (sum(shapes[name][0] for name in theirs), *shape[1:])
        shape = (*shape, 1, 1) if len(shape) == 2 and ATTENTION.match(ours) else shape
        if len(shape) != 4 and CONVOLUTION.fullmatch(ours):
            raise ValueError(f"{theirs[0]} has shape {shape}, expected that of a convolution")
        found[ours] = shape
    return found
