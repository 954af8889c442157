"""What the weights don't tell about a tokenizer: from the command line, else from config.json beside."""

from dataclasses import dataclass, fields
from typing import Literal

from entropy_cli.entropy.codebook import Rule

Weights = Literal["raw", "ema"]  # the weights as trained last, or averaged over the training


@dataclass(frozen=True)
class TokenizerSettings:
    """None means: let the family decide.

    Attributes:
        image_size: pixels on a side.
        patch_nums: sides of the scales' grids.
        rule: by which codes are chosen.
        weights: which copy of them.
        norm_groups: of every group norm.
        quant_resi: share of phi in what a scale's codes explain, of VAR's residual quantiser.
    """

    image_size: int | None = None
    patch_nums: tuple[int, ...] | None = None
    rule: Rule | None = None
    weights: Weights | None = None
    norm_groups: int | None = None
    quant_resi: float | None = None

    def else_from(self, other: "TokenizerSettings") -> "TokenizerSettings":
        """Fill what is None from another."""
        names = [field.name for field in fields(self)]
        own = {name: getattr(self, name) for name in names}
        return TokenizerSettings(
            **{name: getattr(other, name) if own[name] is None else own[name] for name in names}
        )
