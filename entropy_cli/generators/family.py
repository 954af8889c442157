"""The base class of generator families."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from entropy_cli.generators.base import Generator, GeneratorSpec
from entropy_cli.generators.network import NetworkGenerator, load_weights
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint


class Family(ABC):
    """A kind of generator, published with one layout of weights and one forward pass.

    A checkpoint is detected as the one family whose REQUIRED weights it has. The methods get a
    checkpoint whose wrapper and prefix are already removed from its names.

    Attributes:
        WORDS: what a checkpoint of it is, for people, and what its tokenizer's is called.
        REQUIRED: weights that show the family and its sizes, each with what it is.
        TOKENIZERS: published tokenizers, by number of codes and dimensions of latents (None for any).
    """

    WORDS: ClassVar[str]
    REQUIRED: ClassVar[dict[str, str]]
    TOKENIZERS: ClassVar[dict[tuple[int, int | None], str]]

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """List the required weights that a checkpoint lacks."""
        return [name for name in self.REQUIRED if name not in checkpoint.shapes]

    def fitting_tokenizers(self, spec: GeneratorSpec) -> str:
        """Say which tokenizers make the tokens of a generator of this family."""
        published = self.TOKENIZERS.get((spec.vocab_size, spec.latent_dim))
        codes = f"{spec.vocab_size:,} codes"
        codes += f" of {spec.latent_dim} dimensions" if spec.latent_dim else ""
        scales = "s " + ",".join(map(str, spec.patch_nums)) if spec.patch_nums[1:] else ""
        grid = f"scale{scales}" if scales else " x ".join(map(str, spec.patch_nums * 2)) + " tokens"
        grid = grid if spec.patch_nums else "tokens for its images"
        return f"{published or 'one'} with {codes} and {grid}"

    def describe(self, checkpoint: Checkpoint, settings: GeneratorSettings) -> GeneratorSpec:
        """Describe the generator from names, shapes and small tables of numbers.

        The patch_nums are empty where neither the files nor the settings show them.

        Raises:
            CheckpointError: the names or shapes are not the layout's, or the settings contradict them.
        """
        return self.plan(checkpoint, settings)[0]

    def build(self, checkpoint: Checkpoint, settings: GeneratorSettings) -> Generator:
        """Read the weights and return the generator, on the CPU and in float32.

        Raises:
            CheckpointError: as for `describe`, or a weight can't be read or is not finite.
        """
        spec, network = self.plan(checkpoint, settings)
        return NetworkGenerator(spec, load_weights(checkpoint, network))

    @abstractmethod
    def plan(
        self, checkpoint: Checkpoint, settings: GeneratorSettings
    ) -> tuple[GeneratorSpec, nn.Module]:
        """Return the spec, and the network on the meta device after comparing all shapes with it.

        Raises:
            CheckpointError: as for `describe`.
        """
