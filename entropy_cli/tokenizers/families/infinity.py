"""Family: Infinity's multi-scale tokenizer, whose codes are the signs of a residual on the unit sphere.

Source:
    FoundationVision/Infinity infinity/models/bsq_vae (vae.py, flux_vqgan.py, multiscale_bsq.py),
    infinity/utils/dynamic_resolution.py (scales), tools/run_infinity.py (preprocessing, patchify).
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from entropy_cli.entropy.codebook import Grid
from entropy_cli.tokenizers.base import Scale
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.families.var import VARTokenizer
from entropy_cli.tokenizers.family import BitFamily, Plan
from entropy_cli.tokenizers.layers.autoencoder import Conventions
from entropy_cli.tokenizers.names import Layout
from entropy_cli.tokenizers.preprocess import infinity_crop

SIDES = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
SCALES = {16 * side: SIDES[: SIDES.index(side) + 1] for side in (16, 32, 48, 64)}  # by image size
PATCHIFIED = 8  # pixels of a latent, four of which the transformer joins to one token
MASKS = ("quantizer.lfq.mask", "quantize.lfq.mask")  # one buffer under two names
# The published code reads weights with and without the name of the layer inside its wrappers.
WRAPPED = r"(\.(?:conv\w*|norm\w*|nin_shortcut|[qkv]|proj_out))\.(?:conv|norm)\.(weight|bias)$"


class InfinityTokenizer(VARTokenizer):
    """Infinity's encoder and residual quantiser; see `tokenizers.base.Tokenizer`."""

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """Subtract the codes, upsampled, from the residual; of one frame trilinear is bilinear."""
        grid = self.codebook(scale)
        assert isinstance(grid, Grid)
        code_BlC, side = grid.decoded(idx_Bl.flatten()).view(*idx_Bl.shape, -1), rest_BChw.shape[-1]
        patch_num = math.isqrt(code_BlC.shape[1])
        code_BCpp = torch.unflatten(code_BlC.transpose(1, 2), 2, (patch_num, patch_num))
        return rest_BChw - functional.interpolate(code_BCpp, size=(side, side), mode="bilinear")


class Infinity(BitFamily):
    """The family: any number of bits, with latents of 16 pixels or, to be patchified, of 8."""

    REQUIRED = (MASKS[0], "encoder.conv_in.conv.weight", "encoder.mid.block_1.conv1.conv.weight")
    IDENTIFYING_KEYS: ClassVar = {
        **dict.fromkeys(MASKS, "what Infinity's bits are numbered with"),
        REQUIRED[1]: "its wrappers around layers",
    }
    LAYOUT: ClassVar = Layout(
        renames=((WRAPPED, r"\1.\2"),),
        conventions=Conventions(norm_groups=(32, 24)),
        unused=dict.fromkeys(MASKS, "what bits are numbered with"),
    )
    TRAITS = Traits(
        family="infinity",
        published_by="Infinity",
        rule="bsq",
        temperatures={
            "bsq": Temperature((0.01,), "inv_temperature of 100 in the entropy term of Infinity's BSQ")
        },
        crop=infinity_crop,
    )
    TOKENIZER = InfinityTokenizer

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks under both of their names."""
        others = (MASKS[1], *(name.replace(".conv.", ".") for name in self.REQUIRED[1:]))
        names = zip(self.REQUIRED, others, strict=True)
        return [name for name, other in names if not {name, other} & checkpoint.shapes.keys()]

    def _scales(self, plan: Plan) -> tuple[Scale, ...]:
        times = 2 if plan.network.downsampling == PATCHIFIED else 1
        published = {size: tuple(times * n for n in sides) for size, sides in SCALES.items()}
        return self._pyramid(plan, published)

    def _notes(self, plan: Plan) -> list[str]:
        notes = [
            "Infinity's images keep their shapes; here all are cropped to squares. "
            "Its models are mostly of 1024 pixels: --image-size 1024"
        ]
        if plan.network.downsampling == PATCHIFIED:
            notes.append(
                f"a token is of {PATCHIFIED} pixels here; Infinity's transformer joins 2 x 2 of them to "
                f"one of {4 * plan.network.latent_dim} bits, whose assignment entropy is four times "
                "that of a token here; per bit and per image both are the same"
            )
        return notes
