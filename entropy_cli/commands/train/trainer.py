"""One step of training a tokenizer, and all that it changes."""

import contextlib
import copy
import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from entropy_cli.commands.train.codes import Codes
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.commands.train.schedule import rate
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.images.psnr import psnr
from entropy_cli.streaming.emulation import warn_if_training_is_emulated
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.norms import BatchNorm
from entropy_cli.tokenizers.layers.var_layout import batch_normed, decoder_shapes, var_shapes
from entropy_cli.tokenizers.layers.vqvae import VQVAE
from entropy_cli.tokenizers.precision import DTYPES

BETAS = (0.9, 0.95)
LAST_OF_BRANCH = ("conv2", "proj_out")
# Every process computes them itself; the option has another name in newer versions of torch.
_SYNC = "forward_sync_buffers", "broadcast_buffers"
_KNOWN = inspect.signature(DistributedDataParallel).parameters
BUFFERS_AS_THEY_ARE: dict[str, Any] = {next(name for name in _SYNC if name in _KNOWN): False}
LOSSES = ("loss", "l1", "l2", "codebook", "commitment", "psnr_db")


class DivergedError(EntropyCliError):
    """The loss, its gradient or a reconstruction is no number any more."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"step {step}: the loss, its gradient or a reconstruction is NaN or infinite. Try a lower "
            "--lr, more --warmup, a smaller --grad-clip, or --precision fp32, with another --output; "
            "what was saved last is intact."
        )


class Trainer:
    """A model, its optimizer, its codes and its average; the same in all processes after each step.

    Attributes:
        done: steps.
        average: of the weights, which is what is saved and evaluated; the model itself without one.
    """

    def __init__(
        self, recipe: Recipe, device: torch.device, ranks: Ranks, *, grad_checkpointing: bool = False
    ) -> None:
        self.recipe, self.device, self.ranks, self.done = recipe, device, ranks, 0
        self.model = model = _model(recipe, device)
        if grad_checkpointing:
            model.recompute_activations()
        self.codes = Codes(model.quantize, recipe, ranks)
        self.ema_model = (
            copy.deepcopy(model).requires_grad_(requires_grad=False) if recipe.ema_decay else model
        )
        self.network: nn.Module = model
        if ranks.world > 1:
            for module in model.modules():
                if isinstance(module, BatchNorm):
                    module.mean_over_all = _mean_over_all
            self.network = DistributedDataParallel(model, **BUFFERS_AS_THEY_ARE)
        self.optimizer = torch.optim.AdamW(_groups(model, recipe), recipe.lr, BETAS, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")

    def warn_if_emulated(self, img_B3HW: Tensor) -> None:
        """Say how long a picture takes if a CPU has no instructions for the recipe's precision."""
        if self.ranks.first:
            one_B3HW, precision = scaled(img_B3HW[:1], self.device), self.recipe.precision
            warn_if_training_is_emulated(self.model, precision, self.device, one_B3HW)

    def begin(self, img_B3HW: Tensor, progress: Callable[[int], object] = lambda _: None) -> None:
        """Give the codes their first values from pictures; `progress` is given how many were encoded."""
        if self.recipe.init != "kmeans":
            return
        latents = []
        with torch.no_grad():
            for part in torch.split(
                img_B3HW, self.recipe.batch_size // self.recipe.grad_accum_steps // self.ranks.world
            ):
                latents.append(self.model.encode(scaled(part, self.device)))
                progress(len(part))
            self.codes.init_kmeans(torch.cat(latents))

    def step(self, parts: Sequence[Tensor], *, stop: bool = False) -> dict[str, float]:
        """Learn from a batch.

        Args:
            parts: this process's pictures, uint8 (B, 3, H, W), in parts that are computed one by one.
            stop: this process was asked to stop.

        Returns:
            Means over the images of all processes, and `stop` if one of them was asked to.

        Raises:
            DivergedError: in all processes; nothing was changed.
        """
        rate_now = rate(self.done, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * rate_now
        self.optimizer.zero_grad(set_to_none=True)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        losses, sums, z = [], [], []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with contextlib.nullcontext() if last else self._unsynced():
                of_part, sums_of_part, z_BLC = self._backward(part, len(parts))
            losses.append(of_part)
            sums.append(sums_of_part)
            z.append(z_BLC)
        mine = torch.stack(losses).mean(0) / self.ranks.world
        flag = mine.new_tensor([float(stop)])
        total = self.ranks.all_reduce(torch.cat([mine, flag, torch.stack(sums).sum(0)]))
        metrics = dict(zip((*LOSSES, "stop"), total[: len(LOSSES) + 1].tolist(), strict=True))
        try:
            metrics |= {"lr": self.recipe.lr * rate_now, "grad_norm": self._update(metrics["loss"])}
        except DivergedError:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)  # batch norms have counted already
            raise
        self.codes.ema_update(self.done, total[len(LOSSES) + 1 :])
        revived_V = self.codes.restart_dead_codes(self.done, torch.cat(z))
        self._reset_moments(revived_V)
        self._update_ema()
        metrics |= {"usage": self.codes.usage(self.done), "revived": int(revived_V.sum())}
        self.done += 1
        return metrics

    def _backward(self, img_B3HW: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        recipe = self.recipe
        x_B3HW = scaled(img_B3HW, self.device)
        with torch.autocast(
            self.device.type, DTYPES[recipe.precision], enabled=recipe.precision != "fp32"
        ):
            recon_B3HW, quantised = self.network(x_B3HW)
        error_B3HW = recon_B3HW.float() - x_B3HW
        l1, l2 = error_B3HW.abs().mean(), error_B3HW.square().mean()
        loss = recipe.l1 * l1 + recipe.l2 * l2 + quantised.codebook_loss
        loss = loss + recipe.beta * quantised.commitment_loss
        self.scaler.scale(loss / parts).backward()
        with torch.no_grad():
            found = [loss, l1, l2, quantised.codebook_loss, quantised.commitment_loss]
            found.append(psnr(recon_B3HW, x_B3HW).mean())
            losses = torch.stack([value.double() for value in found])
            return losses, self.codes.sums(quantised), quantised.z_BLC

    def _update(self, loss: float) -> float:
        """Step of the optimizer; the norm of the gradient before it was clipped."""
        self.scaler.unscale_(self.optimizer)
        largest = self.recipe.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), largest)
        exact = self.recipe.precision != "fp16"  # else the scaler leaves such a step out
        if not (torch.tensor(loss).isfinite() and (norm.isfinite() or not exact)):
            raise DivergedError(self.done + 1)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(norm) if norm.isfinite() else 0.0

    def _reset_moments(self, revived_V: Tensor) -> None:
        """Moments of codes that are others now, if the optimizer has any."""
        state = self.optimizer.state.get(self.codes.weight_VC, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name][revived_V] = 0

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Move the average of the weights; codes and what norms counted are not averaged twice."""
        if self.ema_model is self.model:
            return
        decay = min(self.recipe.ema_decay, (self.done // 2 + 1) / (self.done // 2 + 10))
        ema = dict(self.ema_model.named_parameters())
        for name, weight in self.model.named_parameters():
            ema[name].lerp_(weight, 1.0 if weight is self.codes.weight_VC else 1 - decay)
        for kept, buffer in zip(self.ema_model.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)

    def check_codes(self) -> None:
        """Raise EntropyCliError if the processes' codes are not the same to the last bit."""
        codes = self.codes.weight_VC.detach().cpu().numpy().tobytes()
        hashes = self.ranks.all_gather(hashlib.sha256(codes).hexdigest()[:12])
        if len(set(hashes)) > 1:
            raise EntropyCliError(
                f"step {self.done}: the processes' codebooks differ, their sha256 are "
                f"{', '.join(hashes)}. Go on with --resume from what is saved, in one process."
            )

    def _unsynced(self) -> contextlib.AbstractContextManager[None]:
        return (
            self.network.no_sync()
            if isinstance(self.network, DistributedDataParallel)
            else contextlib.nullcontext()
        )

    def state(self) -> dict[str, Any]:
        """To go on from."""
        average = None if self.ema_model is self.model else self.ema_model.state_dict()
        return {
            "done": self.done,
            "model": self.model.state_dict(),
            "average": average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "codes": self.codes.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.done = state["done"]
        self.model.load_state_dict(state["model"])
        if self.ema_model is not self.model:
            self.ema_model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.codes.load_state(state["codes"])


def scaled(img_B3HW: Tensor, device: torch.device) -> Tensor:
    """From uint8 to float32 in [-1, 1], on a device."""
    return img_B3HW.to(device, non_blocking=True).float().div_(127.5).sub_(1)


def _model(recipe: Recipe, device: torch.device) -> VQVAE:
    """With weights that keep the variance of what passes, blocks that do nothing yet, VAR's codes."""
    shapes = var_shapes(recipe.sizes) | decoder_shapes(recipe.sizes)
    if recipe.norm == "batch":
        shapes = batch_normed(shapes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = VQVAE(shapes, recipe.patch_nums)
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                gain = 0.0 if name.endswith(LAST_OF_BRANCH) else 1.0
                nn.init.normal_(module.weight, 0, gain / module.weight[0].numel() ** 0.5)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type] # each has one
        nn.init.uniform_(model.quantize.embedding.weight, -1 / recipe.vocab_size, 1 / recipe.vocab_size)
    # On a CPU, convolutions with gradients are faster on torch's own layout.
    layout = torch.contiguous_format if device.type == "cpu" else torch.channels_last
    model.encoder.memory_format = layout
    return model.to(memory_format=layout).to(device).train()


def _groups(model: VQVAE, recipe: Recipe) -> list[dict[str, Any]]:
    """Weights of convolutions decay; biases, norms and codes don't."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    decaying = [weight for weight in trained if weight.ndim > 2]
    rest = [weight for weight in trained if weight.ndim <= 2]
    return [
        {"params": decaying, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


class _MeanOverAll(torch.autograd.Function):
    """The mean over the processes; the gradient of their summed losses is such a mean too."""

    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401
        return _all_reduced_mean(tensor)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return _all_reduced_mean(gradient)


def _all_reduced_mean(tensor: Tensor) -> Tensor:
    total = tensor.contiguous().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


_mean_over_all = functools.partial(_MeanOverAll.apply)
