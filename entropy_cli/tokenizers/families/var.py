"""Family: VAR's multi-scale residual VQ-VAE, and the tokenizers that kept its layout.

Those are HART, Switti and VAR's forks, and vaex with a single scale.

Source:
    FoundationVision/VAR models/quant.py (VectorQuantizer2.f_to_idxBl_or_fhat), models/vqvae.py,
    utils/arg_util.py (patch_nums by image size), utils/data.py (preprocessing);
    FoundationVision/vaex models/quant.py.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.base import Scale
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.choices import Traits
from entropy_cli.tokenizers.convolutional import ConvTokenizer
from entropy_cli.tokenizers.family import Family, Plan
from entropy_cli.tokenizers.layers.autoencoder import count
from entropy_cli.tokenizers.layers.residual import PHI_RATIO, latents_of, phi_of, upsampled
from entropy_cli.tokenizers.names import CODEBOOK, ENCODER, Layout
from entropy_cli.tokenizers.preprocess import var_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

HITS = "quantize.ema_vocab_hit_SV"
PATCH_NUMS = {
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
# The convolutions after a scale's codes are decoded: one for all scales, a few shared, or one each; and
# vaex's, of its single scale.
PHI_SHARED = "quantize.quant_resi.qresi.weight"
PHI_PARTLY_SHARED = "quantize.quant_resi.qresi_ls.0.weight"
PHI_OWN = "quantize.quant_resi.{}.weight"
PHI_SINGLE = "quantize.quant_resi.weight"
PHIS = (PHI_SHARED, PHI_PARTLY_SHARED, PHI_OWN.format(0), PHI_SINGLE)
LAYOUT = Layout(
    renames=(
        (r"^quantize\.quant_resi\.qresi_ls\.", "phi."),
        (r"^quantize\.quant_resi\.qresi\.", "phi.0."),
        (r"^quantize\.quant_resi\.(?=\d)", "phi."),
        (r"^quantize\.quant_resi\.(?=weight|bias)", "phi.0."),
    ),
    unused={
        HITS: "how often each code was chosen in training",
        "quantize.vocab_usage": "the same of vaex",
    },
)


class VARTokenizer(ConvTokenizer):
    """VAR's encoder and residual quantiser; see `tokenizers.base.Tokenizer`."""

    def vectors(self, rest_BChw: Tensor, scale: int) -> Tensor:
        """Return the residual area-averaged to the scale's grid; unchanged at the final scale."""
        patch_num = self.spec.patch_nums[scale]
        assert patch_num is not None
        return latents_of(rest_BChw, patch_num)

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """Subtract the codes, upsampled bicubically and partly convolved by phi, from the residual."""
        network, side = self.network, rest_BChw.shape[-1]
        phi = network.phi[phi_of(scale, len(self.spec.scales), len(network.phi))]
        return rest_BChw - upsampled(self.decoded(idx_Bl, scale), side, phi, network.phi_ratio)


class VAR(Family):
    """The family; only vaex keeps an averaged copy, and evaluates it."""

    EMA_BY_DEFAULT = True
    CLASSES = (
        *("hart_autoencoder", "HARTAutoEncoder"),
        *("hart_autoencoder_with_disc", "HARTAutoEncoderWithDisc"),
        "VQVAE",
    )
    REQUIRED = (*ENCODER, CODEBOOK)
    IDENTIFYING_KEYS: ClassVar = dict.fromkeys(PHIS, "the convolutions after each scale's codes (phi)")
    LAYOUT = LAYOUT
    TRAITS = Traits(
        family="var",
        published_by="VAR",
        rule="l2",
        crop=var_crop,
    )
    TOKENIZER = VARTokenizer

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks, any kind of phi first."""
        phi = [] if any(p in checkpoint.shapes for p in PHIS) else [PHI_PARTLY_SHARED]
        return phi + super().missing_keys(checkpoint)

    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> ConvTokenizer:
        """Read the weights and build the tokenizer."""
        tokenizer = super().build(checkpoint, settings)
        # abs as in the published code
        tokenizer.network.phi_ratio = abs(settings.quant_resi or PHI_RATIO)
        return tokenizer

    def _scales(self, plan: Plan) -> tuple[Scale, ...]:
        if PHI_SINGLE in plan.checkpoint.shapes:
            return super()._scales(plan)
        scales = self._pyramid(plan, PATCH_NUMS)
        _check_scales(plan.checkpoint, scales, plan.settings)
        return scales

    def _counted_scales(self, checkpoint: Checkpoint) -> int | None:
        return None if PHI_SINGLE in checkpoint.shapes else _counted_scales(checkpoint)

    def _notes(self, plan: Plan) -> list[str]:
        # Where the user gives no scales they are as many as were counted.
        counted = self._counted_scales(plan.checkpoint)
        scales = len(plan.settings.patch_nums or ()) or counted
        if counted in (None, scales):
            return []
        return [
            f"the checkpoint counted code usage at {counted} scales in training, this run has {scales}: "
            "if that is not on purpose, check --patch-nums and --image-size"
        ]


def _counted_scales(checkpoint: Checkpoint) -> int | None:
    """Return the number of scales at which training counted codebook usage, None if it did not."""
    hits = checkpoint.shapes.get(HITS)
    return hits[0] if hits else None


def _check_scales(checkpoint: Checkpoint, scales: Sequence[Scale], settings: TokenizerSettings) -> None:
    """Check that there are as many scales as convolutions of their own and as counts of usage."""
    number, own = len(scales), count(checkpoint.shapes, PHI_OWN)
    if own and own != number:
        raise CheckpointError(
            f"{checkpoint.path}: has one phi convolution for each of {own} scales, but patch_nums "
            f"name {number}. Give --patch-nums with {own} scales."
        )
    counted = _counted_scales(checkpoint)
    if settings.patch_nums is None and counted not in (None, number):
        raise CheckpointError(
            f"{checkpoint.path}: {HITS} has {counted} rows, one for each scale of the training, but VAR "
            f"has {number} scales at this image size. Give --patch-nums "
            f"(VAR's are {','.join(str(scale.patch_num) for scale in scales)})."
        )
