"""Family: MaskBit's tokenizer, whose codes are bits, and VQGAN+ of the same authors, with a codebook.

Source:
    markweberdev/maskbit modeling/conv_vqgan.py, modeling/modules/autoencoder.py, modeling/quantizer,
    configs/tokenizer (entropy_loss_temperature 0.01), data/webdataset_reader.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits
from entropy_cli.tokenizers.families.maskgit import CONVENTIONS
from entropy_cli.tokenizers.family import BitFamily, Family, Plan
from entropy_cli.tokenizers.names import CODEBOOK, Layout
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.preprocess import resize_crop

POOLED = Layout(
    renames=(
        (r"^encoder\.mid\.res_blocks\.(\d+)\.", lambda match: f"encoder.mid.block_{int(match[1]) + 1}."),
        (r"^(encoder\.down\.\d+)\.res_blocks\.", r"\1.block."),
        (r"^(encoder\.down\.\d+)\.down_conv\.", r"\1.downsample.conv."),
    ),
    conventions=CONVENTIONS,
)
CONVOLVED = replace(POOLED, conventions=replace(CONVENTIONS, pools=False))
DOWN = "encoder.down.0.down_conv.weight"
BITS = ("quantize.bits_to_indices", "quantize.codebook")  # constants of the bits
TEMPERATURE = Temperature((0.01,), "entropy_loss_temperature in all of MaskBit's configurations")


class MaskBit(BitFamily):
    """The family; what the quantiser stores tells bits from a codebook."""

    REQUIRED = (
        "encoder.down.0.res_blocks.0.conv1.weight",
        "encoder.mid.res_blocks.0.conv1.weight",
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
    )
    IDENTIFYING_KEYS: ClassVar = {
        REQUIRED[0]: "MaskBit's name for the encoder's blocks",
        BITS[0]: "the values of its bits",
        CODEBOOK: "a codebook, as VQGAN+ has",
    }
    TRAITS = Traits(
        family="maskbit",
        published_by="MaskBit",
        rule="sign",
        temperatures=dict.fromkeys(("sign", "l2", "cosine"), TEMPERATURE),
        crop=partial(resize_crop, interpolation=Resampling.BILINEAR),
        pixels="[0, 1]",
    )

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks; either kind of codes will do."""
        has_codes = any(name in checkpoint.shapes for name in (*BITS, CODEBOOK))
        return super().missing_keys(checkpoint) + ([] if has_codes else [BITS[0]])

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List the name of the codebook; none if the codes are bits."""
        return [CODEBOOK] if CODEBOOK in checkpoint.shapes else []

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """Return the layout of its kind."""
        return CONVOLVED if DOWN in checkpoint.shapes else POOLED

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        return self.codebooks(checkpoint) or list(BITS)

    def _vocabulary(self, plan: Plan) -> Vocabulary:
        kind = Family if self.codebooks(plan.checkpoint) else BitFamily
        return kind._vocabulary(self, plan)

    def _traits(self, checkpoint: Checkpoint, network: Network) -> Traits:
        return replace(self.TRAITS, rule="l2") if self.codebooks(checkpoint) else self.TRAITS

    def _notes(self, plan: Plan) -> list[str]:
        note = "codes are compared by distance; if use_l2_normalisation was set give --rule cosine"
        return [note] if self.codebooks(plan.checkpoint) else []

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> Sequence[Codebook | Grid]:
        kind = Family if self.codebooks(checkpoint) else BitFamily
        return kind._codes(self, checkpoint, spec)
