"""VAR's multi-scale VQ-VAE with its decoder, for training; its state dict has the published names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook
from entropy_cli.entropy.kmeans import code_counts
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.autoencoder import LDM, Encoder, ResnetBlock, Shapes, conv_like, count
from entropy_cli.tokenizers.layers.decoder import Decoder
from entropy_cli.tokenizers.layers.residual import PHI_RATIO, latents_of, phi_of, upsampled

PHI = "quantize.quant_resi.qresi_ls"
HITS = "quantize.ema_vocab_hit_SV"


@dataclass(frozen=True)
class Quantised:
    """The output of the quantiser.

    Attributes:
        f_hat_BChw: the sum of the decoded codes, through which gradients pass straight to the latents.
        codebook_loss: mean over scales of the squared error of the codes so far; trains phi, and the
            codes where those are trained by gradient.
        commitment_loss: the same number; trains the encoder.
        z_BLC: the vectors that were assigned, scale after scale, without gradients.
        idx_BL: the codes they were assigned to.
    """

    f_hat_BChw: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    z_BLC: Tensor
    idx_BL: Tensor


class Quantiser(nn.Module):
    """A residual quantiser with one codebook for all scales, in float32 under any autocast.

    Source:
        FoundationVision/VAR models/quant.py (VectorQuantizer2.forward), with the residual detached.
    """

    ema_vocab_hit_SV: Tensor

    def __init__(self, shapes: Shapes, patch_nums: Sequence[int]) -> None:
        super().__init__()
        self.patch_nums = tuple(patch_nums)
        V, C = shapes["quantize.embedding.weight"]
        self.embedding = nn.Embedding(V, C)
        phis = range(count(shapes, f"{PHI}.{{}}.weight"))
        convolutions = nn.ModuleList(conv_like(shapes, f"{PHI}.{k}", LDM) for k in phis)
        self.quant_resi = nn.ModuleDict({"qresi_ls": convolutions})
        self.phi_ratio = PHI_RATIO
        hits_SV = torch.zeros(len(self.patch_nums), self.embedding.num_embeddings)
        self.register_buffer("ema_vocab_hit_SV", hits_SV)

    @property
    def tokens(self) -> list[int]:
        """The number of tokens of each scale."""
        return [patch_num**2 for patch_num in self.patch_nums]

    def by_scale(self, idx_BL: Tensor) -> tuple[Tensor, ...]:
        """Split codes by scale, (B, l) each."""
        return torch.split(idx_BL, self.tokens, 1)

    def counts(self, idx_BL: Tensor) -> Tensor:
        """Count the tokens of each scale assigned to each code, int64 (S, V)."""
        V = self.embedding.num_embeddings
        return torch.stack([code_counts(idx_Bl.flatten(), V) for idx_Bl in self.by_scale(idx_BL)])

    def forward(self, f_BChw: Tensor) -> Quantised:
        with torch.autocast(f_BChw.device.type, enabled=False):
            return self._quantise(f_BChw.float())

    def _quantise(self, f_BChw: Tensor) -> Quantised:
        nearest, z, idx = self.nearest(), [], []

        def choose(z_BlC: Tensor) -> Tensor:
            z.append(z_BlC)
            idx.append(nearest(z_BlC))
            return self.embedding(idx[-1])

        f_hat_BChw, codebook_losses, commitment_losses = torch.zeros_like(f_BChw), [], []
        for _, h_BChw in self.scales(f_BChw.detach(), choose):
            f_hat_BChw = f_hat_BChw + h_BChw
            codebook_losses.append(functional.mse_loss(f_hat_BChw, f_BChw.detach()))
            commitment_losses.append(functional.mse_loss(f_BChw, f_hat_BChw.detach()))
        return Quantised(
            f_BChw + (f_hat_BChw - f_BChw).detach(),
            torch.stack(codebook_losses).mean(),
            torch.stack(commitment_losses).mean(),
            torch.cat(z, 1),
            torch.cat(idx, 1),
        )

    def scales(
        self, f_BChw: Tensor, choose: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each scale's vectors z_BlC and its contribution to the latent, h_BChw.

        Latents are without gradients; `choose` maps vectors z_BlC to their codes, (B, l, C).
        """
        rest_BChw, phis = f_BChw, self.quant_resi["qresi_ls"]
        assert isinstance(phis, nn.ModuleList)
        for s, patch_num in enumerate(self.patch_nums):
            z_BlC = latents_of(rest_BChw, patch_num)
            phi = phis[phi_of(s, len(self.patch_nums), len(phis))]
            h_BChw = upsampled(choose(z_BlC), f_BChw.shape[-1], phi, self.phi_ratio)
            yield z_BlC, h_BChw
            rest_BChw = rest_BChw - h_BChw.detach()

    def nearest(self) -> Callable[[Tensor], Tensor]:
        """Return a function from vectors to their nearest current codes, without the (N, V) matrix."""
        codebook = Codebook(self.embedding.weight.detach(), "l2")
        return lambda z_BlC: assign(z_BlC, codebook, ()).idx_Bl

    def growing(self, idx_BL: Tensor, side: int) -> Iterator[Tensor]:
        """Yield the reconstructed latent f_hat_BChw up to each scale."""
        idx = iter(self.by_scale(idx_BL))
        C = self.embedding.embedding_dim
        f_hat_BChw = self.embedding.weight.new_zeros(len(idx_BL), C, side, side)
        for _, h_BChw in self.scales(f_hat_BChw, lambda _: self.embedding(next(idx))):
            f_hat_BChw = f_hat_BChw + h_BChw
            yield f_hat_BChw


class VQVAE(nn.Module):
    """Encoder, quantiser and decoder, of the sizes that the shapes imply."""

    def __init__(self, shapes: Shapes, patch_nums: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder(shapes, LDM)
        self.quant_conv = conv_like(shapes, "quant_conv", LDM)
        self.quantize = Quantiser(shapes, patch_nums)
        self.post_quant_conv = conv_like(shapes, "post_quant_conv", LDM)
        self.decoder = Decoder(shapes, LDM)

    def forward(self, img_B3HW: Tensor) -> tuple[Tensor, Quantised]:
        """Return reconstructions of images in [-1, 1], and the quantiser's output."""
        quantised = self.quantize(self.encode(img_B3HW))
        return self.decode(quantised.f_hat_BChw), quantised

    def encode(self, img_B3HW: Tensor) -> Tensor:
        """Return the latent f_BChw."""
        return self.quant_conv(self.encoder(img_B3HW))

    def decode(self, f_hat_BChw: Tensor) -> Tensor:
        """Decode latents to images around [-1, 1]."""
        return self.decoder(self.post_quant_conv(f_hat_BChw))

    def recompute_activations(self) -> None:
        """Recompute the blocks' activations in the backward pass: less memory, a third more time."""
        for module in self.modules():
            if isinstance(module, ResnetBlock):
                module.recomputes = True


def load_vqvae(
    checkpoint: Checkpoint, patch_nums: Sequence[int], phi_ratio: float | None = None
) -> VQVAE:
    """Read a checkpoint of VAR's layout with its decoder, for inference; phi_ratio is VAR's if None.

    Raises:
        CheckpointError: it has no decoder, or weights of other shapes than the layout's.
    """
    try:
        model = VQVAE(checkpoint.shapes, patch_nums)
        model.quantize.phi_ratio = abs(phi_ratio or PHI_RATIO)
        names = model.state_dict().keys() - {HITS}  # of other patch_nums perhaps
        weights = {name: checkpoint.tensor(name) for name in names}
        model.load_state_dict(weights | {HITS: model.quantize.ema_vocab_hit_SV})
    except (KeyError, RuntimeError) as error:
        reason = f"lacks {error.args[0]}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise CheckpointError(
            f"{checkpoint.path}: can't be decoded: {reason}. Expected VAR's layout with its decoder."
        ) from error
    return model.eval().requires_grad_(False)  # noqa: FBT003 - torch's own
