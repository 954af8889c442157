"""Generators that are one network: their precision, and reading their weights."""

import copy
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.checkpoints.states import some
from entropy_cli.tokenizers.precision import DTYPES, Precision, matmul_precision


class Product(nn.Linear):
    """A linear layer that computes in its weights' type, which is that of the generator's precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the product, in that type."""
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


class NetworkGenerator:
    """A network whose `forward` is `hidden` and whose `logits` are its last layer; see `base.Generator`.

    The parameters of its `Product` modules take the precision, others are float32.
    """

    def __init__(
        self,
        spec: GeneratorSpec,
        network: Any,  # noqa: ANN401 - networks differ by family
        precision: Precision = "fp32",
    ) -> None:
        self.spec, self.network, self.precision = spec, network, precision

    def to(self, device: torch.device, precision: Precision) -> "NetworkGenerator":
        """Return a generator on a device in a precision; what is there already is shared, not copied."""
        weights = dict(self.network.named_parameters())
        products = {
            f"{name}.{part}"
            for name, module in self.network.named_modules()
            if isinstance(module, Product)
            for part in ("weight", "bias")
        }
        network = copy.deepcopy(self.network, {id(weight): weight for weight in weights.values()})
        cast = {
            name: weight.detach().to(device, DTYPES[precision] if name in products else torch.float32)
            for name, weight in weights.items()
        }
        network.load_state_dict(cast, assign=True)
        return type(self)(self.spec, network.requires_grad_(requires_grad=False), precision)

    def hidden(self, idx_BL: Tensor, label_B: Tensor, inputs_BMC: Tensor | None) -> Tensor:
        """Return the vectors hidden_BLC before the last layer."""
        with matmul_precision(tf32=self.precision == "tf32"):
            return self.network(idx_BL, label_B, inputs_BMC)

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Return the logits_NV of vectors."""
        with matmul_precision(tf32=False):
            return self.network.logits(hidden_NC)


def check_weights(checkpoint: Checkpoint, network: nn.Module, ignored: str) -> None:
    """Check that a checkpoint has just the weights of a network (on any device), in its shapes.

    Args:
        checkpoint: with the names that the network has.
        network: of the sizes that the shapes show.
        ignored: a regular expression of whole names that don't matter.

    Raises:
        CheckpointError: listing what is missing, unknown, or of another shape.
    """
    expected = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    missing = [name for name in expected if name not in checkpoint.shapes]
    unknown = [name for name in checkpoint.shapes if name not in expected]
    unknown = [name for name in unknown if not re.fullmatch(ignored, name)]
    if missing or unknown:
        lacks = [f"lacks {some(missing)}"] if missing else []
        has = [f"has {some(unknown)}, which the layout does not have"] if unknown else []
        raise CheckpointError(
            f"{checkpoint.path}: not of the family's layout: {'; '.join([*lacks, *has])}. Give a "
            "checkpoint of the published code."
        )
    for name, shape in expected.items():
        if checkpoint.shapes[name] != shape:
            raise CheckpointError(
                f"{checkpoint.path}: sizes contradict each other: {name} has shape "
                f"{checkpoint.shapes[name]}, but other weights imply {shape}."
            )


def load_weights(checkpoint: Checkpoint, network: nn.Module) -> nn.Module:
    """Give a network on the meta device the weights of a checkpoint, as float32, for inference.

    Raises:
        CheckpointError: a weight can't be read or is not finite.
    """
    weights = {name: checkpoint.finite(name) for name, _ in network.named_parameters()}
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def axes(checkpoint: Checkpoint, name: str, number: int) -> Sequence[int]:
    """Return the shape of a weight, or raise CheckpointError unless it has so many axes, none empty."""
    shape = checkpoint.shapes[name]
    if len(shape) != number or 0 in shape:
        raise CheckpointError(
            f"{checkpoint.path}: {name} has shape {shape}, expected {number} axes with numbers."
        )
    return shape


def count_blocks(checkpoint: Checkpoint, parent: str) -> int:
    """Return how many numbered modules a checkpoint has weights of."""
    numbered = (re.match(rf"{parent}\.(\d+)\.", name) for name in checkpoint.shapes)
    return len({found[1] for found in numbered if found})


def check_heads(checkpoint: Checkpoint, heads: object, width: int) -> int:
    """Return a number of heads, or raise CheckpointError if the width can't be split among them."""
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or width % heads:
        raise CheckpointError(
            f"{checkpoint.path}: {heads!r:.60} heads don't divide its width of {width}. Give --heads."
        )
    return heads


def own_config(checkpoint: Checkpoint, *keys: str) -> Mapping[str, Any]:
    """Return the config.json beside a checkpoint if it has the keys of its kind, else nothing."""
    content = checkpoint.config.content
    return content if content.keys() >= set(keys) else {}


def check_config(checkpoint: Checkpoint, config: Mapping[str, Any], own: Mapping[str, object]) -> None:
    """Raise CheckpointError if a config.json says otherwise than the weights, of any of the keys."""
    for key, value in own.items():
        if key in config and config[key] != value:
            raise CheckpointError(
                f"{checkpoint.config.path}: {key} is {config[key]!r:.60}, but the weights have {value}: "
                "it belongs to another checkpoint. Give the config.json that belongs to this one."
            )


def float_in(checkpoint: Checkpoint, config: Mapping[str, Any], key: str, default: float) -> float:
    """Return a positive number of a config.json, the default where it has none of that name.

    Raises:
        CheckpointError: it is no positive number, without which the loss would be another.
    """
    value = config.get(key, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= sys.float_info.max
    ):
        raise CheckpointError(
            f"{checkpoint.config.path}: {key} is {value!r:.60}, expected a positive number. Mend it."
        )
    return float(value)
