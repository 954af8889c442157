"""The interface between a generator and its evaluation, which every generator family implements."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from entropy_cli.entropy.codebook import Rule
from entropy_cli.tokenizers.precision import Precision
from entropy_cli.tokenizers.settings import TokenizerSettings


@dataclass(frozen=True)
class GeneratorSpec:
    """The description of a generator, known without running it.

    Attributes:
        family: name of the family.
        vocab_size: number of codes V that it predicts.
        latent_dim: dimensions of its teacher-forcing inputs, None if it takes tokens only.
        patch_nums: side of each scale's grid of tokens, in the order in which they are predicted; empty
            if its files don't say, which only a description can be without.
        image_size: side of the images in pixels, None if only the tokenizer knows it.
        classes: number of classes, without the one for "no class".
        null_class: the label that stands for "no class", None if it was trained without one.
        parameters: number of its trained weights.
        width, depth, heads: of its transformer.
        trained_in: the precision of the products in its training.
        attention: how its tokens attend to each other, in words.
        rule: how its tokenizer compares codes with latents, None if its files don't say.
        notes: what the user should know about this checkpoint.
    """

    family: str
    vocab_size: int
    latent_dim: int | None
    patch_nums: tuple[int, ...]
    image_size: int | None
    classes: int
    null_class: int | None
    parameters: int
    width: int
    depth: int
    heads: int
    trained_in: Precision
    attention: str
    rule: Rule | None = None
    notes: tuple[str, ...] = ()

    @property
    def tokens_S(self) -> tuple[int, ...]:
        """Return the number of tokens of each scale."""
        return tuple(n * n for n in self.patch_nums)

    @property
    def tokens(self) -> int:
        """Return the number L of tokens of an image."""
        return sum(self.tokens_S)

    @property
    def of_tokenizer(self) -> TokenizerSettings:
        """Return what it shows of the tokenizer that it was trained with."""
        scales = self.patch_nums if self.latent_dim is not None and self.patch_nums else None
        side = self.patch_nums[-1] if self.patch_nums else None
        return TokenizerSettings(self.image_size, scales, self.rule, latent_side=side)


class Generator(Protocol):
    """An autoregressive model of the tokens of an image, given its class.

    `hidden` is the whole network but its last linear layer, which is `logits`: logits of all tokens of
    a batch would be large, so the caller takes them in pieces. The residual stream, norms, softmax and
    the last layer are float32 whatever the precision, which is that of the other products.
    """

    spec: GeneratorSpec

    def to(self, device: torch.device, precision: Precision) -> "Generator":
        """Return a generator on a device with its products in a precision; this one stays as it is."""
        ...

    def hidden(self, idx_BL: Tensor, label_B: Tensor, inputs_BMC: Tensor | None) -> Tensor:
        """Run the network on images whose tokens are known (teacher forcing).

        Args:
            idx_BL: tokens, int64, scale after scale in raster order.
            label_B: classes, int64, or the spec's null class.
            inputs_BMC: for a spec with a latent_dim, the float32 teacher-forcing inputs of the M tokens
                after the first scale: what the tokenizer decodes from all earlier scales, averaged down
                to the grid of each. None for others.

        Returns:
            The float32 vectors hidden_BLC that `logits` takes, the i-th for token i: nothing is shifted.
        """
        ...

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Return the float32 logits_NV of N vectors of `hidden`, of any images and tokens."""
        ...
