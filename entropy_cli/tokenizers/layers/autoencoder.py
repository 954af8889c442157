"""The convolutional autoencoder of latent diffusion's VQ models and of all that came after them.

Module names are those of VAR's checkpoints, to which other families' are renamed, and every size is read
off the shapes of the weights, so that a state dict loads strictly or not at all. All families' encoders
are made of it; the decoder is that of the tokenizers trained here.

Source:
    FoundationVision/VAR models/basic_vae.py, itself after CompVis/latent-diffusion.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from entropy_cli.tokenizers.layers import fused
from entropy_cli.tokenizers.layers.norms import GroupNorm, norm_like, uncounted

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Conventions:
    """The conventions of an encoder that its weights do not show.

    Attributes:
        norm_groups: of every group norm, the first that divides its channels.
        pads_both_sides: before a stride of 2; else right and below only.
        unbiased: last names of the convolutions that have no bias.
        pools: means of 2 x 2 between levels, where others have a convolution.
        shortcuts_last: a shortcut's convolution takes what the block's others give, not its input.
    """

    norm_groups: tuple[int, ...] = (32,)
    pads_both_sides: bool = False
    unbiased: tuple[str, ...] = ()
    pools: bool = False
    shortcuts_last: bool = False


LDM = Conventions()


def conv_like(shapes: Shapes, name: str, by: Conventions, *, stride: int = 1) -> nn.Conv2d:
    """Build a convolution from the shape of its weight, with padding that preserves the image's size."""
    out_channels, in_channels, kernel, _ = shapes[f"{name}.weight"]
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2 if stride == 1 or by.pads_both_sides else 0,
        bias=name.rpartition(".")[2] not in by.unbiased,
    )


def through(layer: nn.Module, channels: int) -> int:
    """Return the channels that a layer gives for those it gets, without running it.

    A dry run on the meta device would tell the same, after seconds of importing torch's compiler.

    Raises:
        ValueError: it takes another number of channels, or changes the size of an image.
    """
    if isinstance(layer, nn.Identity):
        return channels
    assert isinstance(layer, nn.Conv2d)
    if layer.in_channels != channels:
        raise ValueError(f"a convolution takes {layer.in_channels} channels, but gets {channels}")
    if layer.stride == (1, 1) and any(kernel % 2 == 0 for kernel in layer.kernel_size):
        raise ValueError(f"a convolution has a kernel of {layer.kernel_size}, expected odd sizes")
    return layer.out_channels


def without_bias(conv: nn.Conv2d, x_BChw: Tensor) -> Tensor:
    """Apply a convolution but for its bias."""
    return functional.conv2d(x_BChw, conv.weight, None, conv.stride, conv.padding)


class ResnetBlock(nn.Module):
    """Norm, SiLU and convolution, twice, with a shortcut."""

    recomputes = False  # its activations in the backward pass, to keep none of them

    def __init__(self, shapes: Shapes, name: str, by: Conventions) -> None:
        super().__init__()
        self.norm1 = norm_like(shapes, f"{name}.norm1", f"{name}.conv1", by.norm_groups)
        self.conv1 = conv_like(shapes, f"{name}.conv1", by)
        self.norm2 = norm_like(shapes, f"{name}.norm2", f"{name}.conv2", by.norm_groups)
        self.conv2 = conv_like(shapes, f"{name}.conv2", by)
        shortcut = f"{name}.nin_shortcut"
        there = f"{shortcut}.weight" in shapes
        self.nin_shortcut = conv_like(shapes, shortcut, by) if there else nn.Identity()
        self.shortcut_last = there and by.shortcuts_last

    def forward(self, x_BChw: Tensor) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            again = lambda: (nullcontext(), uncounted(self))  # noqa: E731
            return checkpoint(self._run, x_BChw, use_reentrant=False, context_fn=again)
        return self._run(x_BChw)

    def flow(self, channels: int) -> int:
        """Return the channels that it gives for those it gets; see `through`."""
        given = through(self.conv2, through(self.conv1, channels))
        if given != through(self.nin_shortcut, given if self.shortcut_last else channels):
            raise ValueError(f"a block of {channels} channels gives {given}, but its shortcut does not")
        return given

    def _run(self, x_BChw: Tensor) -> Tensor:
        norms = [norm for norm in (self.norm1, self.norm2) if isinstance(norm, GroupNorm)]
        fits = len(norms) == 2 and not self.shortcut_last
        if fits and all(norm.is_fused(x_BChw) for norm in norms):
            return self._run_fused(x_BChw, *norms)
        h_BChw = self.conv1(self.norm1.then_silu(x_BChw))
        h_BChw = self.conv2(self.norm2.then_silu(h_BChw))
        return h_BChw.add_(self.nin_shortcut(h_BChw if self.shortcut_last else x_BChw))

    def _run_fused(self, x_BChw: Tensor, norm1: GroupNorm, norm2: GroupNorm) -> Tensor:
        """Run in fused kernels, which also add the biases of convolutions: else a pass each."""
        h_BChw = without_bias(self.conv1, norm1.run_fused(x_BChw, silu=True))
        h_BChw = without_bias(self.conv2, norm2.run_fused(h_BChw, self.conv1.bias, silu=True))
        biases = [self.conv2.bias]
        if isinstance(self.nin_shortcut, nn.Conv2d):
            x_BChw = without_bias(self.nin_shortcut, x_BChw)
            biases.append(self.nin_shortcut.bias)
        return fused.add(h_BChw, x_BChw, biases)


class AttnBlock(nn.Module):
    """Single-head self-attention over the grid, with a shortcut."""

    def __init__(self, shapes: Shapes, name: str, by: Conventions) -> None:
        super().__init__()
        self.norm = norm_like(shapes, f"{name}.norm", f"{name}.qkv", by.norm_groups)
        self.qkv = conv_like(shapes, f"{name}.qkv", by)
        self.proj_out = conv_like(shapes, f"{name}.proj_out", by)

    def flow(self, channels: int) -> int:
        """Return the channels that it gives for those it gets; see `through`."""
        given = through(self.qkv, channels), through(self.proj_out, channels)
        if given != (3 * channels, channels):
            raise ValueError(f"attention over {channels} channels gives {given[0]} and {given[1]}")
        return channels

    def forward(self, x_BChw: Tensor) -> Tensor:
        qkv_BChw = self.qkv(self.norm(x_BChw))
        qkv_BlC = qkv_BChw.flatten(2).transpose(1, 2)
        # With an axis for the only head, without which torch takes no fused kernel.
        q_B1lC, k_B1lC, v_B1lC = qkv_BlC[:, None].chunk(3, dim=3)
        h_B1lC = functional.scaled_dot_product_attention(q_B1lC, k_B1lC, v_B1lC)
        return x_BChw + self.proj_out(h_B1lC[:, 0].transpose(1, 2).view_as(x_BChw))


class Downsample(nn.Module):
    """A convolution of stride 2 that halves the size."""

    def __init__(self, shapes: Shapes, name: str, by: Conventions) -> None:
        super().__init__()
        self.pads_first = not by.pads_both_sides
        self.conv = conv_like(shapes, f"{name}.conv", by, stride=2)

    def forward(self, x_BChw: Tensor) -> Tensor:
        return self.conv(functional.pad(x_BChw, (0, 1, 0, 1)) if self.pads_first else x_BChw)


class Blocks(nn.Module):
    """The blocks of one resolution, each or none followed by attention."""

    def __init__(self, shapes: Shapes, name: str, by: Conventions) -> None:
        super().__init__()
        blocks = range(count(shapes, f"{name}.block.{{}}.conv1.weight"))
        self.block = nn.ModuleList(ResnetBlock(shapes, f"{name}.block.{j}", by) for j in blocks)
        attended = [j for j in blocks if f"{name}.attn.{j}.qkv.weight" in shapes]
        self.attn = nn.ModuleList(AttnBlock(shapes, f"{name}.attn.{j}", by) for j in attended)
        if attended and len(attended) < len(blocks):
            raise ValueError(f"{name} has attention after some of its blocks only")

    @property
    def layers(self) -> list[Any]:
        """The blocks and attentions in the order in which they run."""
        pairs = zip(self.block, self.attn, strict=True) if len(self.attn) else zip(self.block)
        return [layer for pair in pairs for layer in pair]

    def flow(self, channels: int) -> int:
        """Return the channels that it gives for those it gets; see `through`."""
        return reduce(lambda given, layer: layer.flow(given), self.layers, channels)

    def forward(self, h_BChw: Tensor) -> Tensor:
        return reduce(lambda h_BChw, layer: layer(h_BChw), self.layers, h_BChw)


class Level(Blocks):
    """The blocks of one resolution, and the downsampling to the next."""

    def __init__(self, shapes: Shapes, name: str, by: Conventions, *, is_last: bool) -> None:
        super().__init__(shapes, name, by)
        self.channels = shapes[f"{name}.block.0.conv1.weight"][0]
        self.downsample: nn.Module | None = None
        if f"{name}.downsample.conv.weight" in shapes:
            self.downsample = Downsample(shapes, f"{name}.downsample", by)
        elif by.pools and not is_last:
            self.downsample = nn.AvgPool2d(2)

    def flow(self, channels: int) -> int:
        """Return the channels that it gives for those it gets; see `through`."""
        given, layer = super().flow(channels), self.downsample
        return through(layer.conv, given) if isinstance(layer, Downsample) else given

    def forward(self, h_BChw: Tensor) -> Tensor:
        h_BChw = super().forward(h_BChw)
        return h_BChw if self.downsample is None else self.downsample(h_BChw)


class Middle(Blocks):
    """The blocks at the lowest resolution, attention after the first if the checkpoint has it."""

    def __init__(self, shapes: Shapes, name: str, by: Conventions) -> None:
        nn.Module.__init__(self)
        self.block_1 = ResnetBlock(shapes, f"{name}.block_1", by)
        if f"{name}.attn_1.qkv.weight" in shapes:
            self.attn_1 = AttnBlock(shapes, f"{name}.attn_1", by)
        for i in range(2, 2 + count(shapes, f"{name}.block_{{}}.conv1.weight", first=2)):
            self.add_module(f"block_{i}", ResnetBlock(shapes, f"{name}.block_{i}", by))

    @property
    def layers(self) -> list[Any]:
        """The blocks and the attention in the order in which they run."""
        return list(self.children())


class Encoder(nn.Module):
    """The encoder from images in [-1, 1] to a grid `downsampling` times smaller."""

    memory_format = torch.channels_last
    channels_in = 3
    halves_every_level = True  # but the last

    def __init__(self, shapes: Shapes, by: Conventions, name: str = "encoder") -> None:
        super().__init__()
        self.conv_in = conv_like(shapes, f"{name}.conv_in", by)
        levels = count(shapes, f"{name}.down.{{}}.block.0.conv1.weight")
        self.down = nn.ModuleList(
            Level(shapes, f"{name}.down.{i}", by, is_last=i == levels - 1) for i in range(levels)
        )
        self.mid = Middle(shapes, f"{name}.mid", by)
        self.norm_out = norm_like(shapes, f"{name}.norm_out", f"{name}.conv_out", by.norm_groups)
        self.conv_out = conv_like(shapes, f"{name}.conv_out", by)

    @property
    def halvings(self) -> int:
        """The number of times the image is halved."""
        return sum(level.downsample is not None for level in self.down)

    @property
    def downsampling(self) -> int:
        """The number of pixels on the side of one latent."""
        return 2**self.halvings

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of channels of each level."""
        return tuple(level.channels for level in self.down)  # type: ignore[misc]

    def flow(self) -> int:
        """Return the channels of the latents; see `through`."""
        if self.halves_every_level and self.halvings != len(self.down) - 1:
            raise ValueError(
                f"got {self.halvings} downsampling convolutions between {len(self.down)} levels, "
                f"expected {len(self.down) - 1}. If the encoder downsamples by pooling, make latents "
                "with its own code and give --latents"
            )
        levels: list[Any] = [*self.down, self.mid]
        channels = through(self.conv_in, self.channels_in)
        return through(self.conv_out, reduce(lambda given, level: level.flow(given), levels, channels))

    def forward(self, x_B3HW: Tensor) -> Tensor:
        weight = self.conv_in.weight
        h_BChw = self.conv_in(x_B3HW.to(weight.dtype, memory_format=self.memory_format))
        for level in self.down:
            h_BChw = level(h_BChw)
        h_BChw = self.mid(h_BChw)
        out_BChw: Tensor = self.conv_out(self.norm_out.then_silu(h_BChw))
        return out_BChw


def count(shapes: Shapes, pattern: str, first: int = 0) -> int:
    """Count the names pattern.format(first), pattern.format(first + 1), ... up to the first gap."""
    i = first
    while pattern.format(i) in shapes:
        i += 1
    return i - first
