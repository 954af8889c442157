"""The convolutional decoder that belongs to the encoder; see `autoencoder`."""

from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.tokenizers.layers.autoencoder import (
    Blocks,
    Conventions,
    Middle,
    Shapes,
    conv_like,
    count,
)
from entropy_cli.tokenizers.layers.norms import norm_like


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by 2, then a convolution."""

    def __init__(self, shapes: Shapes, name: str, by: Conventions) -> None:
        super().__init__()
        self.conv = conv_like(shapes, f"{name}.conv", by)

    def forward(self, x_BChw: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x_BChw, scale_factor=2.0, mode="nearest"))


class UpLevel(Blocks):
    """The blocks of one resolution, and the upsampling to the next."""

    def __init__(self, shapes: Shapes, name: str, by: Conventions) -> None:
        super().__init__(shapes, name, by)
        there = f"{name}.upsample.conv.weight" in shapes
        self.upsample = Upsample(shapes, f"{name}.upsample", by) if there else None

    def forward(self, h_BChw: Tensor) -> Tensor:
        h_BChw = super().forward(h_BChw)
        return h_BChw if self.upsample is None else self.upsample(h_BChw)


class Decoder(nn.Module):
    """The decoder from a grid of latents, after post_quant_conv, to images around [-1, 1]."""

    def __init__(self, shapes: Shapes, by: Conventions, name: str = "decoder") -> None:
        super().__init__()
        self.conv_in = conv_like(shapes, f"{name}.conv_in", by)
        self.mid = Middle(shapes, f"{name}.mid", by)
        levels = range(count(shapes, f"{name}.up.{{}}.block.0.conv1.weight"))
        self.up = nn.ModuleList(UpLevel(shapes, f"{name}.up.{i}", by) for i in levels)
        self.norm_out = norm_like(shapes, f"{name}.norm_out", f"{name}.conv_out", by.norm_groups)
        self.conv_out = conv_like(shapes, f"{name}.conv_out", by)

    def forward(self, z_BChw: Tensor) -> Tensor:
        h_BChw = self.mid(self.conv_in(z_BChw))
        for level in reversed(self.up):
            h_BChw = level(h_BChw)
        out_B3HW: Tensor = self.conv_out(self.norm_out.then_silu(h_BChw))
        return out_B3HW
