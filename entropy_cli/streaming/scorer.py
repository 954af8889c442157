"""The losses of a generator on the tokens of images, by teacher forcing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.entropy.loss_tally import ImageLosses
from entropy_cli.entropy.token_losses import Scratch, kl_divergence, log_softmax, token_losses
from entropy_cli.generators.base import Generator
from entropy_cli.streaming.coarser_scales import teacher_inputs
from entropy_cli.streaming.device import to_device
from entropy_cli.tokenizers.base import Tokenizer

# Images in the transformer at once: a part of a block, so that which images meet does not depend on
# where a run was cut. A CPU is as fast with few tokens, which need less memory.
TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 2**15}
POWERS = (16, 8, 4, 2, 1)
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**24}  # on a CPU they should stay in a cache


@dataclass
class Scorer:
    """Computes a generator's losses on the tokens of images.

    Attributes:
        generator: on the device.
        tokenizer: of the tokens, on the device, in any precision.
        label_N: the class of each image of the run, int64, on the CPU.
        label_check: the number of first images whose losses are computed with the null class too.
        soft: whether to compare predictions with the soft labels too.
    """

    generator: Generator
    tokenizer: Tokenizer
    label_N: Tensor
    label_check: int
    soft: bool
    _scratch: Scratch = field(default_factory=Scratch)

    def score(
        self,
        places: Sequence[int],
        idx_BL: Tensor,
        z_SBlC: Sequence[Tensor],
        temperatures_ST: Sequence[Sequence[float]],
    ) -> ImageLosses:
        """Return the losses of images.

        Args:
            places: their indices in the seeded order; rows beyond them are there to fill up a batch.
            idx_BL: their tokens, scale after scale.
            z_SBlC: the vectors that were assigned at each scale; empty without soft labels.
            temperatures_ST: of the soft labels at each scale.
        """
        label_B = torch.zeros(len(idx_BL), dtype=torch.int64)
        label_B[: len(places)] = self.label_N[list(places)]
        checked_B = torch.zeros(len(idx_BL), dtype=torch.bool)
        checked_B[: len(places)] = torch.tensor(places) < self.label_check
        tokens, most = idx_BL.shape[1], TOKENS_AT_ONCE[idx_BL.device.type]
        at_once = next(n for n in POWERS if n * tokens <= most or n == 1)
        parts = []
        for b in range(0, len(idx_BL), at_once):
            part = slice(b, b + at_once)
            z_SblC = [z_BlC[part] for z_BlC in z_SBlC]
            parts.append(
                self._score(idx_BL[part], label_B[part], checked_B[part], z_SblC, temperatures_ST)
            )
        return ImageLosses.joined(parts)

    def _score(
        self,
        idx_BL: Tensor,
        label_B: Tensor,
        checked_B: Tensor,
        z_SBlC: Sequence[Tensor],
        temperatures_ST: Sequence[Sequence[float]],
    ) -> ImageLosses:
        device, spec = idx_BL.device, self.generator.spec
        inputs_BMC = None if spec.latent_dim is None else teacher_inputs(self.tokenizer, idx_BL)
        hidden_BLC = self.generator.hidden(idx_BL, to_device(label_B, device), inputs_BMC)
        columns_BSX = self._by_scale(hidden_BLC, idx_BL, z_SBlC, temperatures_ST)
        predictive_BS, loss_BS, top1_BS, top5_BS, *kl = columns_BSX.unbind(2)
        checked_on_B = to_device(checked_B, device)
        null_BS = torch.zeros_like(loss_BS)
        if spec.null_class is not None and checked_B.any():
            null_B = torch.full_like(label_B, spec.null_class, device=device)
            hidden_BLC = self.generator.hidden(idx_BL, null_B, inputs_BMC)
            null_BS = self._by_scale(hidden_BLC, idx_BL, (), ())[:, :, 1] * checked_on_B[:, None]
        kl_BST = torch.stack(kl, 2) if kl else loss_BS.new_zeros(*loss_BS.shape, 0)
        return ImageLosses(loss_BS, top1_BS, top5_BS, predictive_BS, kl_BST, checked_on_B, null_BS)

    def _by_scale(
        self,
        hidden_BLC: Tensor,
        idx_BL: Tensor,
        z_SBlC: Sequence[Tensor],
        temperatures_ST: Sequence[Sequence[float]],
    ) -> Tensor:
        """Return sums over the tokens of each scale: of the token losses, then of the KL at each T."""
        tokens = [scale.tokens for scale in self.tokenizer.spec.scales]
        split = zip(torch.split(hidden_BLC, tokens, 1), torch.split(idx_BL, tokens, 1), strict=True)
        sums = []
        for s, (hidden_BlC, idx_Bl) in enumerate(split):
            z_NC: Tensor | None = None
            temperatures: Sequence[float] = ()
            if self.soft and z_SBlC:
                z_NC, temperatures = z_SBlC[s].flatten(0, 1), temperatures_ST[s]
            loss_NX = self._token_losses(
                hidden_BlC.flatten(0, 1), idx_Bl.flatten(), s, z_NC, temperatures
            )
            sums.append(loss_NX.view(*idx_Bl.shape, -1).sum(1))
        return torch.stack(sums, 1)

    def _token_losses(
        self,
        hidden_NC: Tensor,
        idx_N: Tensor,
        scale: int,
        z_NC: Tensor | None,
        temperatures: Sequence[float],
    ) -> Tensor:
        """Return the losses of tokens of one scale, in pieces that memory, or a cache, holds."""
        vocab_size = self.generator.spec.vocab_size
        rows = max(1, LOGITS_AT_ONCE[hidden_NC.device.type] // vocab_size)
        losses = []
        for n in range(0, len(hidden_NC), rows):
            part = slice(n, n + rows)
            logits_NV = self.generator.logits(hidden_NC[part])
            columns = [token_losses(logits_NV, idx_N[part], None, scratch=self._scratch)]
            if z_NC is not None:
                log_p_NV = log_softmax(logits_NV)
                logit_NV = soft_logits(self.tokenizer.codebook(scale), z_NC[part])
                for temperature in temperatures:
                    log_q_NV = log_softmax(logit_NV / temperature)
                    columns.append(kl_divergence(log_q_NV, log_p_NV)[:, None])
            losses.append(torch.cat(columns, 1))
        return torch.cat(losses)


def soft_logits(codebook: Codebook | Grid, z_NC: Tensor) -> Tensor:
    """Return the float64 logits_NV whose softmax at a temperature is the soft assignment.

    The codes of a grid must be few enough to count.
    """
    if isinstance(codebook, Codebook):
        return codebook.logits(z_NC)[0].double()
    code_VC = codebook.codes()
    return 2 * codebook.prepared(z_NC) @ code_VC.T - code_VC.square().sum(1)
