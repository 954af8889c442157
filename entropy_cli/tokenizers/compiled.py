"""An encoder compiled by `torch.compile`, for batches of one size."""

import logging
from typing import Literal

import torch
from torch import Tensor, nn

from entropy_cli.core.errors import EntropyCliError

logger = logging.getLogger(__name__)

Compile = Literal["auto", "on", "off"]

# Pixels that one GPU encodes from which compiling is expected to pay: it takes about a minute, and makes
# images of 256 px some 15 % faster, of which a GPU encodes about a thousand in a second. Not measured.
PAYS_FROM = 500_000 * 256**2


def is_worth_compiling(choice: Compile, device: torch.device, pixels: int) -> bool:
    """Return whether to compile for so many pixels; under auto not on a CPU, where it gains nothing."""
    return choice == "on" or (choice == "auto" and device.type == "cuda" and pixels >= PAYS_FROM)


class CompiledEncoder:
    """Calls a network that is compiled for batches of one size, up to which smaller ones are filled.

    Each other size would be compiled again. Once memory runs out the size is that of the next batch. A
    network that can't be compiled runs as it is, with a line that says so.

    Args:
        network: takes images x_B3HW.
        images: in a batch.
        required: raise EntropyCliError in place of running it as it is.
    """

    def __init__(self, network: nn.Module, images: int, *, required: bool) -> None:
        self.network, self.images, self.required = network, images, required
        self.works = True
        try:
            self.run = torch.compile(network, dynamic=False)
        except RuntimeError as error:  # as on a Python that is too new for it
            self._give_up(error)

    def __call__(self, x_B3HW: Tensor) -> Tensor:
        """Return what the network does."""
        if not self.works:
            return self.network(x_B3HW)
        images = len(x_B3HW)
        self.images = max(images, self.images)
        filled_B3HW = torch.cat([x_B3HW, x_B3HW[:1].expand(self.images - images, -1, -1, -1)])
        try:
            return self.run(filled_B3HW)[:images]
        except Exception as error:
            if not _is_of_compiler(error):
                self.images = 0
                raise
            self._give_up(error)
        return self.network(x_B3HW)

    def _give_up(self, error: Exception) -> None:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if self.required:
            raise EntropyCliError(
                f"--compile on: torch can't compile the encoder here: {reason}. Give --compile off."
            ) from error
        logger.warning("the encoder is not compiled, it runs as it is: %s", reason)
        self.works = False


def _is_of_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)
