"""The norms between an autoencoder's convolutions, for training and exact for inference."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.tokenizers.layers import fused
from entropy_cli.tokenizers.layers.mixed_norm import mixed_norm

NORM_EPS = 1e-6  # the same in every published checkpoint of this layout

CACHED_ELEMENTS = 2**20  # of float32, that stay in a CPU's cache
SUMMED_ELEMENTS = 2**18  # of float32, that stay in the cache of one core
SUMMANDS = 128  # in one sum of float32


class GroupNorm(nn.GroupNorm):
    """Group norm of the layout's epsilon; for inference on a CPU in float32 whatever the input's type.

    On a CPU torch's own loses digits in channels_last, more of them the larger the image. There the
    moments are those of small parts of the image, put together in float64. On a GPU it is the fused
    kernel where that works: torch's own leaves channels_last. Where gradients are wanted it is torch's
    own, on the layout that the input has, or `mixed_norm` of a 16-bit input.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(groups, channels, eps=NORM_EPS)

    def forward(self, x_BChw: Tensor) -> Tensor:
        if _trains_in_16_bits(x_BChw, self.weight):
            return mixed_norm(x_BChw, self, silu=False)
        if _trains(x_BChw, self.weight) or _in_channel_order(x_BChw, self.weight):
            return super().forward(x_BChw)
        if torch.compiler.is_compiling():  # which fuses it, and gives both of them the same arithmetic
            return super().forward(x_BChw.float()).to(x_BChw.dtype)
        if self.is_fused(x_BChw):
            return self.run_fused(x_BChw, silu=False)
        if x_BChw.device.type != "cpu":
            weight_C, bias_C = self.weight.to(x_BChw.dtype), self.bias.to(x_BChw.dtype)
            return functional.group_norm(x_BChw, self.num_groups, weight_C, bias_C, self.eps)
        shift_BC11, scale_BC11 = self._affine(x_BChw)
        return torch.addcmul(shift_BC11, x_BChw.float(), scale_BC11).to(x_BChw.dtype)

    def then_silu(self, x_BChw: Tensor) -> Tensor:
        """Apply norm and SiLU; on a CPU rounded once, and in pieces that fit the cache."""
        if _trains_in_16_bits(x_BChw, self.weight):
            return mixed_norm(x_BChw, self, silu=True)
        if torch.compiler.is_compiling():
            return functional.silu(self(x_BChw))
        if self.is_fused(x_BChw):
            return self.run_fused(x_BChw, silu=True)
        trains = _trains(x_BChw, self.weight)
        if x_BChw.device.type != "cpu" or trains or _in_channel_order(x_BChw, self.weight):
            return functional.silu(self(x_BChw), inplace=not trains)
        shift_BC11, scale_BC11 = self._affine(x_BChw)
        out_BChw, rounds = torch.empty_like(x_BChw), x_BChw.dtype != torch.float32
        B, C, h, w = x_BChw.shape
        images = max(1, CACHED_ELEMENTS // (C * h * w))
        rows = max(1, CACHED_ELEMENTS // (C * w))
        for b in range(0, B, images):
            part = slice(b, b + images)
            for r in range(0, h, rows):
                x_bCrw, out_bCrw = (t[part, :, r : r + rows] for t in (x_BChw, out_BChw))
                normed_bCrw = torch.addcmul(
                    shift_BC11[part], x_bCrw.float(), scale_BC11[part], out=None if rounds else out_bCrw
                )
                functional.silu(normed_bCrw, inplace=True)
                if rounds:
                    out_bCrw.copy_(normed_bCrw)
        return out_BChw

    def is_fused(self, x_BChw: Tensor) -> bool:
        """Return whether the fused kernel runs for what has the type, device and layout of x."""
        return not _trains(x_BChw, self.weight) and fused.works(
            x_BChw, self.num_channels, self.num_groups
        )

    def run_fused(self, x_BChw: Tensor, offset_C: Tensor | None = None, *, silu: bool) -> Tensor:
        """Add an offset to every pixel, normalise and apply SiLU in the fused kernel."""
        return torch.ops.entropy_cli.group_norm(
            x_BChw, self.weight, self.bias, offset_C, self.num_groups, self.eps, silu
        )

    def _affine(self, x_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the offset and the factor of each channel of each image, float32."""
        B, C = x_BChw.shape[:2]
        mean_BgC, variance_BgC = (t.view(B, self.num_groups, -1) for t in _channel_moments(x_BChw))
        mean_Bg1 = mean_BgC.mean(2, keepdim=True)
        variance_Bg1 = (variance_BgC + (mean_BgC - mean_Bg1).square()).mean(2, keepdim=True)
        scale_BgC = self.weight.double().view_as(mean_BgC[0]) * (variance_Bg1 + self.eps).rsqrt()
        scale_BgC = scale_BgC.float()  # before the shift, so that a large mean times it cancels
        shift_BgC = self.bias.double().view_as(mean_BgC[0]) - mean_Bg1 * scale_BgC
        return shift_BgC.float().view(B, C, 1, 1), scale_BgC.view(B, C, 1, 1)


def _channel_moments(x_BChw: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel of each image, (B, C), float64; fast in channels_last.

    The kernel of batch norm adds rows up in float32, with an error that grows with their number and with
    the mean. So it is given few rows at a time, less the first of them, and these are long: the channels
    of several pixels, which it keeps apart.
    """
    B, C, h, w = x_BChw.shape
    pixels = math.gcd(h * w, 1 << (SUMMED_ELEMENTS // (SUMMANDS * C)).bit_length())
    rows = SUMMANDS * torch.get_num_threads()  # which share them
    parts = torch.split(x_BChw.permute(0, 2, 3, 1).reshape(B, -1, pixels * C), rows, 1)
    moments = [
        torch.batch_norm_update_stats(x_rx - x_rx[0].float(), None, None, 0.0)
        for x_Brx in parts
        for x_rx in x_Brx
    ]
    mean_nBpC, variance_nBpC = (
        torch.stack(moment).double().view(-1, B, pixels, C) for moment in zip(*moments, strict=True)
    )
    mean_nBpC += torch.stack([x_Brx[:, 0] for x_Brx in parts]).view_as(mean_nBpC)
    share_n = mean_nBpC.new_tensor([x_Brx.shape[1] for x_Brx in parts]) / (h * w)
    mean_BC = torch.einsum("n,nbpc->bc", share_n, mean_nBpC)
    variance_nBpC += (mean_nBpC - mean_BC[:, None]).square()
    return mean_BC, torch.einsum("n,nbpc->bc", share_n, variance_nBpC)


class BatchNorm(nn.Module):
    """Batch norm in float32, over the images of all processes in training; else by running moments.

    torch's SyncBatchNorm needs a GPU; this one needs none. The running variance is of those that were
    divided by, without torch's n / (n - 1).

    Attributes:
        mean_over_all: mean of a tensor over the processes, through which gradients flow.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum = 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.mean_over_all: Callable[[Tensor], Tensor] = _alone

    def forward(self, x_BChw: Tensor) -> Tensor:
        mean_C, variance_C = self.running_mean, self.running_var
        x = x_BChw.float()  # nothing below is lowered again by autocast
        if self.training:
            # The mean first, so that no digits cancel in the variance.
            mean_C = self.mean_over_all(x.mean((0, 2, 3)))
            x = x - mean_C[:, None, None]
            variance_C = self.mean_over_all(x.square().mean((0, 2, 3)))
            with torch.no_grad():
                self.running_mean.lerp_(mean_C, self.momentum)
                self.running_var.lerp_(variance_C, self.momentum)
        else:
            x = x - mean_C[:, None, None]
        scale_C = self.weight * (variance_C.float() + NORM_EPS).rsqrt()
        normed_BChw = x * scale_C[:, None, None] + self.bias[:, None, None]
        return normed_BChw.to(x_BChw.dtype)

    def then_silu(self, x_BChw: Tensor) -> Tensor:
        """Apply norm and SiLU."""
        return functional.silu(self(x_BChw))


@contextmanager
def uncounted(module: nn.Module) -> Iterator[None]:
    """Keep the running moments of batch norms, for recomputing a batch they have already seen."""
    norms = [norm for norm in module.modules() if isinstance(norm, BatchNorm)]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm in norms:
            norm.momentum = BatchNorm.momentum


def _alone(tensor: Tensor) -> Tensor:
    return tensor


def _trains(x_BChw: Tensor, weight_C: Tensor) -> bool:
    return torch.is_grad_enabled() and (x_BChw.requires_grad or weight_C.requires_grad)


def _trains_in_16_bits(x_BChw: Tensor, weight_C: Tensor) -> bool:
    """Return whether autocast made the input's convolution, but not the norm, compute in 16 bits."""
    return _trains(x_BChw, weight_C) and x_BChw.dtype != weight_C.dtype


def _in_channel_order(x_BChw: Tensor, weight_C: Tensor) -> bool:
    """Return whether torch's own norm is exact on a CPU: in float32 in its default layout."""
    return x_BChw.dtype == weight_C.dtype == torch.float32 and x_BChw.is_contiguous()


def norm_like(
    shapes: Mapping[str, tuple[int, ...]], name: str, before: str, groups: Sequence[int]
) -> GroupNorm | BatchNorm:
    """Build the norm before a convolution: a batch norm if the weights have running moments."""
    channels = shapes[f"{before}.weight"][1]
    if f"{name}.running_mean" in shapes:
        return BatchNorm(channels)
    return GroupNorm(channels, next((n for n in groups if channels % n == 0), groups[0]))
