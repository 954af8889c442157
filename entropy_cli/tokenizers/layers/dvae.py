"""DALL-E's convolutional encoder, without norms, up to the layer that gives each code's logit.

Source:
    openai/DALL-E dall_e/encoder.py.
"""

from functools import reduce
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.tokenizers.layers.autoencoder import LDM, Shapes, conv_like, count, through

CONVOLUTIONS = range(1, 5)  # in a block


class Block(nn.Module):
    """ReLU and convolution, four times, scaled down and added to a shortcut."""

    def __init__(self, shapes: Shapes, name: str, gain: float) -> None:
        super().__init__()
        self.gain = gain
        there = f"{name}.id_path.weight" in shapes
        self.id_path = conv_like(shapes, f"{name}.id_path", LDM) if there else nn.Identity()
        for k in CONVOLUTIONS:
            self.add_module(f"conv_{k}", conv_like(shapes, f"{name}.conv_{k}", LDM))

    def flow(self, channels: int) -> int:
        """Return the channels that it gives for those it gets; see `autoencoder.through`."""
        given = channels
        for k in CONVOLUTIONS:
            given = through(getattr(self, f"conv_{k}"), given)
        if given != through(self.id_path, channels):
            raise ValueError(f"a block of {channels} channels gives {given}, but its shortcut does not")
        return given

    def forward(self, x_BChw: Tensor) -> Tensor:
        h_BChw = x_BChw
        for k in CONVOLUTIONS:
            h_BChw = getattr(self, f"conv_{k}")(functional.relu(h_BChw))
        shortcut_BChw: Tensor = self.id_path(x_BChw)
        return shortcut_BChw + self.gain * h_BChw


class DVAEEncoder(nn.Module):
    """The encoder from images to the features that logits are linear in."""

    image_size = None  # any

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.input = conv_like(shapes, "encoder.input", LDM)
        group = "encoder.group_{}.block_{}"
        groups = range(1, 1 + count(shapes, group.format("{}", 1) + ".conv_1.weight", first=1))
        names = [
            [
                group.format(g, b)
                for b in range(1, 1 + count(shapes, group.format(g, "{}") + ".conv_1.weight", first=1))
            ]
            for g in groups
        ]
        gain = 1 / max(1, sum(map(len, names))) ** 2
        for g, blocks in zip(groups, names, strict=True):
            layers = {name.rpartition(".")[2]: Block(shapes, name, gain) for name in blocks}
            self.add_module(f"group_{g}", nn.ModuleDict(layers))
        if not names:
            raise ValueError("has no blocks")
        self.latent_dim = self._flow()

    @property
    def groups(self) -> list[nn.ModuleDict]:
        """The blocks of each resolution."""
        return [module for module in self.children() if isinstance(module, nn.ModuleDict)]

    @property
    def downsampling(self) -> int:
        """The number of pixels on the side of one latent."""
        return 2 ** (len(self.groups) - 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        h_BChw = self.input(x_B3HW.to(self.input.weight.dtype))
        for g, group in enumerate(self.groups):
            h_BChw = functional.max_pool2d(h_BChw, 2) if g else h_BChw
            for block in group.values():
                h_BChw = block(h_BChw)
        return functional.relu(h_BChw)

    def _flow(self) -> int:
        """Return the channels of the features; ValueError if layers don't fit together."""
        blocks: list[Any] = [block for group in self.groups for block in group.values()]
        return reduce(lambda given, block: block.flow(given), blocks, through(self.input, 3))
