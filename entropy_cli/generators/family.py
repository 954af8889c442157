"""The base class of generator families."""

from abc import ABC, abstractmethod
from typing import ClassVar

from entropy_cli.generators.base import Generator, GeneratorSpec
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint


class Family(ABC):
    """A kind of generator, published with one layout of weights and one forward pass.

    A checkpoint is detected as the one family whose REQUIRED weights it has. The methods get a
    checkpoint whose wrapper and prefix are already removed from its names.

    Attributes:
        REQUIRED: weights that show the family and its sizes, each with what it is.
    """

    REQUIRED: ClassVar[dict[str, str]]

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks."""
        return [name for name in self.REQUIRED if name not in checkpoint.shapes]

    @abstractmethod
    def describe(self, checkpoint: Checkpoint, settings: GeneratorSettings) -> GeneratorSpec:
        """Describe the generator from names, shapes and small tables of numbers.

        The patch_nums are empty where neither the files nor the settings show them.

        Raises:
            CheckpointError: the names or shapes are not the layout's, or the settings contradict them.
        """

    @abstractmethod
    def build(self, checkpoint: Checkpoint, settings: GeneratorSettings) -> Generator:
        """Read the weights and return the generator, on the CPU and in float32.

        Raises:
            CheckpointError: as for `describe`, or a weight can't be read or is not finite.
        """
