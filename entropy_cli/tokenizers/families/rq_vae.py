"""Family: RQ-VAE, residual quantisation in several depths, which are the scales here.

Source:
    kakaobrain/rq-vae-transformer rqvae/models/rqvae/quantizations.py (RQBottleneck, VQEmbedding whose
    last row is padding), configs of stage 2: soft labels at a temperature of 0.5.
"""

from functools import partial
from typing import ClassVar

from PIL.Image import Resampling

from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.tokenizers.base import Scale, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Temperature, Traits, grid_scale
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.layers.autoencoder import count
from entropy_cli.tokenizers.network import vocab_size
from entropy_cli.tokenizers.preprocess import resize_crop

CODEBOOKS = "quantizer.codebooks.{}.weight"
# How often training chose each code, and what the codes are averages of.
AVERAGES = ("cluster_size_ema", "embed_ema")


class RQVAE(Family):
    """The family."""

    EMA_BY_DEFAULT = True
    CLASSES = ("RQVAE",)
    REQUIRED = (
        CODEBOOKS.format(0),
        "encoder.conv_in.weight",
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.block_1.conv1.weight",
        "quant_conv.weight",
    )
    IDENTIFYING_KEYS: ClassVar = {REQUIRED[0]: "RQ-VAE's codebooks, one for each depth"}
    TRAITS = Traits(
        family="rq-vae",
        published_by="RQ-VAE",
        rule="l2",
        temperatures={"l2": Temperature((0.5,), "the soft labels of RQ-VAE's second-stage configs")},
        labels="soft",
        crop=partial(resize_crop, interpolation=Resampling.BILINEAR),
        possible=("l2",),
    )

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """List the name of each depth's codebook."""
        return [CODEBOOKS.format(i) for i in range(count(checkpoint.shapes, CODEBOOKS))]

    def _others(self, checkpoint: Checkpoint) -> list[str]:
        names = self.codebooks(checkpoint)
        return names + [f"{name.removesuffix('weight')}{part}" for name in names for part in AVERAGES]

    def _scales(self, plan: Plan) -> tuple[Scale, ...]:
        names = self.codebooks(plan.checkpoint)
        sizes = [vocab_size(plan.checkpoint, name, plan.network, padding=1) for name in names]
        (grid,) = grid_scale(plan.side, Vocabulary(sizes[0]), plan.settings)
        return tuple(
            Scale(f"depth {i}", grid.tokens, None, Vocabulary(size)) for i, size in enumerate(sizes)
        )

    def _codes(self, checkpoint: Checkpoint, spec: TokenizerSpec) -> list[Codebook]:
        tables = [checkpoint.finite(name)[:-1] for name in self.codebooks(checkpoint)]
        return [Codebook(table_VC, spec.rule) for table_VC in tables]
