"""Group norm of a 16-bit tensor in training, alone or followed by SiLU, computed in float32.

Autocast would keep the norm's input and its output in float32 until the backward pass. This keeps the
16-bit input, which the convolution before it has made, and two numbers a group.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def mixed_norm(x_BChw: Tensor, norm: nn.GroupNorm, *, silu: bool) -> Tensor:
    """Return the norm of a 16-bit tensor by float32 weights, rounded once to the tensor's dtype."""
    with torch.autocast(x_BChw.device.type, enabled=False):
        normed_BChw: Tensor = _MixedNorm.apply(
            x_BChw, norm.weight, norm.bias, norm.num_groups, norm.eps, silu
        )
    return normed_BChw


class _MixedNorm(torch.autograd.Function):
    """The norm and its gradient, for which the normalised tensor is computed again."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch has no type for it
        x_BChw: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        groups: int,
        eps: float,
        silu: bool,  # noqa: FBT001 - apply takes no keywords
    ) -> Tensor:
        y_BChw = x_BChw.float()
        variance_BC, mean_BC = torch.var_mean(y_BChw, (2, 3), correction=0)
        mean_BC11 = _mean_of_group(mean_BC, groups)
        # Of a group of channels: their variances, and that of their means.
        variance_BC += (mean_BC - mean_BC11[..., 0, 0]).square()
        rstd_BC11 = (_mean_of_group(variance_BC, groups) + eps).rsqrt()
        ctx.save_for_backward(x_BChw, weight_C, bias_C, mean_BC11, rstd_BC11)
        ctx.groups, ctx.silu = groups, silu
        y_BChw.sub_(mean_BC11).mul_(rstd_BC11 * weight_C[:, None, None]).add_(bias_C[:, None, None])
        if silu:
            functional.silu(y_BChw, inplace=True)
        return y_BChw.to(x_BChw.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_BChw, weight_C, bias_C, mean_BC11, rstd_BC11 = ctx.saved_tensors
        unit_BChw, grad_BChw = x_BChw.float().sub_(mean_BC11).mul_(rstd_BC11), grads[0].float()
        if ctx.silu:
            y_BChw = torch.addcmul(bias_C[:, None, None], unit_BChw, weight_C[:, None, None])
            grad_BChw = torch.ops.aten.silu_backward(grad_BChw, y_BChw)
            del y_BChw
        of_bias_BC, of_weight_BC = grad_BChw.sum((2, 3)), (grad_BChw * unit_BChw).sum((2, 3))
        # A group's mean and scale are taken away, and so is the gradient along them.
        pixels = x_BChw[0, 0].numel()
        along_mean_BC11, along_scale_BC11 = (
            _mean_of_group(of_BC * weight_C / pixels, ctx.groups) for of_BC in (of_bias_BC, of_weight_BC)
        )
        unit_BChw.mul_(along_scale_BC11).add_(along_mean_BC11)
        grad_BChw = grad_BChw.mul_(weight_C[:, None, None]).sub_(unit_BChw).mul_(rstd_BC11)
        return grad_BChw.to(x_BChw.dtype), of_weight_BC.sum(0), of_bias_BC.sum(0), None, None, None


def _mean_of_group(value_BC: Tensor, groups: int) -> Tensor:
    """Give every channel the mean over its group: (B, C, 1, 1)."""
    B, C = value_BC.shape
    mean_Bg1 = value_BC.view(B, groups, -1).mean(2, keepdim=True)
    return mean_Bg1.expand(B, groups, C // groups).reshape(B, C, 1, 1)
