"""The trainer of a tokenizer: one step, and the state that it changes."""

import contextlib
import copy
import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from entropy_cli.commands.train.codebook import TrainingCodebook
from entropy_cli.commands.train.quality import normalize
from entropy_cli.commands.train.recipe import Recipe
from entropy_cli.commands.train.state import check_alike, load_optimizer
from entropy_cli.commands.train.step_metrics import LOSSES, StepMetrics
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.images.psnr import psnr
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.norms import BatchNorm
from entropy_cli.tokenizers.layers.var_layout import batch_normed, decoder_shapes, var_shapes
from entropy_cli.tokenizers.layers.vqvae import VQVAE
from entropy_cli.tokenizers.precision import DTYPES

BETAS = (0.9, 0.95)
ZERO_INIT = ("conv2", "proj_out")  # last convolutions of residual branches
# Every process computes equal buffers; newer versions of torch renamed the option.
_DDP_OPTIONS = inspect.signature(DistributedDataParallel).parameters
_BUFFER_OPTIONS = "forward_sync_buffers", "broadcast_buffers"
NO_BUFFER_SYNC: dict[str, Any] = {next(name for name in _BUFFER_OPTIONS if name in _DDP_OPTIONS): False}


class Trainer:
    """A model, its optimizer, codebook and averaged weights; equal in all processes after each step.

    Attributes:
        steps_done: number of steps taken.
        ema_model: the averaged weights, which are saved and evaluated; the model itself without them.
    """

    def __init__(
        self, recipe: Recipe, device: torch.device, ranks: Ranks, *, grad_checkpointing: bool = False
    ) -> None:
        self.recipe, self.device, self.ranks, self.steps_done = recipe, device, ranks, 0
        self.model = self.ema_model = model = build_model(recipe, device)
        if grad_checkpointing:
            model.recompute_activations()
        self.codebook = TrainingCodebook(model.quantize, recipe, ranks)
        if recipe.ema_decay:
            self.ema_model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.network: nn.Module = model
        if ranks.world > 1:
            for module in model.modules():
                if isinstance(module, BatchNorm):
                    module.mean_over_all = _mean_over_ranks
            self.network = DistributedDataParallel(model, **NO_BUFFER_SYNC)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        groups = [  # weight decay for convolutions, none for biases, norms and codes
            {"params": [w for w in trained if w.ndim > 2], "weight_decay": recipe.weight_decay},
            {"params": [w for w in trained if w.ndim <= 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, recipe.lr, BETAS, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        # Whether all steps so far were of finite numbers; only the device knows at first.
        self.sound = torch.ones((), dtype=torch.bool, device=device)

    def init_codebook(
        self, img_B3HW: Tensor, progress: Callable[[int], object] = lambda _: None
    ) -> None:
        """Initialize the codebook by k-means of these uint8 images' latents, if the recipe says so."""
        if self.recipe.init != "kmeans":
            return
        size = self.recipe.batch_size // self.recipe.grad_accum_steps // self.ranks.world
        latents = []
        with torch.no_grad():
            for part in torch.split(img_B3HW, size):
                latents.append(self.model.encode(normalize(part, self.device)))
                progress(len(part))
            self.codebook.init_kmeans(torch.cat(latents))

    def step(self, micro_batches: Sequence[Tensor], *, stop: bool = False) -> StepMetrics:
        """Train on one batch; a GPU may still be computing it afterwards.

        A step whose loss or gradient is not finite changes nothing, and no step after it does.

        Args:
            micro_batches: this process's images, uint8 (B, 3, H, W) each.
            stop: this process received a signal to stop.
        """
        lr = self.recipe.lr * self.recipe.lr_factor(self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        before = [tensor.clone() for tensor in self._small_state()]
        parts, no_sync = [], getattr(self.network, "no_sync", contextlib.nullcontext)
        for i, img_B3HW in enumerate(micro_batches, 1):
            with contextlib.nullcontext() if i == len(micro_batches) else no_sync():
                parts.append(self._backward(img_B3HW, len(micro_batches)))
        losses, sums, z = zip(*parts, strict=True)
        mean_loss = torch.stack(losses).mean(0) / self.ranks.world
        flag = torch.full_like(mean_loss[:1], float(stop))
        total = self.ranks.all_reduce(torch.cat([mean_loss, flag, torch.stack(sums).sum(0)]))
        measured, sum_X = total[: len(LOSSES) + 1], total[len(LOSSES) + 1 :]
        norm = self._update(measured[0])
        self.codebook.ema_update(self.steps_done, sum_X)
        restarted_V = self.codebook.restart_dead_codes(self.steps_done, torch.cat(z)) & self.sound
        self._reset_moments(restarted_V)
        for tensor, old in zip(self._small_state(), before, strict=True):
            tensor.copy_(torch.where(self.sound, tensor, old))
        self._update_ema()
        usage = self.codebook.usage(self.steps_done)
        self.steps_done += 1
        last_4 = torch.stack([norm.double(), usage, restarted_V.sum().double(), self.sound.double()])
        return StepMetrics.of(self.steps_done, lr, torch.cat([measured, last_4]))

    def _small_state(self) -> list[Tensor]:
        """Return what a step changes beside the optimizer and the weights that it trains."""
        codes = self.codebook.weight_VC.detach()
        return [*self.model.buffers(), codes, *self.codebook.state().values()]

    def _backward(self, img_B3HW: Tensor, accum_steps: int) -> tuple[Tensor, Tensor, Tensor]:
        recipe = self.recipe
        x_B3HW = normalize(img_B3HW, self.device)
        with torch.autocast(
            self.device.type, DTYPES[recipe.precision], enabled=recipe.precision != "fp32"
        ):
            recon_B3HW, quantised = self.network(x_B3HW)
        error_B3HW = recon_B3HW.float() - x_B3HW
        l1, l2 = error_B3HW.abs().mean(), error_B3HW.square().mean()
        loss = recipe.l1 * l1 + recipe.l2 * l2 + quantised.codebook_loss
        loss = loss + recipe.beta * quantised.commitment_loss
        self.scaler.scale(loss / accum_steps).backward()
        with torch.no_grad():
            metrics = [loss, l1, l2, quantised.codebook_loss, quantised.commitment_loss]
            metrics.append(psnr(recon_B3HW, x_B3HW).mean())
            losses = torch.stack([value.double() for value in metrics])
            return losses, self.codebook.sums(quantised), quantised.z_BLC

    def _update(self, loss: Tensor) -> Tensor:
        """Clip the gradient and step the optimizer, if all is finite; return its norm before that."""
        self.scaler.unscale_(self.optimizer)
        max_norm = self.recipe.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        overflows, finite = ~norm.isfinite(), loss.isfinite()
        if self.scaler.is_enabled():  # such a step is left out, and the scale lowered
            norm = norm.masked_fill(overflows, 0)
        else:
            finite = finite & ~overflows
        self.sound &= finite
        # What makes the fused AdamW change nothing.
        self.optimizer.found_inf = (overflows | ~self.sound).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.scaler.update()
        return norm

    def _reset_moments(self, restarted_V: Tensor) -> None:
        """Reset the optimizer's moments of restarted codes, if it has any."""
        state = self.optimizer.state.get(self.codebook.weight_VC, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in state:
                state[name].masked_fill_(restarted_V[:, None], 0)

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Update the averaged weights; codes and norms' moments, averages already, are copied."""
        if self.ema_model is self.model:
            return
        decay = min(self.recipe.ema_decay, (self.steps_done // 2 + 1) / (self.steps_done // 2 + 10))
        ema = dict(self.ema_model.named_parameters())
        for name, weight in self.model.named_parameters():
            to = torch.where(self.sound, weight, ema[name])
            ema[name].lerp_(to, 1.0 if weight is self.codebook.weight_VC else 1 - decay)
        for ema_buffer, buffer in zip(self.ema_model.buffers(), self.model.buffers(), strict=True):
            ema_buffer.copy_(buffer)

    def check_codes(self) -> None:
        """Raise EntropyCliError if the processes' codes are not bitwise equal."""
        codes = self.codebook.weight_VC.detach().cpu().numpy().tobytes()
        hashes = self.ranks.all_gather(hashlib.sha256(codes).hexdigest()[:12])
        if len(set(hashes)) > 1:
            raise EntropyCliError(
                f"step {self.steps_done}: the processes' codebooks differ, their sha256 are "
                f"{', '.join(hashes)}. Resume from the last save with --resume, in one process."
            )

    def state(self) -> dict[str, Any]:
        """Return the state to resume from."""
        average = None if self.ema_model is self.model else self.ema_model.state_dict()
        return {
            "done": self.steps_done,
            "model": self.model.state_dict(),
            "average": average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "codes": self.codebook.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load a state to resume from; raise StateError if a part is missing or of another model."""
        fresh = self.state()
        for part in ("model", "average", "codes"):
            check_alike(part, state, fresh[part])
        self.steps_done = state["done"]
        self.model.load_state_dict(state["model"])
        if self.ema_model is not self.model:
            self.ema_model.load_state_dict(state["average"])
        load_optimizer(self.optimizer, state.get("optimizer"))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.codebook.load_state(state["codes"])


def build_model(recipe: Recipe, device: torch.device) -> VQVAE:
    """Build the model: variance-preserving weights, residual blocks at identity, VAR's initial codes."""
    shapes = var_shapes(recipe.sizes) | decoder_shapes(recipe.sizes)
    if recipe.norm == "batch":
        shapes = batch_normed(shapes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = VQVAE(shapes, recipe.patch_nums)
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                gain = 0.0 if name.endswith(ZERO_INIT) else 1.0
                nn.init.normal_(module.weight, 0, gain / module.weight[0].numel() ** 0.5)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type] # each has one
        nn.init.uniform_(model.quantize.embedding.weight, -1 / recipe.vocab_size, 1 / recipe.vocab_size)
    # On a CPU, convolutions with gradients are faster in torch's default layout.
    layout = torch.contiguous_format if device.type == "cpu" else torch.channels_last
    model.encoder.memory_format = layout
    return model.to(memory_format=layout).to(device).train()


def _mean_over_ranks(tensor: Tensor) -> Tensor:
    """Return the mean over processes; the gradient of their summed losses is such a mean too."""
    total: Tensor = all_reduce(tensor.contiguous())  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()
