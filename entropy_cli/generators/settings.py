"""Generator settings that the weights don't show: from the command line, else from other files."""

from dataclasses import dataclass

from entropy_cli.tokenizers.settings import Weights


@dataclass(frozen=True)
class GeneratorSettings:
    """Settings of a generator; None leaves one to its files, then to the family.

    Attributes:
        image_size: side of the images in pixels, where tokens depend on it and the file does not say.
        patch_nums: side of each scale's grid, where the file does not say: the tokenizer's.
        heads: number of attention heads, where shapes don't show them.
        weights: which copy of the weights is used; the raw one by default.
    """

    image_size: int | None = None
    patch_nums: tuple[int, ...] | None = None
    heads: int | None = None
    weights: Weights | None = None
