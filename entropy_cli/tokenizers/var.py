"""Family: VAR's multi-scale residual VQ-VAE, and the tokenizers that kept its layout.

Source:
    FoundationVision/VAR models/quant.py (VectorQuantizer2.f_to_idxBl_or_fhat), models/vqvae.py,
    utils/arg_util.py (patch_nums by image size), utils/data.py (preprocessing).
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.errors import CheckpointError
from entropy_cli.functional.assign import Codebook, Rule
from entropy_cli.tokenizers.autoencoder import (
    Encoder,
    Shapes,
    conv_like,
    count,
    pixels_to_pm1,
)
from entropy_cli.tokenizers.base import Scale, TokenizerSpec
from entropy_cli.tokenizers.checkpoint import Checkpoint
from entropy_cli.tokenizers.precision import Precision, cast_convolutions, products
from entropy_cli.tokenizers.preprocess import var_crop
from entropy_cli.tokenizers.settings import TokenizerSettings

IMAGE_SIZE = 256
PATCH_NUMS = {
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
REQUIRED = (
    "encoder.conv_in.weight",
    "encoder.down.0.block.0.conv1.weight",
    "encoder.mid.block_1.conv1.weight",
    "encoder.mid.block_2.conv1.weight",
    "encoder.conv_out.weight",
    "quant_conv.weight",
    "quantize.embedding.weight",
)
# The convolutions after a scale's codes are decoded: one for all scales, a few shared, or one each.
PHI_SHARED = "quantize.quant_resi.qresi.{}"
PHI_PARTLY_SHARED = "quantize.quant_resi.qresi_ls.{}.{}"
PHI_OWN = "quantize.quant_resi.{}.{}"
PHI_RATIO = 0.5
# Parts of the layout that assigning tokens does not need.
UNUSED = ("decoder.", "post_quant_conv.", "quantize.ema_vocab_hit_SV")


def missing(shapes: Shapes) -> list[str]:
    """The keys that a checkpoint lacks to be of this family."""
    names = [name for name in REQUIRED if name not in shapes]
    # What tells this family from others first.
    return names if _phi_names(shapes) else [PHI_PARTLY_SHARED.format(0, "weight"), *names]


def from_checkpoint(checkpoint: Checkpoint, settings: TokenizerSettings) -> "VARTokenizer":
    """Build the tokenizer from a checkpoint that `missing` nothing.

    Raises:
        CheckpointError: sizes that contradict each other, weights that aren't finite, keys left over,
            or patch_nums and image size that don't fit.
    """
    shapes = checkpoint.shapes
    try:
        with torch.device("meta"):
            network = VARNetwork(shapes)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint.path}: not a usable VAR layout: {error}") from error
    names = network.names
    for name in shapes:
        if name not in names.values() and not name.startswith(UNUSED):
            raise CheckpointError(
                f"{checkpoint.path}: got {name}, which the VAR layout doesn't have and which could "
                "change the tokens. Expected the key layout of VAR's vae_ch160v4096z32.pth."
            )
    for name in names.values():
        if name not in shapes:
            raise CheckpointError(f"{checkpoint.path}: lacks {name}, expected by the VAR layout.")
    spec = _spec(checkpoint, network, settings)
    weights = {ours: checkpoint.tensor(theirs) for ours, theirs in names.items()}
    for ours, weight in weights.items():
        scale = network.first_scale(ours, len(spec.scales))
        if scale < len(spec.scales) and not weight.isfinite().all():
            raise CheckpointError(
                f"{checkpoint.path}: {names[ours]} holds NaN or infinity; no latent from scale {scale} "
                "on would be a number. Copy or train it again."
            )
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{checkpoint.path}: sizes contradict each other: {reason}") from error
    return VARTokenizer(spec, network.eval().requires_grad_(requires_grad=False))


class VARNetwork(nn.Module):
    """The convolutions and the codebook, of the sizes that the shapes tell."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.encoder = Encoder(shapes)
        self.quant_conv = conv_like(shapes["quant_conv.weight"])
        vocab_size, latent_dim = shapes["quantize.embedding.weight"]
        self.embedding = nn.Embedding(vocab_size, latent_dim)
        phi_names = _phi_names(shapes)
        self.phi = nn.ModuleList(conv_like(shapes[f"{name}weight"]) for name in phi_names)
        self.names = {ours: _published(ours, phi_names) for ours in self.state_dict()}

        if not vocab_size:
            raise ValueError("the codebook has no codes")
        if self.encoder.conv_in.in_channels != 3:
            raise ValueError(f"takes pictures of {self.encoder.conv_in.in_channels} channels, not 3")
        got = (self.encoder.conv_out.out_channels, self.quant_conv.in_channels)
        if got[0] != got[1]:
            raise ValueError(f"the encoder gives {got[0]} channels, quant_conv takes {got[1]}")
        for conv in [self.quant_conv, *self.phi]:
            if conv.out_channels != latent_dim:
                raise ValueError(f"a code has {latent_dim} numbers, but got {conv}")

    def phi_of(self, scale: int, scales: int) -> int:
        """Which of the K shared convolutions a scale uses, as the published code chooses.

        The position on [0, 1] is often halfway between two ticks, so the ticks have to be rounded as
        numpy.linspace rounds them, and the first of the nearest taken.
        """
        K = len(self.phi)
        start = 1 / 3 / K if K == 4 else 1 / 2 / K
        step = (1 - start - start) / (K - 1) if K > 1 else 0.0
        ticks = [start + k * step for k in range(K - 1)] + [1 - start]
        position = scale / (scales - 1) if scales > 1 else 0.0
        return min(range(K), key=lambda k: abs(ticks[k] - position))

    def first_scale(self, name: str, scales: int) -> int:
        """The first scale whose latents depend on a weight of ours; `scales` if none does."""
        if not name.startswith("phi."):
            return 0
        k = int(name.split(".")[1])
        return min((s + 1 for s in range(scales) if self.phi_of(s, scales) == k), default=scales)


class VARTokenizer:
    """VAR's encoder and residual quantiser; see `tokenizers.base.Tokenizer`."""

    def __init__(self, spec: TokenizerSpec, network: VARNetwork, precision: Precision = "fp32") -> None:
        self.spec, self.network, self.precision = spec, network, precision
        cast_convolutions(network.encoder, precision)
        self._codebook = Codebook(network.embedding.weight, spec.rule)

    def to(self, device: torch.device, precision: Precision) -> "VARTokenizer":
        """Copy to a device, with the encoder in a precision."""
        network = copy.deepcopy(self.network) if precision != self.precision else self.network
        return VARTokenizer(self.spec, network.to(device), precision)

    def codebook(self, scale: int) -> Codebook:
        """All scales share one codebook."""
        return self._codebook

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Latent after quant_conv, which is float32 like all that follows."""
        with products(tf32=self.precision == "tf32"):
            latent_BChw = self.network.encoder(pixels_to_pm1(img_B3HW))
        latent_BChw = latent_BChw.to(torch.float32, memory_format=torch.contiguous_format)
        return self.network.quant_conv(latent_BChw)

    def vectors(self, rest_BChw: Tensor, scale: int) -> Tensor:
        """Area-averaged to the scale's grid, but for the last scale."""
        patch_num = self.spec.patch_nums[scale]
        if scale != len(self.spec.scales) - 1:
            rest_BChw = functional.interpolate(rest_BChw, size=patch_num, mode="area")
        return rest_BChw.flatten(2).transpose(1, 2)

    def subtract(self, rest_BChw: Tensor, idx_Bl: Tensor, scale: int) -> Tensor:
        """The codes, upsampled bicubically and half of them convolved, taken from the rest."""
        scales = len(self.spec.scales)
        patch_num = math.isqrt(idx_Bl.shape[1])
        # The codes themselves, not their directions, also under the cosine rule.
        h_BChw = self.network.embedding(idx_Bl).transpose(1, 2).unflatten(2, (patch_num, patch_num))
        if scale != scales - 1:
            h_BChw = functional.interpolate(h_BChw, size=rest_BChw.shape[2:], mode="bicubic")
        phi = self.network.phi[self.network.phi_of(scale, scales)]
        return rest_BChw - (h_BChw * (1 - PHI_RATIO) + phi(h_BChw) * PHI_RATIO)


def _spec(checkpoint: Checkpoint, network: VARNetwork, settings: TokenizerSettings) -> TokenizerSpec:
    image_size = settings.image_size or IMAGE_SIZE
    side, left_over = divmod(image_size, network.encoder.downsampling)
    if left_over:
        raise CheckpointError(
            f"image size {image_size}: expected a multiple of {network.encoder.downsampling}, the "
            "encoder's downsampling. Give another --image-size."
        )
    patch_nums = settings.patch_nums or PATCH_NUMS.get(image_size)
    if patch_nums is None:
        raise CheckpointError(
            f"image size {image_size}: VAR publishes patch_nums for {', '.join(map(str, PATCH_NUMS))} "
            f"only. Give --patch-nums, ending in {side}."
        )
    _check_patch_nums(patch_nums, side, image_size)
    _check_own_phi(checkpoint, len(patch_nums))
    rule: Rule = settings.rule or "l2"
    vocab_size, latent_dim = network.embedding.weight.shape
    return TokenizerSpec(
        family="var",
        vocab_size=vocab_size,
        latent_dim=latent_dim,
        image_size=image_size,
        scales=tuple(Scale(f"{n} x {n}", n * n, n) for n in patch_nums),
        rule=rule,
        crop=var_crop(image_size),
        temperature=1.0 if rule == "l2" else "auto",
        temperature_source=(
            "softmax of minus the squared distance as it is; VAR publishes no temperature"
            if rule == "l2"
            else "no temperature is published for a cosine rule"
        ),
        notes=_notes(checkpoint, len(patch_nums)),
    )


def _check_patch_nums(patch_nums: Sequence[int], side: int, image_size: int) -> None:
    if patch_nums[-1] != side or list(patch_nums) != sorted(patch_nums):
        raise CheckpointError(
            f"patch_nums {','.join(map(str, patch_nums))} don't fit: at {image_size} px the latent is "
            f"{side} x {side}, expected a list that grows up to {side}. "
            "Give other --patch-nums or another --image-size."
        )


def _check_own_phi(checkpoint: Checkpoint, scales: int) -> None:
    own = count(checkpoint.shapes, PHI_OWN.format("{}", "weight"))
    if own and own != scales:
        raise CheckpointError(
            f"{checkpoint.path}: has one phi convolution for each of {own} scales, but patch_nums "
            f"name {scales}. Give --patch-nums with {own} scales."
        )


def _notes(checkpoint: Checkpoint, scales: int) -> tuple[str, ...]:
    hits = checkpoint.shapes.get("quantize.ema_vocab_hit_SV")
    if not hits or hits[0] == scales:
        return ()
    return (
        f"the checkpoint counted code usage at {hits[0]} scales in training, this run has {scales}: "
        "if that is not on purpose, check --patch-nums and --image-size",
    )


def _phi_names(shapes: Shapes) -> list[str]:
    """Key prefixes of the phi convolutions, whichever way they are shared."""
    if PHI_SHARED.format("weight") in shapes:
        return [PHI_SHARED.format("")]
    for pattern in (PHI_PARTLY_SHARED, PHI_OWN):
        number = count(shapes, pattern.format("{}", "weight"))
        if number:
            return [pattern.format(k, "") for k in range(number)]
    return []


def _published(ours: str, phi_names: Sequence[str]) -> str:
    """The published name of one of our weights."""
    if ours.startswith("phi."):
        _, k, leaf = ours.split(".")
        return phi_names[int(k)] + leaf
    return ours.replace("embedding.", "quantize.embedding.")
