"""Generator families, and finding the one that a checkpoint belongs to.

To add one, write a module in `families/` with a subclass of `Family`, and add its row to FAMILIES.
Detection, the commands and the tests work from FAMILIES; the tests also need a tiny checkpoint of the
layout, one row in tests/generator_checkpoints.py.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import stage
from entropy_cli.generators.base import Generator, GeneratorSpec
from entropy_cli.generators.families.llamagen_gpt import LlamaGenGPT
from entropy_cli.generators.families.var import VAR
from entropy_cli.generators.family import Family
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.generators.unsupported import recognise
from entropy_cli.tokenizers import unsupported
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.checkpoints.states import PARALLEL, TOKENIZER, Kind, some

logger = logging.getLogger(__name__)

FAMILIES: dict[str, Family] = {
    "var": VAR(),
    "llamagen-gpt": LlamaGenGPT(),
}
GENERATOR = Kind(
    noun="generator",
    # VAR's and its relatives' have the first or second, LlamaGen's the third.
    anchors=("lvl_embed.weight", "word_embed.weight", "tok_embeddings.weight"),
    wrappers=(
        "",
        "trainer.var_wo_ddp",  # VAR
        "trainer",  # CCA
        "model",  # LlamaGen with DDP
        "module",  # DeepSpeed
        "state_dict",
        "model_state_dict",
        "ema",
    ),
    prefixes=("", *PARALLEL, "model.", "var.", "gpt.", "transformer."),
    trained=re.compile(r".*(weight|bias|pos_start|pos_1LC|ada_gss|scale_mul_1H11)"),
)


@dataclass(frozen=True)
class Found:
    """A checkpoint and the family that it was detected as.

    Attributes:
        checkpoint: the checkpoint, with the copy of its weights that is used.
        name: the family's name in FAMILIES.
        settings: the caller's.
    """

    checkpoint: Checkpoint
    name: str
    settings: GeneratorSettings

    @property
    def family(self) -> Family:
        """The detected family."""
        return FAMILIES[self.name]

    @property
    def evidence(self) -> list[str]:
        """The weights that show that the checkpoint is of the family, each with what it is."""
        return [f"has {name}: {meaning}" for name, meaning in self.family.REQUIRED.items()][:3]

    def describe(self) -> GeneratorSpec:
        """Describe the generator without reading its weights; see `Family.describe`."""
        return self.family.describe(self.checkpoint, self.settings)

    def build(self) -> Generator:
        """Read the weights and return the generator.

        Raises:
            CheckpointError: as for `Family.build`, or nothing shows its scales.
        """
        self.check_complete(self.describe())
        return self.family.build(self.checkpoint, self.settings)

    def check_complete(self, spec: GeneratorSpec) -> None:
        """Raise CheckpointError if nothing shows which scales of tokens it predicts."""
        if not spec.patch_nums:
            needed = "--patch-nums" if spec.latent_dim else "--image-size, such as 256 or 384"
            raise CheckpointError(
                f"{self.checkpoint.path}: nothing in it shows which scales of tokens it predicts: those "
                f"for images of other sizes have weights of the same shapes. Give {needed}."
            )


@dataclass(frozen=True)
class Loaded:
    """A generator, the checkpoint, settings and evidence that it was built from."""

    generator: Generator
    checkpoint: Checkpoint
    settings: GeneratorSettings
    evidence: list[str]


def load_generator(path: Path, settings: GeneratorSettings | None = None) -> Loaded:
    """Open a checkpoint and build its generator; for the arguments and errors see `find_generator`."""
    found = find_generator(path, settings)
    with stage(f"building the generator of {path}"):
        generator = found.build()
    found.checkpoint.close()
    logger.debug("%s: family %s: %s", path, found.name, "; ".join(found.evidence))
    return Loaded(generator, found.checkpoint, found.settings, found.evidence)


def find_generator(path: Path, settings: GeneratorSettings | None = None) -> Found:
    """Open a checkpoint and find its generator family.

    Args:
        path: the checkpoint, or one of a training that holds a generator among other things.
        settings: the caller's choices.

    Raises:
        CheckpointError: it is no generator, one that is not supported, or unusable.
    """
    return match_generator(open_checkpoint(path, GENERATOR), settings)


def match_generator(checkpoint: Checkpoint, settings: GeneratorSettings | None = None) -> Found:
    """Find the family of an open checkpoint; for the arguments and errors see `find_generator`."""
    settings = settings or GeneratorSettings()
    if broken := checkpoint.config.broken:
        raise CheckpointError(
            f"{checkpoint.config.path}: {broken}. It may say what the checkpoint is: mend or remove it."
        )
    name = detect(checkpoint)
    if settings.weights:
        checkpoint = checkpoint.with_weights(settings.weights)
    return Found(checkpoint, name, settings)


def looks_like_one(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint holds a generator of a family or of a kind that is not supported."""
    return recognise(checkpoint) is not None or any(
        not f.missing_keys(checkpoint) for f in FAMILIES.values()
    )


def detect(checkpoint: Checkpoint) -> str:
    """Return the family of a checkpoint, or raise CheckpointError with what it is instead."""
    if known := recognise(checkpoint):
        raise CheckpointError(
            f"{checkpoint.path}: looks like {known.words}, which is not supported: {known.trouble}. "
            "Dump its logits with its own code and give them to `entropy-cli loss`."
        )
    lacking = {name: family.missing_keys(checkpoint) for name, family in FAMILIES.items()}
    fitting = [name for name, missing in lacking.items() if not missing]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(
            f"{checkpoint.path}: fits {' and '.join(fitting)}, expected one. Save it by itself."
        )
    nearest = min(lacking, key=lambda name: len(lacking[name]) / len(FAMILIES[name].REQUIRED))
    if 2 * len(lacking[nearest]) <= len(FAMILIES[nearest].REQUIRED):
        raise CheckpointError(
            f"{checkpoint.path}: not of family {nearest}, which is nearest: lacks "
            f"{some(lacking[nearest])}. Give a checkpoint of the published code."
        )
    if any(name.endswith(TOKENIZER.anchors) for name in (*checkpoint.shapes, *checkpoint.outside)):
        raise CheckpointError(
            f"{checkpoint.path}: is a tokenizer, not a generator of its tokens. Give it to --ckpt, and "
            "the generator to --model."
        )
    other = unsupported.recognise(checkpoint.shapes, checkpoint.outside, checkpoint.config.classes)
    has = f"It looks like {other.words}" if other else f"It has {some(list(checkpoint.shapes), 3)}"
    raise CheckpointError(
        f"{checkpoint.path}: no generator of a known layout. {has}. Expected one of "
        f"{' or '.join(FAMILIES)}, such as var_d16.pth or c2i_L_256.pt."
    )
