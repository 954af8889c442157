"""What follows Emu3's encoder of single frames: convolutions over time that see the past only.

Source:
    baaivision/Emu3 emu3/tokenizer/modeling_emu3visionvq.py (Emu3VisionVQCausalConv3d and what it is in).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.tokenizers.layers.autoencoder import Shapes, count

NORM_EPS = 1e-5  # torch's, which is not that of the encoder's norms
FRAMES_BEFORE = 2  # of zeros, before the first


class CausalConv(nn.Conv3d):
    """A convolution over time and space that keeps the size of a frame."""

    def __init__(self, shapes: Shapes, name: str, *, stride: int = 1) -> None:
        shape = shapes[f"{name}.weight"]
        if len(shape) != 5 or any(side % 2 == 0 for side in shape[3:]):
            raise ValueError(f"{name}.weight has shape {shape}, expected a convolution over time")
        out_channels, in_channels, time, height, width = shape
        super().__init__(in_channels, out_channels, (time, height, width), (stride, 1, 1))

    def forward(self, x_BCthw: Tensor) -> Tensor:
        height, width = (side // 2 for side in self.kernel_size[1:])
        return super().forward(functional.pad(x_BCthw, (width, width, height, height, FRAMES_BEFORE, 0)))


class RunningNorm(nn.Module):
    """A batch norm over frames by its running moments."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))

    def forward(self, x_BCthw: Tensor) -> Tensor:
        factor_C = self.weight * (self.running_var + NORM_EPS).rsqrt()
        mean_C111, factor_C111, bias_C111 = (
            of_C[:, None, None, None] for of_C in (self.running_mean, factor_C, self.bias)
        )
        return (x_BCthw - mean_C111) * factor_C111 + bias_C111


class TemporalBlock(nn.Module):
    """Norm, SiLU and convolution, twice, with a shortcut."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        self.first, self.second = (CausalConv(shapes, f"{name}.{part}") for part in ("first", "second"))
        self.norm1 = RunningNorm(self.first.in_channels)
        self.norm2 = RunningNorm(self.second.in_channels)

    def forward(self, x_BCthw: Tensor) -> Tensor:
        h_BCthw = self.first(functional.silu(self.norm1(x_BCthw)))
        return x_BCthw + self.second(functional.silu(self.norm2(h_BCthw)))


class FramesToOne(nn.Module):
    """The latent of a still picture: of as many copies of it as the convolutions over time join."""

    def __init__(self, shapes: Shapes, name: str) -> None:
        super().__init__()
        halvings = range(count(shapes, f"{name}.halving.{{}}.weight"))
        self.halving = nn.ModuleList(
            CausalConv(shapes, f"{name}.halving.{i}", stride=2) for i in halvings
        )
        blocks = range(count(shapes, f"{name}.block.{{}}.first.weight"))
        self.block = nn.ModuleList(TemporalBlock(shapes, f"{name}.block.{i}") for i in blocks)
        self.last = CausalConv(shapes, f"{name}.last")

    def flow(self, channels: int) -> int:
        """Return the channels of a latent for those of a frame; ValueError if they don't fit."""
        for conv in self.modules():
            sizes = {conv.in_channels, conv.out_channels} if isinstance(conv, CausalConv) else {channels}
            if conv is not self.last and sizes != {channels}:
                raise ValueError(f"a frame has {channels} channels, but a convolution over time {sizes}")
        if self.last.in_channels != channels:
            raise ValueError(f"a frame has {channels} channels, the last convolution takes others")
        return self.last.out_channels

    def forward(self, frame_BChw: Tensor) -> Tensor:
        frames = 2 ** len(self.halving)
        h_BCthw = frame_BChw[:, :, None].expand(-1, -1, frames, -1, -1)
        for conv in self.halving:
            h_BCthw = functional.silu(conv(h_BCthw))
        for block in self.block:
            h_BCthw = block(h_BCthw)
        return self.last(h_BCthw)[:, :, 0]
